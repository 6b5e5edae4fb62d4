"""The training of one round, one step at a time: it can stop after any step and go on elsewhere with the same bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Samples
from modelwire.errors import Malformed, TrainingDiverged
from modelwire.tensors import Weights
from modelwire.tflite import notes
from modelwire.tflite.notes import Mode

from .batches import Trainable, batches, orders, steps_of

Kept = dict[str, NDArray[Any]]
WEIGHTS = "weights"  # the closing of most courses
_WEIGHT, _SLOT, _DONE = "weight ", "slot ", "done"


class Course(Protocol):
    """The training of one round, one step at a time; what `keep` gives is enough to go on with the same bits."""

    mode: str  # its name: "head", "last:3", "all", ...
    closing: str  # how an update comes of it: by the weights that it came to, or otherwise
    whole: bool  # False: the file does not give its optimizer's slots away, so a course that is taken up starts them anew

    @property
    def steps(self) -> int:
        """Steps of the whole round."""

    @property
    def done(self) -> int:
        """Steps taken."""

    def step(self) -> float:
        """Take one step and return its loss. Raises TrainingDiverged."""

    def keep(self) -> Kept:
        """Return weights, optimizer slots and position: always the same names, types and shapes."""

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `keep` gave. Raises Malformed when it is none of this course's; the course is then as before."""

    def trained(self) -> Weights:
        """Return all of get_weights as they are now. Raises TrainingDiverged when one is not finite."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is to be learnt, and how. The same lesson in the same mode on the same runtime gives the same bits."""

    model: str  # its name
    samples: Samples
    start: Weights  # all of get_weights
    epochs: int
    learning_rate: float
    seed: int  # the order of the samples follows from it
    balance: bool = False  # classes that are unevenly many are drawn about equally often


@dataclass(frozen=True, slots=True)
class Offer:
    """One mode in which a model can be trained on this board."""

    mode: str
    begin: Callable[[Trainable, Lesson], Course]


def courses_for(file: bytes, *, model: str) -> tuple[Offer, ...]:
    """Return the modes of an opened model's file, cheapest first. model: its name, for errors."""
    return tuple(Offer(mode.name, partial(SignatureCourse, mode)) for mode in notes.notes_of(file, model=model).modes)


class SignatureCourse:
    """Trains through one of the file's `train` signatures."""

    closing = WEIGHTS

    def __init__(self, mode: Mode, model: Trainable, lesson: Lesson) -> None:
        self.mode, self._names = mode.name, mode.weights
        self._model, self._lesson = model, lesson
        self._done, self._next = 0, 0  # steps of the course; batches of the epoch
        self._per_epoch = steps_of(len(lesson.samples), model.batch, 1)
        model.use(mode.signature)
        model.set_weights(lesson.start)
        self.whole = model.state_is_whole
        self._begin()

    @property
    def steps(self) -> int:
        return self._lesson.epochs * self._per_epoch

    @property
    def done(self) -> int:
        return self._done

    def step(self) -> float:
        if self._next == len(self._batches):
            self._next_epoch()
        batch, samples = self._batches[self._next], self._lesson.samples
        loss = self._model.train(samples.x[batch], samples.y[batch], self._lesson.learning_rate)
        self._next += 1
        self._done += 1
        if not np.isfinite(loss):
            raise TrainingDiverged(model=self._lesson.model, what=f"a loss of {loss}", steps=self._done)
        return loss

    def keep(self) -> Kept:
        weights, slots = self._model.get_weights(), self._model.get_state()
        kept: Kept = {_DONE: np.array([self._done], np.int64)}
        kept |= {_WEIGHT + name: weights[name] for name in self._names}
        return kept | {_SLOT + name: slots[name] for name in slots}

    def restore(self, kept: Mapping[str, NDArray[Any]]) -> None:
        shapes = {name: (a.dtype, a.shape) for name, a in self.keep().items()}
        if {name: (a.dtype, a.shape) for name, a in kept.items()} != shapes:
            raise Malformed(what="course", reason="it is one of another model or mode")
        done = int(kept[_DONE][0])
        if not 0 <= done <= self.steps:
            raise Malformed(what="course", reason=f"it stands at step {done} of {self.steps}")
        self._model.set_weights({**self._lesson.start, **{n: kept[_WEIGHT + n] for n in self._names}})
        self._model.set_state({name.removeprefix(_SLOT): a for name, a in kept.items() if name.startswith(_SLOT)})
        self._begin()
        while self._done + len(self._batches) < done:  # the orders follow one from another
            self._done += len(self._batches)
            self._next_epoch()
        self._done, self._next = done, done - self._done

    def trained(self) -> Weights:
        # A runtime may report a finite loss computed before the step that ruined the weights.
        weights = self._model.get_weights()
        for tensor, value in weights.items():
            if not np.isfinite(value).all():
                raise TrainingDiverged(model=self._lesson.model, what=f"a weight in {tensor} that is not finite", steps=self._done)
        return weights

    def _begin(self) -> None:
        self._orders = orders(self._lesson.samples, seed=self._lesson.seed, balance=self._lesson.balance)
        self._done = 0
        self._next_epoch()

    def _next_epoch(self) -> None:
        self._batches = list(batches(next(self._orders), self._model.batch))
        self._next = 0
