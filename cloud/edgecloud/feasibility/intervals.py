"""How sure an accuracy is: exact intervals, weighted ones at the sample size that the weights leave, and a paired test of two models.

Sources: Clopper and Pearson, Biometrika 26 (1934); of weighted rows Korn and Graubard, Survey Methodology 24 (1998), without degrees of
freedom of a design; the incomplete beta function as in Numerical Recipes, section 6.4 (Lentz's continued fraction).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FLIPS = 4000  # of the paired test: a p below 1 in as many is not told apart from it
_TINY, _NEAR, _TURNS, _HALVINGS = 1e-300, 1e-14, 10_000, 80
F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over rows and the interval that holds the true one."""

    value: float  # NaN without rows
    low: float
    high: float
    rows: int  # that have a weight
    size: float  # equally weighted rows that would tell as much: by the weights alone, or by the share's variance where that gives fewer


def of_share(right: NDArray[np.bool_], weights: F64, level: float = LEVEL) -> Estimate:
    """Return the share of rows that are right, with the interval of Clopper and Pearson. right, weights: [rows]."""
    rows, size = int((weights > 0).sum()), effective(weights)
    if not rows:
        return Estimate(math.nan, 0.0, 1.0, 0, 0.0)
    share = float(weights[right].sum() / weights.sum())
    spread = float((weights**2 * (right - share) ** 2).sum()) / float(weights.sum()) ** 2  # of the share, as the rows themselves show it
    if np.ptp(weights) > 0 and spread > 0:
        size = min(size, share * (1 - share) / spread)
    return Estimate(share, *clopper_pearson(share * size, size, level), rows, size)


def of_mean(values: F64, weights: F64, level: float = LEVEL) -> Estimate:
    """Return the weighted mean of any values, with the union of Student's interval and the one that their skewness gives.

    Of skewed values, as losses are, Student's alone holds less often than it says. docs/comparing.md says what was measured of both.
    Source: Hall, Journal of the Royal Statistical Society B 54 (1992), the cubic transformation.
    """
    rows, size = int((weights > 0).sum()), effective(weights)
    if not rows:
        return Estimate(math.nan, -math.inf, math.inf, 0, 0.0)
    total = float(weights.sum())
    mean = float((weights * values).sum()) / total
    off = values - mean
    spread, squares = float((weights * off**2).sum()) / total, float((weights**2 * off**2).sum()) / total**2
    if np.ptp(weights) > 0 and squares > 0:  # the rows themselves show how much the mean varies
        size = min(size, spread / squares)
    if size <= 1:
        return Estimate(mean, -math.inf, math.inf, rows, size)
    deviation, reach = math.sqrt(spread * size / (size - 1)), student_quantile(level, size - 1) / math.sqrt(size)
    skew = float((weights * (off / math.sqrt(spread)) ** 3).sum()) / total if spread > 0 else 0.0
    ends = (_straightened(reach, skew, size), _straightened(-reach, skew, size))
    return Estimate(mean, mean - deviation * max(reach, ends[0]), mean - deviation * min(-reach, ends[1]), rows, size)


def _straightened(reach: float, skew: float, size: float) -> float:
    """Return where Hall's transformation comes to `reach`: the inverse of t + a t^2 + a^2 t^3 / 3 + a / 2n, with a = skew / 3."""
    if abs(skew) < 1e-9:
        return reach
    return 3 / skew * (math.copysign(abs(inner := 1 + skew * (reach - skew / (6 * size))) ** (1 / 3), inner) - 1)


@lru_cache(maxsize=1024)
def student_quantile(level: float, freedom: float) -> float:
    """Return the bound within which a number of Student's distribution lies in a share of `level` of cases. freedom: above 0."""
    share = max(beta_quantile(1 - level, freedom / 2, 0.5), _TINY)
    return math.sqrt(freedom * (1 - share) / share)


def effective(weights: F64) -> float:
    """Return how many equally weighted rows tell as much: the sum's square by the sum of squares (Kish)."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def clopper_pearson(right: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact interval of a share of which `right` of n were counted; of sizes that are no whole numbers, as of survey weights."""
    if n <= 0:
        return 0.0, 1.0
    right, miss = min(max(right, 0.0), n), (1 - level) / 2
    low = 0.0 if right <= 0 else beta_quantile(miss, right, n - right + 1)
    high = 1.0 if right >= n else beta_quantile(1 - miss, right + 1, n - right)
    return low, high


def better(first: F64, second: F64, weights: F64, seed: bytes) -> float:
    """Return p of the paired test that the first is no better than the second: by chance alone it is as much ahead in a share of p.

    first, second: a score a row, larger is better. Each row's difference is turned at random, as it may be where neither is better; the
    turns follow from `seed`. Rows on which both are alike say nothing. 1.0 where the first is not ahead.
    """
    ahead = weights * (first - second)
    ahead = ahead[ahead != 0]
    found = float(ahead.sum())
    if not len(ahead) or found <= 0:
        return 1.0
    rng, least = np.random.default_rng(np.frombuffer(seed, np.uint8)), found * (1 - 1e-9)
    reached = 0
    for start in range(0, FLIPS, 200):  # bounded memory, whatever the rows
        turns = rng.integers(0, 2, (min(200, FLIPS - start), len(ahead))) * 2.0 - 1
        reached += int((turns @ ahead >= least).sum())
    return (1 + reached) / (1 + FLIPS)


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return what a beta-distributed number stays below in this share of cases. a, b: above 0."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_share(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def beta_share(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function: the share of cases in which a beta-distributed number is below x."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _TURNS):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _off_zero(1 + step * d), _off_zero(1 + step / c)
            fraction *= d * c
        if abs(d * c - 1) < _NEAR:
            break
    return min(1.0, front * fraction)


def _off_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
