"""Judges the snapped model, the one that would be served, on samples that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Samples
from modelwire.tensors import F32

from .batches import Trainable

_SMALLEST = 1e-7  # a probability below this counts as this: one sure mistake does not outweigh a whole round


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on held-out samples."""

    loss: float  # mean cross-entropy of classes, mean squared error of targets
    accuracy: float | None  # 0 to 1; None where there are no classes
    right: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)  # of each sample, where there are classes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a round may replace the model, and if not, why."""

    accepted: bool
    reason: str = ""


def measure(model: Trainable, samples: Samples) -> Score:
    """Return the model's score on `samples`, of which there is at least one."""
    return score(model.evaluate(samples.x), samples)


def score(output: F32, samples: Samples) -> Score:
    """Return the score of `output`, [n, ...]. The loss is NaN when any output is."""
    got = output.reshape(samples.y.shape).astype(np.float64)
    want = samples.y.astype(np.float64)
    right = got.argmax(-1) == want.argmax(-1) if samples.labelled else None
    accuracy = None if right is None else float(np.mean(right))
    if not np.isfinite(got).all():
        return Score(float("nan"), accuracy, right)
    if samples.labelled and _are_probabilities(got):
        likely = (got * want).sum(-1)
        return Score(float(-np.log(np.maximum(likely, _SMALLEST)).mean()), accuracy, right)
    return Score(float(np.mean((got - want) ** 2)), accuracy, right)


def judge(before: Score, after: Score, *, margin: float, size: int, budget: int | None) -> Verdict:
    """Return whether the model with the score `after` may replace the one with `before`.

    size: bytes of the update that says so; budget: the most it may take, None for a snapshot that must be sent whatever its size.
    """
    if not np.isfinite(after.loss):
        return Verdict(False, "its output on held-out samples is not finite")
    if budget is not None and size > budget:
        return Verdict(False, f"the update takes {size} bytes of {budget}")
    # A model whose present score is not finite can only get better.
    if np.isfinite(before.loss) and after.loss > before.loss + margin:
        return Verdict(False, f"held-out loss {before.loss:.4f} -> {after.loss:.4f}, worse by more than {margin:g}")
    return Verdict(True)


def _are_probabilities(output: F32 | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    return bool((output >= -1e-6).all() and (np.abs(output.sum(-1) - 1.0) < 1e-2).all())
