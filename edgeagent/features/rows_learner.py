"""Rows of kept features as what a round trains and judges with: no interpreter, and recipes where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.training.balance import repeated
from edgeagent.training.course import Course, Lesson
from edgeagent.training.guard import Score
from modelwire.lattice.snap import Snapped
from modelwire.lattice.state import ModelState
from modelwire.output_head.rows import ENTRIES_MAX
from modelwire.tensors import Weights

from .by_recipe import RecipeCourse
from .exact_course import FEATURES, ExactCourse
from .gathering import OnFeatures


@dataclass(eq=False)
class RowsLearner:
    """One round's rows, and the state that it starts from. Raises NotTrainable when the rows are not those of this state."""

    gathered: OnFeatures
    state: ModelState
    optimizer: str  # a name; "" for the model file's own
    recipe_room: int | None  # bytes that a recipe may take; None where none is asked for
    checkpoints: int = 0  # steps between those of a recipe; 0: none
    note: str = ""

    modes = (FEATURES,)

    def __post_init__(self) -> None:
        self.gathered.known.check_front(self.state, model=self.gathered.model)
        self.training, self.judging = self.gathered.training, self.gathered.judging

    @property
    def runtime_key(self) -> str:
        return self.gathered.known.runtime_key

    @property
    def batch(self) -> int:
        return self.gathered.known.batch

    def begin(self, mode: str, lesson: Lesson) -> Course:
        if self.recipe_room is not None:
            course = RecipeCourse(self.gathered, self.state, lesson, self.optimizer, self.checkpoints)
            against = course.against(self.state, self.recipe_room)
            if not against:
                return course
            self.note = f"no recipe: {against}"
        rows = self.gathered.rows
        if lesson.balance and rows.labels is not None:  # a recipe's rows stay single: each costs bytes
            rows = rows.take(repeated(rows.labels, ENTRIES_MAX // rows.features.shape[1]))
        return ExactCourse(self.gathered.known.output_head, self.gathered.recipe(rows, lesson, self.optimizer), rows, lesson.start)

    def score(self, weights: Weights) -> Score:
        return self.gathered.measure(weights)

    def settled(self, snapped: Snapped) -> tuple[Snapped, float | None]:
        """Return the round as it is: a model with a threshold is not trained on features."""
        return snapped, None

    def rest(self) -> None:
        """Keep everything: there is nothing beyond the rows."""

    def close(self) -> None:
        """Let go of the rows."""
        self.__dict__.pop("gathered", None)
