"""Finds the learning rate that a board may begin with, by a short range test on made-up samples.

A step that is too large makes the loss of the very samples that it was taken on rise. Rates stand on a grid of 1 and 3 by powers of ten:
the largest at which the loss fell without growing on the way, and one notch below it, as real samples differ more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgecommon.runtime import RuntimeModel
from modelwire.errors import TrainingDiverged
from modelwire.tensors import F32, Weights

GRID = (*(float(f"{n}e{e}") for e in range(-13, 0) for n in (1, 3)), 1.0)
BEGIN = {"adam": 1e-3, "momentum": 1e-2}  # where the search begins: the customary rate of an optimizer
BEGIN_SGD = 3e-2
UP = 2  # notches above that at which it ends: what suits made-up samples so well may not suit others
SAFETY = 1  # notches below the largest rate that works
STEPS = 16  # of one try
_STRIDE = 4  # notches at most between two tries
_LEAST_STEPS = 4
_GREW = 1.1  # times the loss at the beginning: more than that on the way is growing
_NOISE = 0.1  # of the outputs' spread: how far targets of a regression lie from what the model says now


@dataclass(frozen=True, slots=True)
class Task:
    """A batch of made-up samples, and what the model shall say of them."""

    x: F32  # [batch, ...]
    y: F32  # [batch, ...]


def task_of(opened: RuntimeModel, loss: str, rng: np.random.Generator) -> Task:
    """Return a task that suits the loss: classes at random, or the model's own answers a little off.

    loss: as the notes have it; "" when unknown: then outputs of one axis are classes.
    """
    contract, count = opened.contract, opened.batch
    x = rng.standard_normal((count, *contract.x_shape), np.float32)
    shape = (count, *contract.y_shape)
    loss = loss or ("ce" if len(contract.y_shape) == 1 else "mse")
    if loss == "ce" and contract.y_shape:
        return Task(x, np.eye(shape[-1], dtype=np.float32)[rng.integers(shape[-1], size=shape[:-1])])
    if loss == "binary":
        return Task(x, rng.integers(0, 2, shape).astype(np.float32))
    said = np.nan_to_num(opened.evaluate(x), nan=0.0, posinf=0.0, neginf=0.0)
    spread = float(said.std()) or 1.0
    return Task(x, np.asarray(said + _NOISE * spread * rng.standard_normal(shape, np.float32), np.float32))


def found_for(
    opened: RuntimeModel, task: Task, optimizer: str, start: Weights, seconds: float, found: dict[str, Any],
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Put the suggested rate into `found`, with the losses at it and whether they fell; and whether time ran out before the end.

    seconds: that it may take. What is too slow for one try of a few steps gets no rate.
    """
    step = max(1e-6, float(found.get("step_ms", 1.0)) / 1000)
    search = _Search(opened, task, start, clock, clock() + seconds, max(_LEAST_STEPS, min(STEPS, int(seconds / 4 / step))))
    at = best = GRID.index(BEGIN.get(optimizer, BEGIN_SGD))
    search.begin()
    if search.works(at):
        while best < at + UP and not search.late(step) and search.works(best + 1):
            best += 1
    else:
        # A rate that is too large is seen after a step or two. Some rate is worth more than the time, up to twice of it.
        search.until += seconds
        best = _below(search, best, step)
    found["rates_cut"] = search.cut or search.steps < STEPS
    if not search.works(best):
        found["falls"] = None if search.cut else False
        return
    chosen = max(0, best - SAFETY)
    # Where there is no time to try it: it is smaller than one that works.
    seen = chosen if chosen in search.tried or not search.late(step) else best
    found["falls"] = search.works(seen)
    found["learning_rate"], found["losses"] = GRID[chosen], search.tried[seen]


def _below(search: _Search, fails: int, step: float) -> int:
    """Return the largest rate below one that fails that works, in ever longer strides and then between the last two; or the last tried."""
    stride = 1
    while (works := max(0, fails - stride)) < fails and not search.late(step):
        if search.works(works):
            break
        fails, stride = works, min(_STRIDE, 2 * stride)
    else:
        return fails
    while fails - works > 1 and not search.late(step):
        middle = (works + fails) // 2
        if search.works(middle):
            works = middle
        else:
            fails = middle
    return works


@dataclass
class _Search:
    """Tries rates from the same weights and the same state, each on the same batch."""

    opened: RuntimeModel
    task: Task
    start: Weights
    clock: Callable[[], float]
    until: float
    steps: int
    cut: bool = False  # there was no time for another try
    tried: dict[int, list[float]] = field(default_factory=dict)  # losses by place on the grid; the first is that before any step

    def begin(self) -> None:
        self._fresh = self.opened.get_state()
        self._begin = self._loss(0.0)

    def late(self, step: float) -> bool:
        """Whether there is no time for a short try. step: seconds."""
        self.cut = self.cut or self.clock() + _LEAST_STEPS * step > self.until
        return self.cut

    def works(self, k: int) -> bool:
        if k not in self.tried:
            self.opened.set_weights(self.start)
            self.opened.set_state(self._fresh)
            losses = self.tried[k] = [self._begin]
            while len(losses) <= self.steps and losses[-1] <= _GREW * self._begin:
                losses.append(self._loss(GRID[k]))
            del losses[1:2]  # the first step tells the same loss again: that of the weights before it
        return fell(self.tried[k])

    def _loss(self, rate: float) -> float:
        try:
            return self.opened.train(self.task.x, self.task.y, rate)
        except TrainingDiverged:
            return math.inf


def fell(losses: Sequence[float]) -> bool:
    """Return whether the loss is lower at the end, and did not grow above its beginning on the way. losses: the first before any step."""
    return len(losses) > 2 and all(loss <= _GREW * losses[0] for loss in losses) and losses[-1] < losses[0]
