"""What a round trains and judges with; and how a model in its interpreter is that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import AnomalySettings
from modelwire.lattice.snap import Snapped
from modelwire.tensors import Weights

from . import guard, threshold
from .batches import Trainable
from .course import Course, Lesson, Offer
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
        """Give back all: nothing can be asked any more, but to close it once more."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelLearner:
    """A model in its interpreter."""

    model: Trainable
    offers: tuple[Offer, ...]  # of its file
    training: Samples
    judging: Samples
    anomaly: AnomalySettings  # how its threshold is set
    note: str = ""

    @property
    def runtime_key(self) -> str:
        return self.model.runtime_key

    @property
    def batch(self) -> int:
        return self.model.batch

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(offer.mode for offer in self.offers)

    def begin(self, mode: str, lesson: Lesson) -> Course:
        return next(offer for offer in self.offers if offer.mode == mode).begin(self.model, lesson)

    def score(self, weights: Weights) -> Score:
        self.model.set_weights(weights)
        return guard.measure(self.model, self.judging)

    def settled(self, snapped: Snapped) -> tuple[Snapped, float | None]:
        return threshold.settle(snapped, self.model, self.judging.x, self.anomaly)

    def rest(self) -> None:
        self.model.use("")

    def close(self) -> None:
        self.model.close()
