"""A variant against the model before it, on each device's own held-out samples: what the pairs prove, however often one looks.

A row that only one of both models gets right is discordant, and says which. Where the variant is no worse, each such row is at most as
likely a loss as a gain. `evidence` is an e-value against that: by chance alone it ever reaches 1,000 in one phase of 1,000 at most,
whatever is looked at after which report.

Sources: Ramdas, Gruenwald, Vovk and Shafer, Statistical Science 38 (2023); a likelihood ratio mixed over the share of losses as in Robbins,
Annals of Mathematical Statistics 41 (1970); Agresti and Min, Statistics in Medicine 24 (2005), the interval of a paired difference with
half a row added to each cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgecloud.feasibility.intervals import beta_share, student_quantile

LEVEL = 0.95  # of a bound, one-sided
MANY = 5  # devices from which their spread can be judged, and one of them must not decide alone
CAP = 2.0  # a device's rows count at most so many times the median's
_Z = NormalDist().inv_cdf(LEVEL)
_LOG2, _TINY = math.log(2), 1e-300
_ROWS_MAX = 1e6  # discordant rows: above, the evidence of so many is taken, which is less and so still holds
_LEAST_LOSS = 1e-6  # a loss before below this is as good as none: relative to it everything would be a catastrophe
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DeviceScore:
    """What one device found on its own held-out samples."""

    device: str
    rows: int  # that both models were judged on
    better: int = 0  # of them, those that only the variant gets right
    worse: int = 0  # of them, those that only the model before gets right
    accuracy: bool = True  # false: there is no right and wrong, and `before` and `after` are mean losses
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Paired:
    """What the devices of a phase come to together. Changes are shares of rows; of losses, of the loss before. Below 0: worse."""

    devices: int  # that judged at least one row
    rows: int
    better: int
    worse: int
    change: float  # a device's rows count at most twice the median's
    low: float  # one-sided 95 % bound of the change, the lower of that by rows and that by devices; -1 when nothing can be said
    fall: float  # the change as it is counted for a halt: the worst device no worse than the one before it
    log_evidence: float  # natural logarithm of the e-value against "no worse"
    by_devices: bool  # whether the bound is that by devices: more devices would tell, not more rows
    worst: str  # the device with the largest fall


NOTHING = Paired(0, 0, 0, 0, 0.0, -1.0, 0.0, 0.0, False, "")


def log_evidence(better: float, worse: float) -> float:
    """Return the logarithm of the e-value of so many gains and losses against "a loss is at most as likely as a gain".

    The likelihood ratio, mixed evenly over all shares of losses above one half. Counts need not be whole.
    """
    both = better + worse
    if worse <= better:  # it is below 1 there: nothing is gained by knowing how far
        return 0.0
    if both > _ROWS_MAX:
        better, worse, both = better * _ROWS_MAX / both, worse * _ROWS_MAX / both, _ROWS_MAX
    beta = math.lgamma(worse + 1) + math.lgamma(better + 1) - math.lgamma(both + 2)
    above = max(beta_share(0.5, better + 1, worse + 1), _TINY)
    return (both + 1) * _LOG2 + beta + math.log(above)


def paired(scores: Sequence[DeviceScore], size: int, *, sure: float = 0.0) -> Paired:
    """Return what the devices' scores come to. size: devices of the phase, whether they have reported or not.

    sure: logarithm that the evidence is asked to reach: where it can't, it is not worked out, and 0.
    Scores must be all accuracies, or all losses.
    """
    told = [one for one in scores if one.rows > 0]
    if not told:
        return NOTHING
    return _of_rows(told, size, sure) if told[0].accuracy else _of_losses(told, size, sure)


def _of_rows(told: Sequence[DeviceScore], size: int, sure: float) -> Paired:
    counts = np.array([(one.rows, one.better, one.worse) for one in told], np.float64)
    rows, better, worse = counts.T
    weight = np.minimum(rows, CAP * float(np.median(rows)))
    change = (better - worse) / rows
    high, deep = (_no_best(change), _no_worst(change)) if size >= MANY else (change, change)
    low, by_devices = _lower(rows, better, worse, weight, high)
    evidence = _evidence(better, worse, size, sure)
    if evidence and len(told) > 1 and size >= MANY:
        evidence /= _spread(weight, change, float(((better + worse) / rows * weight).sum() / weight.sum()))
    return Paired(
        len(told), int(rows.sum()), int(better.sum()), int(worse.sum()), float(change @ weight / weight.sum()), low,
        float(deep @ weight / weight.sum()), evidence, by_devices, told[int(change.argmin())].device,
    )  # fmt: skip


def _lower(rows: F64, better: F64, worse: F64, weight: F64, change: F64) -> tuple[float, bool]:
    """Return the lower bound of the change, and whether it is that by devices."""
    total = float(weight.sum())
    mean = float(change @ weight) / total
    both = float(((better + worse) / rows) @ weight)
    size = total + 2  # Agresti and Min: half a row more in each of the four cells
    middle = mean * total / size
    spread = max(0.0, (both + 1) / size - middle**2) / size
    by_rows = middle - _Z * math.sqrt(spread)
    by_devices = _by_devices(change, weight) if len(rows) >= MANY else math.inf
    return max(-1.0, min(by_rows, by_devices)), by_devices < by_rows


def _by_devices(change: F64, weight: F64) -> float:
    """Return Student's lower bound of the weighted mean: devices differ, and these are a few of many."""
    share = weight / weight.sum()
    mean, n = float(change @ share), len(change)
    squares = float((share**2) @ (change - mean) ** 2) * n / (n - 1)
    return mean - student_quantile(2 * LEVEL - 1, n - 1) * math.sqrt(squares)


