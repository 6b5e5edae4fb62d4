"""How likely chance alone makes two shares differ so much, with sample sizes that need not be whole numbers.

The test is Fisher's exact one in the form of Altham (1969): its one-sided p is the chance that the first share is not above the second,
of Beta(x, n - x + 1) and Beta(y + 1, m - y). That form takes effective sizes too, as Korn and Graubard (1998) do for one share.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]

_POINTS, _WIDE = 49, 9.0  # of the integral over the second share: how many, and how many deviations to either side of its mode
_STEPS, _TINY = 400, 1e-300
_MANY = 40  # degrees of freedom from which a series gives Student's quantile


def above_by_chance(x: ArrayLike, n: ArrayLike, y: ArrayLike, m: ArrayLike, *, clumped: bool = False) -> F64:
    """Return how likely x of n or more would be, beside y of m, if both were of one population. Arrays of one shape, 0 <= x <= n.

    1 where x is 0, or where y is m. clumped: n is an effective size, of days whose shares wander by a beta distribution: the sum of such
    has twice the skewness of independent samples that vary as much, so rare things pile up more often.
    """
    x, n, y, m = (np.asarray(a, np.float64) for a in np.broadcast_arrays(x, n, y, m))
    out = np.ones(x.shape)
    some = (x > 0) & (y < m) & (n > 0)
    if some.any():
        out[some] = _above(x[some], n[some], y[some], m[some], clumped)
    return out


def _above(x: F64, n: F64, y: F64, m: F64, clumped: bool) -> F64:
    a, b = y + 1, np.maximum(m - y, 1e-9)
    deviation = np.sqrt(1 / a + 1 / b)
    place = np.clip(np.log(a / b)[:, None] + deviation[:, None] * np.linspace(-_WIDE, _WIDE, _POINTS), -700, 700)
    share = 1 / (1 + np.exp(-place))
    log_density = -a[:, None] * np.logaddexp(0, -place) - b[:, None] * np.logaddexp(0, place)
    weight = np.exp(log_density - log_density.max(1, keepdims=True))
    if clumped:
        # 1 - I(x/n; share s, (1 - share) s) is the beta distribution of this mean whose variance is that of n samples.
        s = np.maximum(n - 1, 0.02)[:, None]
        below = beta_below(1 - (x / n)[:, None], np.maximum((1 - share) * s, 1e-9), np.maximum(share * s, 1e-9))
    else:
        below = beta_below(share, x[:, None], (n - x + 1)[:, None])
    return np.asarray(np.minimum(1.0, (weight * below).sum(1) / weight.sum(1)), np.float64)


def at_most_far_off(x: F64, n: F64, y: F64, m: F64) -> F64:
    """Return a number that `above_by_chance` is below where it is tiny: for shares so far apart that nobody asks how far. Shares x and y.

    The root of Chernoff's bounds of both forms, against the second share with six of its deviations on top; 1 where that is not below x.
    """
    edge = np.clip(y + 6 * np.sqrt((y * (1 - y) + 1 / m) / m) + 6 / m, 1e-12, 1 - 1e-12)
    x = np.clip(x, 1e-12, 1 - 1e-12)
    apart = np.minimum(_relative_entropy(x, edge), _relative_entropy(edge, x))
    return np.asarray(np.where(x > edge, np.exp(-0.5 * np.maximum(n - 1, 0) * apart), 1.0), np.float64)


def _relative_entropy(a: F64, b: F64) -> F64:
    return np.asarray(a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)), np.float64)


def beta_below(share: ArrayLike, a: ArrayLike, b: ArrayLike) -> F64:
    """Return the regularised incomplete beta function: the chance that Beta(a, b) is below a share. a and b above 0.

    By its continued fraction, to about 1e-10 relative. Source: Press et al., Numerical Recipes, 6.4.
    """
    share, a, b = np.asarray(share, np.float64), np.asarray(a, np.float64), np.asarray(b, np.float64)
    log_whole = _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)
    share, a, b = np.broadcast_arrays(share, a, b)
    flip = share > (a + 1) / (a + b + 2)
    z, p, q = np.where(flip, 1 - share, share), np.where(flip, b, a), np.where(flip, a, b)
    with np.errstate(divide="ignore"):
        log_front = p * np.log(np.maximum(z, _TINY)) + q * np.log1p(-np.minimum(z, 1 - 1e-16)) - np.log(p) + log_whole
    tail = np.exp(np.clip(log_front, -745, 0.0)) * _fraction(z, p, q)
    tail = np.where(z <= 0, 0.0, np.clip(tail, 0.0, 1.0))
    return np.asarray(np.where(flip, 1 - tail, tail), np.float64)


def _log_gamma(z: F64) -> F64:
    """Return ln Gamma of numbers above 0, by Stirling's series behind eight steps of the recurrence."""
    steps = np.log(z)
    for k in range(1, 8):
        steps = steps + np.log(z + k)
    w = z + 8
    series = 1 / (12 * w) - 1 / (360 * w**3) + 1 / (1260 * w**5) - 1 / (1680 * w**7)
    return np.asarray((w - 0.5) * np.log(w) - w + 0.5 * math.log(2 * math.pi) + series - steps, np.float64)


def _fraction(z: F64, a: F64, b: F64) -> F64:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    def safe(v: F64) -> F64:
        return np.where(np.abs(v) < _TINY, _TINY, v)

    c, d = np.ones(z.shape), 1 / safe(1 - (a + b) * z / (a + 1))
    out = d.copy()
    for k in range(1, _STEPS):
        even = k * (b - k) * z / ((a + 2 * k - 1) * (a + 2 * k))
        d, c = 1 / safe(1 + even * d), safe(1 + even / c)
        out = out * d * c
        odd = -(a + k) * (a + b + k) * z / ((a + 2 * k) * (a + 2 * k + 1))
        d, c = 1 / safe(1 + odd * d), safe(1 + odd / c)
        out = out * d * c
        if np.all(np.abs(d * c - 1) < 1e-13):
            break
    return out


@lru_cache(maxsize=4096)
def widening(tail: float, freedom: float) -> float:
    """Return by how much a variance counts more that was itself estimated: the square of Student's quantile over the normal one.

    tail: one-sided chance of the test; freedom: degrees of freedom of the estimate. Infinite without any.
    Source: Korn and Graubard (1998), "Confidence intervals for proportions with small expected number of positive counts".
    """
    if freedom <= 0:
        return math.inf
    z = -NormalDist().inv_cdf(tail)
    if freedom >= _MANY:  # Fisher and Cornish's series
        return (1 + (z**2 + 1) / (4 * freedom) + (5 * z**4 + 16 * z**2 + 3) / (96 * freedom**2)) ** 2
    return (_quantile(tail, freedom) / z) ** 2


def _quantile(tail: float, freedom: float) -> float:
    """Return t with P(T > t) = tail, of Student's distribution."""
    low, high = 0.0, 1.0
    while _student_above(high, freedom) > tail and high < 1e12:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_above(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _student_above(t: float, freedom: float) -> float:
    return float(beta_below(freedom / (freedom + t * t), freedom / 2, 0.5)) / 2
