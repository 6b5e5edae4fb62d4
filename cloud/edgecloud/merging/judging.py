"""Judges a merge on the rows of a probe set: against its base, row by row, and against what it is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Right = NDArray[np.bool_]
SURE = 0.05  # a difference that chance brings about less often than this is told as one
_Z = 1.959963984540054  # of a normal distribution, 97.5 %


@dataclass(frozen=True, slots=True)
class RowScores:
    """How one model does on rows."""

    right: Right | None  # [n]; None where rows have targets in the place of classes
    loss: NDArray[np.float32]  # [n]

    @property
    def accuracy(self) -> float | None:
        return None if self.right is None else float(self.right.mean())

    @property
    def mean_loss(self) -> float:
        return float(self.loss.mean(dtype=np.float64))


@dataclass(frozen=True, slots=True)
class MergeJudgement:
    """A merge beside its base and its parents. Scores are accuracies; of rows with targets they are mean losses, where less is better."""

    rows: int
    accuracy: bool
    merged: float
    base: float
    parents: float  # their mean
    best: tuple[str, float]  # parent
    worst: tuple[str, float]
    interval: tuple[float, float] | None  # of the merge's accuracy, 95 %, by Wilson
    gained: int  # rows on which the merge does better than the base
    lost: int  # and worse
    p: float  # that chance alone parts them so far: exact, two-sided, of the rows on which they differ; over all sets after `together`
    failed: Mapping[str, str]  # parents that could not be run, and why

    @property
    def verdict(self) -> str:
        """The merge against its base in words."""
        if self.p >= SURE:
            return "no better and no worse than the base, as far as these rows tell"
        better = self.gained > self.lost
        return f"{'better' if better else 'worse'} than the base"


def judge(merged: RowScores, base: RowScores, parents: Mapping[str, RowScores], failed: Mapping[str, str]) -> MergeJudgement:
    """Return how a merge compares. parents: by name, at least one; failed: those that could not be run, and why."""
    classes = merged.right is not None
    scores = {name: _score(one) for name, one in parents.items()}
    order = sorted(scores, key=lambda name: (-scores[name] if classes else scores[name], name))
    if merged.right is not None and base.right is not None:
        gained, lost = int((merged.right & ~base.right).sum()), int((base.right & ~merged.right).sum())
    else:
        gained, lost = int((merged.loss < base.loss).sum()), int((merged.loss > base.loss).sum())
    n = len(merged.loss)
    interval = wilson(int(merged.right.sum()), n) if merged.right is not None else None
    return MergeJudgement(
        n, classes, _score(merged), _score(base), sum(scores.values()) / len(scores), (order[0], scores[order[0]]),
        (order[-1], scores[order[-1]]), interval, gained, lost, sign_test(gained, lost), dict(failed),
    )  # fmt: skip


def together(judged: Mapping[str, MergeJudgement]) -> dict[str, MergeJudgement]:
    """Return judgements of one merge on several probe sets, each p corrected for how many there are. Source: Holm 1979."""
    out, before = dict(judged), 0.0
    for rank, name in enumerate(sorted(judged, key=lambda name: judged[name].p)):
        before = max(before, min(1.0, (len(judged) - rank) * judged[name].p))
        out[name] = replace(judged[name], p=before)
    return out


def sign_test(more: int, less: int) -> float:
    """Return how often a fair coin parts so far or farther, two-sided and exact: McNemar's test of rows that only one has right."""
    n, few = more + less, min(more, less)
    if 2 * few == n:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(few + 1)]
    most = max(logs)
    return min(1.0, 2 * math.exp(most) * sum(math.exp(one - most) for one in logs))


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson (1927)."""
    share, room = right / n, _Z * _Z / n
    middle = (share + room / 2) / (1 + room)
    half = math.sqrt(share * (1 - share) * room + room * room / 4) / (1 + room)
    return max(0.0, middle - half), min(1.0, middle + half)


def _score(one: RowScores) -> float:
    return one.mean_loss if one.accuracy is None else one.accuracy
