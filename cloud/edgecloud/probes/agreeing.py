"""Two models on the same rows: how often they say the same, how often each is right, and who is right where they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import F32

from .sets import Labels, ProbeSet

Z95 = 1.959963984540054  # of the normal distribution, two-sided
_BINS = 10  # of confidence
CLASSES_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Both models on the rows of one class or context."""

    of: str  # "" all rows, "class 3", or TAG=VALUE
    n: int
    right_a: int
    right_b: int
    only_a: int  # rows on which the first alone is right
    only_b: int
    p: float  # exact McNemar test of only_a against only_b, two-sided; over the rows of one table after Holm's correction
    interval_a: tuple[float, float]  # Wilson, 95 %
    interval_b: tuple[float, float]

    @property
    def accuracy_a(self) -> float:
        return self.right_a / self.n

    @property
    def accuracy_b(self) -> float:
        return self.right_b / self.n


@dataclass(frozen=True, slots=True)
class Nearness:
    """Both models against targets: mean squared errors, and on how many rows each is nearer."""

    of: str
    n: int
    error_a: float
    error_b: float
    nearer_a: int
    nearer_b: int
    p: float  # exact sign test, two-sided, corrected likewise


@dataclass(frozen=True, slots=True)
class ProbeAgreement:
    """What two models make of one probe set."""

    n: int
    same: int  # rows on which both say the same class; for numbers: on which the outputs are equal
    classes: bool  # whether the outputs are taken as classes
    largest: float  # max |output - output'|
    mean: float  # of |output - output'|
    accuracies: tuple[Accuracies, ...] = ()  # all rows first; with labels alone
    nearness: tuple[Nearness, ...] = ()  # with targets alone
    calibration_a: float | None = None  # mean |confidence - accuracy| over bins; None where outputs are no probabilities
    calibration_b: float | None = None


def agreement(a: F32, b: F32, probes: ProbeSet) -> ProbeAgreement:
    """Return how two models' outputs for all rows of a set compare. a, b: float32 [n, ...] of one shape, finite."""
    flat_a, flat_b = (np.asarray(one, np.float64).reshape(len(probes), -1) for one in (a, b))
    apart = np.abs(flat_a - flat_b)
    largest, mean = float(apart.max(initial=0)), float(apart.mean())
    if probes.kind == "targets":
        assert probes.y is not None
        same = int((apart.max(1) == 0).sum())
        return ProbeAgreement(len(probes), same, False, largest, mean, nearness=_nearness(flat_a, flat_b, probes))
    said_a, said_b = predicted(flat_a), predicted(flat_b)
    same = int((said_a == said_b).sum())
    labels = probes.labels
    if labels is None:
        return ProbeAgreement(len(probes), same, True, largest, mean)
    right_a, right_b = said_a == labels, said_b == labels
    rows = [_accuracies(of, right_a[i], right_b[i]) for of, i in groups(probes)]
    rows = [replace(rows[0]), *(replace(r, p=p) for r, p in zip(rows[1:], holm([r.p for r in rows[1:]]), strict=True))]
    calibrated = [_calibration(flat, right) for flat, right in ((flat_a, right_a), (flat_b, right_b))]
    return ProbeAgreement(len(probes), same, True, largest, mean, tuple(rows), (), *calibrated)


def predicted(output: NDArray[np.floating]) -> Labels:
    """Return the class that each row of outputs stands for: the first of the largest; of one output, whether it is above 0.5."""
    flat = output.reshape(len(output), -1)
    return (flat[:, 0] > 0.5).astype(np.int64) if flat.shape[1] == 1 else flat.argmax(1).astype(np.int64)


def groups(probes: ProbeSet) -> list[tuple[str, NDArray[np.int64]]]:
    """Return all rows, those of each class, and those of each context of one tag, with what they are called."""
    out = [("", np.arange(len(probes)))]
    if probes.labels is not None:
        out += [(f"class {one}", np.flatnonzero(probes.labels == one)) for one in np.unique(probes.labels)[:CLASSES_SHOWN].tolist()]
    return out + [(context, probes.rows(context)) for context in probes.contexts()]


def wilson(right: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Return the interval in which a share lies of which `right` of n were seen. Source: Wilson 1927."""
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p that rows on which one of two is right fall so unevenly by chance; 1 where there are none.

    Source: McNemar 1947, with the binomial distribution in the place of its approximation.
    """
    n, least = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    logs = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(least + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p of several tests corrected for how many there are. Source: Holm 1979."""
    out, before = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        before = out[i] = max(before, min(1.0, (len(ps) - rank) * ps[i]))
    return out


def _accuracies(of: str, a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Accuracies:
    n, right_a, right_b = len(a), int(a.sum()), int(b.sum())
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return Accuracies(of, n, right_a, right_b, only_a, only_b, mcnemar(only_a, only_b), wilson(right_a, n), wilson(right_b, n))


def _nearness(a: NDArray[np.float64], b: NDArray[np.float64], probes: ProbeSet) -> tuple[Nearness, ...]:
    assert probes.y is not None
    wanted = np.asarray(probes.y, np.float64).reshape(len(probes), -1)
    errors = [((one - wanted) ** 2).mean(1) for one in (a, b)]
    rows = []
    for of, i in groups(probes):
        one, other = errors[0][i], errors[1][i]
        nearer = int((one < other).sum()), int((other < one).sum())
        rows.append(Nearness(of, len(i), float(one.mean()), float(other.mean()), *nearer, mcnemar(*nearer)))
    corrected = holm([row.p for row in rows[1:]])
    return rows[0], *(replace(row, p=p) for row, p in zip(rows[1:], corrected, strict=True))


def _calibration(output: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Return the expected calibration error, in bins of equal width; None where the outputs are no probabilities."""
    if output.shape[1] < 2 or output.min() < 0 or (np.abs(output.sum(1) - 1) > 1e-2).any():
        return None
    sure = output.max(1)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return float(sum(abs(right[bins == k].mean() - sure[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)))
