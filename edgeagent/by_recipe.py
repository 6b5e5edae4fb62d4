"""A round that is sent by its provenance: which rows of features, trained how, on which parent; the centre computes the rest.

It trains on the int8 rows that travel, from the parent's exact weights, with an optimiser that starts anew: all that the centre has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwire import cbor, container, limits, row_ids
from modelwire.candidates import Step
from modelwire.recipe import Recipe, kind_of, moved_to
from modelwire.snap import Snapped, no_residual
from modelwire.state import ModelState

from .head_course import HeadCourse
from .on_features import OnFeatures
from .settings import Model


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an update of kind recipe carries."""

    body: bytes  # of the recipe
    extension: Mapping[str, cbor.Value]  # which samples its rows are of


@dataclass(frozen=True, slots=True)
class Plan:
    """A round that a recipe can say."""

    course: HeadCourse
    recipe: Recipe
    provenance: Provenance

    def taken(self, state: ModelState, step: Step | None) -> Snapped:
        """Move the parent's state to what the recipe comes to, once the course is done, without a residual.

        step: the last round's own: a recipe has none, and a delta after it goes on with that.
        """
        sections = moved_to(state, self.recipe.layers, self.course.layers())
        kind = kind_of(state)
        state.apply(kind, sections)
        return Snapped(kind, sections, state, no_residual(state.manifest), step, (), moved=sections)


def plan(gathered: OnFeatures, state: ModelState, settings: Model, seed: int, *, room: int) -> Plan | str:
    """Return the round as a recipe, or why it can't be one. room: bytes of a container without its names and the scores."""
    rows = gathered.quantised()
    course = gathered.course(state.named(), settings.train, seed, rows=rows)
    work = course.recipe.work(len(rows))
    if work > limits.DEFAULT.training:
        return f"its training of {work} multiply-adds is longer than a centre replays, {limits.DEFAULT.training}"
    recipe = Recipe(course.recipe, gathered.known.place.tensors, rows)
    extension: dict[str, cbor.Value] = {row_ids.KEY: row_ids.encode_ids(gathered.training.ids.tolist())}
    named, body = len(cbor.encode(extension)), recipe.encode()
    size = container.size_of((), state.manifest.schema) + named + len(body)
    if size > room:
        return f"{len(rows)} rows take {size} bytes of {room}"
    if named > limits.DEFAULT.extension // 2:
        return f"the names of {len(rows)} rows take {named} bytes"
    return Plan(course, recipe, Provenance(body, extension))