def _evidence(better: F64, worse: F64, size: int, sure: float) -> float:
    """Return the logarithm of the evidence; of a phase of five or more, of the evidence that is left without any one device.

    The least of several e-values is none too large. Nor is their average, of which one term with its weight is a part: so a device that
    says all is well can't hide what the others see.
    """
    total = float(better.sum()), float(worse.sum())
    if size < MANY:
        return log_evidence(*total) if _at_most(*total) >= sure else 0.0
    fall = worse - better
    worst, best = _largest(fall), int(fall.argmin())
    without = min((_left(total, better, worse, (k,), sure) for k in worst), default=0.0)
    hidden = min((_left(total, better, worse, (k, best), sure) for k in worst if k != best), default=0.0) - math.log(size)
    return max(0.0, np.logaddexp(without, hidden) - _LOG2) if max(without, hidden) > 0 else 0.0


def _largest(fall: F64) -> list[int]:
    """Return the devices of which one leaves least when it is left out: those with the largest falls."""
    return [int(k) for k in np.argsort(-fall, kind="stable")[:4]]


def _left(total: tuple[float, float], better: F64, worse: F64, out: Sequence[int], sure: float) -> float:
    left = total[0] - float(better[list(out)].sum()), total[1] - float(worse[list(out)].sum())
    return log_evidence(*left) if _at_most(*left) >= sure else 0.0


def _at_most(better: float, worse: float) -> float:
    """Return what the logarithm of the evidence is below: the largest likelihood ratio there is."""
    both = better + worse
    if worse <= better:
        return 0.0
    return both * _LOG2 + worse * math.log(worse / both) + (better * math.log(better / both) if better else 0.0)


def _spread(weight: F64, change: F64, discordance: float) -> float:
    """Return how many times more devices differ than rows alone let them; at least 1. The evidence's logarithm is divided by it.

    Of five devices and more the best and the worst count as those next to them: one that lies says nothing of how devices differ.
    """
    if discordance <= 0:
        return 1.0
    change = _no_best(_no_worst(change)) if len(change) >= MANY else change
    mean = float(change @ weight / weight.sum())
    return max(1.0, float(weight @ (change - mean) ** 2) / discordance / (len(change) - 1))


def _no_best(change: F64) -> F64:
    """Return changes of which the largest is that of the next one."""
    if len(change) < 2:
        return change
    out = change.copy()
    out[int(change.argmax())] = np.partition(change, -2)[-2]
    return out


def _no_worst(change: F64) -> F64:
    return -_no_best(-change)


def _of_losses(told: Sequence[DeviceScore], size: int, sure: float) -> Paired:
    before, after = np.array([(one.before, one.after) for one in told], np.float64).T
    with np.errstate(over="ignore"):  # an endless fall is one of all
        change = np.clip((before - after) / np.maximum(np.abs(before), _LEAST_LOSS), -1.0, 1.0)
    n, even = len(told), np.ones(len(told))
    high, deep = (_no_best(change), _no_worst(change)) if size >= MANY else (change, change)
    evidence = 0.0
    if n >= MANY:
        # Student's test at the n-th device spends 1/n(n+1) of the chance there is: all looks together do not spend more than it.
        left = np.delete(change, int(change.argmin()))
        evidence = max(0.0, -_log_below(left) - math.log(n * (n + 1)))
    return Paired(
        n, sum(one.rows for one in told), int((change > 0).sum()), int((change < 0).sum()), float(change.mean()),
        max(-1.0, _by_devices(high, even)) if n > 1 else -1.0, float(deep.mean()), evidence, True, told[int(change.argmin())].device,
    )  # fmt: skip


def _log_below(change: F64) -> float:
    """Return the logarithm of the chance that a mean of 0 shows itself so far below: Student's distribution."""
    n, mean = len(change), float(change.mean())
    deviation = float(change.std(ddof=1)) / math.sqrt(n)
    if mean >= 0:
        return 0.0
    if deviation <= 0:  # all alike to the last bit: no noise to judge by
        return -n * _LOG2
    t = mean / deviation
    return math.log(max(beta_share((n - 1) / (n - 1 + t * t), (n - 1) / 2, 0.5) / 2, _TINY))
