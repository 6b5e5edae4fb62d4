"""What a round trains and judges with; and how a model in its interpreter is that."""

from __future__ import annotations

from typing import Protocol

from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import Anomaly
from modelwire.lattice.snap import Snapped
from modelwire.tensors import Weights

from . import guard, threshold
from .batches import Trainable
from .course import Course, Lesson, courses_for
from .guard import Score


class Learner(Protocol):
    """An opened model, or rows of kept features; with the samples that it learns from, and those that judge it."""

    @property
    def runtime_key(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def modes(self) -> tuple[str, ...]: ...  # in which it can be trained, cheapest first
    @property
    def training(self) -> Samples: ...
    @property
    def judging(self) -> Samples: ...
    @property
    def note(self) -> str: ...  # why the update is no recipe where one is asked for

    def begin(self, mode: str, lesson: Lesson) -> Course:
        """Return the course of the lesson in one of the modes."""

    def score(self, weights: Weights) -> Score:
        """Return the score of the model with these weights, all of get_weights."""

    def settled(self, snapped: Snapped) -> tuple[Snapped, float | None]:
        """Return the round with its threshold of anomalies, and the threshold: of the model that was scored last."""

    def rest(self) -> None:
        """Give back what training took beyond scoring."""

    def close(self) -> None:
        """Give back all: nothing can be asked any more."""


class ModelLearner:
    """A model in its interpreter, and the modes of its file."""

    def __init__(
        self, model: Trainable, file: bytes, training: Samples, judging: Samples, *, name: str, anomaly: Anomaly, note: str = ""
    ) -> None:
        """name: for errors; anomaly: how its threshold is set; note: why its update is none of the kind that is asked for."""
        self.training, self.judging, self.note = training, judging, note
        self._model, self._anomaly = model, anomaly
        self._offers = {offer.mode: offer for offer in courses_for(file, model=name)}

    @property
    def runtime_key(self) -> str:
        return self._model.runtime_key

    @property
    def batch(self) -> int:
        return self._model.batch

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(self._offers)

    def begin(self, mode: str, lesson: Lesson) -> Course:
        return self._offers[mode].begin(self._model, lesson)

    def score(self, weights: Weights) -> Score:
        self._model.set_weights(weights)
        return guard.measure(self._model, self.judging)

    def settled(self, snapped: Snapped) -> tuple[Snapped, float | None]:
        return threshold.settle(snapped, self._model, self.judging.x, self._anomaly)

    def rest(self) -> None:
        self._model.use("")

    def close(self) -> None:
        self._model.close()
