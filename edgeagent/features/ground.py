"""Rows of kept features as what a round trains and judges with: no interpreter, and recipes where the settings ask for them."""

from __future__ import annotations

from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import AnomalySettings, ModelSettings
from edgeagent.training.balance import repeated
from edgeagent.training.course import Course, Lesson, Offer
from edgeagent.training.guard import Score
from modelwire.lattice.snap import Snapped
from modelwire.lattice.state import ModelState
from modelwire.output_head.rows import ENTRIES_MAX
from modelwire.tensors import Weights

from .by_recipe import RecipeCourse
from .exact_course import MODE, HeadCourse
from .gathering import OnFeatures


class HeadGround:
    """One round's rows, and the state that it starts from."""

    def __init__(self, gathered: OnFeatures, state: ModelState, settings: ModelSettings, *, overhead: int) -> None:
        """overhead: bytes of the update's names and scores. Raises NotTrainable when the rows are not those of this state."""
        gathered.known.check_front(state, model=gathered.model)
        self.note = ""  # why the update is no recipe where one is asked for
        self.offers = (Offer(MODE, lambda _, lesson: self.begin(MODE, lesson)),)
        self._gathered, self._state, self._settings, self._overhead = gathered, state, settings, overhead

    @property
    def runtime_key(self) -> str:
        return self._gathered.known.runtime_key

    @property
    def batch(self) -> int:
        return self._gathered.known.batch

    def begin(self, mode: str, lesson: Lesson) -> Course:
        optimizer, update = self._settings.train.optimizer, self._settings.update
        if update.kind == "recipe":
            course = RecipeCourse(self._gathered, self._state, lesson, optimizer)
            against = course.against(self._state, update.max_bytes - self._overhead)
            if not against:
                return course
            self.note = f"no recipe: {against}"
        rows = self._gathered.rows
        if lesson.balance and rows.labels is not None:  # a recipe's rows stay single: each costs bytes
            rows = rows.take(repeated(rows.labels, ENTRIES_MAX // rows.features.shape[1]))
        return HeadCourse(self._gathered.known.place, self._gathered.recipe(rows, lesson, optimizer), rows, lesson.start)

    def score(self, weights: Weights, judging: Samples) -> Score:
        return self._gathered.measure(weights)

    def settled(self, snapped: Snapped, judging: Samples, settings: AnomalySettings) -> tuple[Snapped, float | None]:
        """Return the round as it is: a model with a threshold is not trained on features."""
        return snapped, None

    def rest(self) -> None:
        """Keep everything: there is nothing beyond the rows."""

    def close(self) -> None:
        """Let go of the rows."""
        del self._gathered
