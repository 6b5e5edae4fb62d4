"""A round that is sent by its provenance: which rows of features, trained how, on which parent; the centre computes the rest.

It trains on the int8 rows that travel, from the parent's exact weights, with an optimizer that starts anew: all that the centre has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeagent.training.course import Kept, Lesson
from modelwire import limits
from modelwire.lattice.candidates import Step
from modelwire.lattice.replay import kind_of, moved_to
from modelwire.lattice.snap import Snapped, no_residual
from modelwire.lattice.state import ModelState
from modelwire.output_head import row_ids
from modelwire.output_head.recipe import Recipe
from modelwire.update import container
from modelwire.wire import cbor

from .exact_course import RECIPE, ExactCourse
from .gathering import OnFeatures


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an update of kind recipe carries."""

    body: bytes  # of the recipe
    extension: Mapping[str, cbor.Value]  # which samples its rows are of


class RecipeCourse(ExactCourse):
    """A course that a recipe can say."""

    closing = RECIPE

    def __init__(self, gathered: OnFeatures, state: ModelState, lesson: Lesson, optimizer: str) -> None:
        """state: of the parent, whose exact weights it starts from."""
        rows = gathered.quantised()
        self._ids: list[int] = gathered.training.ids.tolist()
        recipe = gathered.recipe(rows, lesson, optimizer)
        super().__init__(gathered.known.output_head, recipe, rows, state.named())

    def against(self, state: ModelState, room: int) -> str:
        """Return why it can't be sent as a recipe, empty when it can. room: bytes of a container without its names and the scores."""
        work = self.recipe.work(len(self.rows))
        if work > limits.DEFAULT.training:
            return f"its training, which counts as {work} multiply-adds, is longer than a centre replays, {limits.DEFAULT.training}"
        said = self.provenance()
        named = len(cbor.encode(dict(said.extension)))
        size = container.size_of((), state.manifest.schema) + named + len(said.body)
        if size > room:
            return f"{len(self.rows)} rows take {size} bytes of {room}"
        return f"the names of {len(self.rows)} rows take {named} bytes" if named > limits.DEFAULT.extension // 2 else ""

    def keep(self) -> Kept:
        """Return also that it trains on rows as they travel: whether a round can be a recipe may change by a byte of its card."""
        return {**super().keep(), "recipe": np.ones(1, np.int64)}

    def provenance(self) -> Provenance:
        """Return what is sent: the steps that were taken, all of them before the first."""
        recipe = replace(self.recipe, steps=self.done or self.steps)  # the rate is constant: fewer steps are a shorter recipe
        body = Recipe(recipe, self.output_head.tensors, self.rows).encode()
        return Provenance(body, {row_ids.KEY: row_ids.encode_ids(self._ids)})

    def snap(self, state: ModelState, step: Step | None) -> Snapped:
        """Move the parent's state to what the recipe comes to, without a residual.

        step: the last round's own: a recipe has none, and a delta after it goes on with that.
        """
        sections = moved_to(state, self.output_head.tensors, self.layers())
        kind = kind_of(state)
        state.apply(kind, sections)
        return Snapped(kind, sections, state, no_residual(state.manifest), step, (), moved=sections)
