"""An opened model as what a round trains and judges with."""

from __future__ import annotations

from edgeagent.samples.spool import Samples
from edgeagent.settings.tree import AnomalySettings
from modelwire.lattice.snap import Snapped
from modelwire.tensors import Weights

from . import guard
from . import threshold as anomaly
from .batches import Trainable
from .course import Course, Lesson, Offer, courses_for
from .guard import Score


class Opened:
    """A model in its interpreter, and the modes of its file."""

    def __init__(self, model: Trainable, file: bytes, *, name: str) -> None:
        """name: for errors."""
        self._model = model
        self.offers: tuple[Offer, ...] = courses_for(file, model=name)

    @property
    def runtime_key(self) -> str:
        return self._model.runtime_key

    @property
    def batch(self) -> int:
        return self._model.batch

    def begin(self, mode: str, lesson: Lesson) -> Course:
        return next(offer for offer in self.offers if offer.mode == mode).begin(self._model, lesson)

    def score(self, weights: Weights, judging: Samples) -> Score:
        self._model.set_weights(weights)
        return guard.measure(self._model, judging)

    def settled(self, snapped: Snapped, judging: Samples, settings: AnomalySettings) -> tuple[Snapped, float | None]:
        return anomaly.settle(snapped, self._model, judging.x, settings)

    def rest(self) -> None:
        self._model.use("")

    def close(self) -> None:
        self._model.close()
