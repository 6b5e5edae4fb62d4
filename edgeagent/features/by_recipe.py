"""A round that is sent by its provenance: which rows of features, trained how, on which parent; the centre computes the rest.

It trains on the int8 rows that travel, from the parent's exact weights, with an optimizer that starts anew: all that the centre has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.training.course import Kept, Lesson
from modelwire import limits
from modelwire.lattice.candidates import Step
from modelwire.lattice.replay import kind_of, moved_to
from modelwire.lattice.snap import Snapped, no_residual
from modelwire.lattice.state import ModelState
from modelwire.output_head import row_ids
from modelwire.output_head.recipe import CHECKPOINTS_MAX, Checkpoints, Recipe, marks_within
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

    def __init__(self, gathered: OnFeatures, state: ModelState, lesson: Lesson, optimizer: str, every: int = 0) -> None:
        """state: of the parent, whose exact weights it starts from; only `snap` moves it. every: steps between checkpoints; 0: none."""
        rows = gathered.quantised()
        self._parent, self._every = state, every
        self._ids: list[int] = gathered.training.ids.tolist()
        recipe = gathered.recipe(rows, lesson, optimizer)
        super().__init__(gathered.known.output_head, recipe, rows, state.named())
        marks = marks_within(recipe.steps, every) if every else 0
        self._roots = np.zeros((min(marks, CHECKPOINTS_MAX + 1), 32), np.uint8)  # of each checkpoint that was passed

    def against(self, state: ModelState, room: int) -> str:
        """Return why it can't be sent as a recipe, empty when it can. room: bytes of a container without its names and the scores."""
        work = self.recipe.work(len(self.rows))
        if work > limits.DEFAULT.training:
            return f"its training, which counts as {work} multiply-adds, is longer than a centre replays, {limits.DEFAULT.training}"
        if len(self._roots) > CHECKPOINTS_MAX:
            return f"a checkpoint each {self._every} of {self.steps} steps are more than {CHECKPOINTS_MAX}"
        said = self.provenance()
        named = len(cbor.encode(dict(said.extension)))
        size = container.size_of((), state.manifest.schema) + named + len(said.body)
        if size > room:
            return f"{len(self.rows)} rows take {size} bytes of {room}"
        return f"the names of {len(self.rows)} rows take {named} bytes" if named > limits.DEFAULT.extension // 2 else ""

    def step(self) -> float:
        """Take steps up to the next checkpoint at most, and note the root that the model would have there."""
        loss = super().step()
        if self._every and self.done % self._every == 0 and self.done < self.steps:
            there = self._parent.copy()
            there.apply(kind_of(there), moved_to(there, self.output_head.tensors, self.layers()))
            self._roots[self.done // self._every - 1] = np.frombuffer(there.root, np.uint8)
        return loss

    def at_once(self) -> int:
        here = super().at_once()
        return min(here, self._every - self.done % self._every) if self._every else here

    def keep(self) -> Kept:
        """Return also that it trains on rows as they travel: whether a round can be a recipe may change by a byte of its card."""
        return {**super().keep(), "recipe": np.ones(1, np.int64), "roots": self._roots}

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        super().restore(kept)
        self._roots = kept["roots"].copy()

    def provenance(self) -> Provenance:
        """Return what is sent: the steps that were taken, all of them before the first."""
        recipe = replace(self.recipe, steps=self.done or self.steps)  # the rate is constant: fewer steps are a shorter recipe
        marks = marks_within(recipe.steps, self._every) if self._every else 0
        checkpoints = Checkpoints(self._every, tuple(root.tobytes() for root in self._roots[:marks])) if marks else None
        body = Recipe(recipe, self.output_head.tensors, self.rows, checkpoints).encode()
        return Provenance(body, {row_ids.KEY: row_ids.encode_ids(self._ids)})

    def snap(self, state: ModelState, step: Step | None) -> Snapped:
        """Move the parent's state to what the recipe comes to, without a residual.

        step: the last round's own: a recipe has none, and a delta after it goes on with that.
        """
        sections = moved_to(state, self.output_head.tensors, self.layers())
        kind = kind_of(state)
        state.apply(kind, sections)
        return Snapped(kind, sections, state, no_residual(state.manifest), step, (), moved=sections)
