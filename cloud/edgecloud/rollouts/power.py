"""What the quality gate can tell with so many held-out samples, before a rollout starts: computed from its own test, for planning alone.

Each sample that one of the two models gets right and the other wrong speaks for one of them. Where neither is better they fall like coins;
the gate bets on a coin that favours the model before, evenly over how much, and a fall is sure once the bet has grown `surely`-fold. A
phase passes once the lower bound of the mean difference is above the margin. Sources: Ville's inequality for a bet that is looked at any
number of times; Agresti and Min, Statistics in Medicine 24 (2005), for the bound of a paired difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from edgecloud.feasibility.intervals import beta_share
from modelwire.deploying.plans import WHOLE, RolloutGates

CHANGED = 500  # ten-thousandths of the samples that two equally good models answer differently; assumed, and said so
SHARE = 0.9  # of rollouts in which a loss is to be seen
_BOUND = NormalDist().inv_cdf(0.95)  # of the bound, one-sided
_MANY = 5  # devices of a phase from which one device alone may prove no fall: the bet is that of the others
_STEP = 10  # ten-thousandths: losses are told to a tenth of a point


@dataclass(frozen=True, slots=True)
class GatePower:
    """What a phase's quality gate can tell."""

    rows: int  # held-out samples of its devices that are known
    known: int  # devices whose held-out samples are known
    devices: int  # of the phase
    halted: int | None  # ten-thousandths of accuracy: the smallest loss that is halted in SHARE of rollouts; None: none is
    passes: float  # share of rollouts of an equal variant that pass the gate at the phase's end
    enough: int  # samples with which an equal variant passes in SHARE of rollouts


def power(rows: int, known: int, devices: int, gates: RolloutGates) -> GatePower:
    """Return what the gate can tell by so many samples of a phase's devices."""
    others = rows * (devices - 1) // devices if devices >= _MANY else rows
    return GatePower(rows, known, devices, smallest_halted(others, gates), passing(rows, gates.margin), enough(gates.margin))


def passing(rows: int, margin: int) -> float:
    """Return in which share of rollouts a variant that is just as good passes at a phase's end. margin: ten-thousandths."""
    if rows <= 0 or margin <= 0:
        return 0.0
    off = math.sqrt(CHANGED / WHOLE / rows)  # deviation of the mean difference: variance is the discordant share
    return NormalDist().cdf(margin / WHOLE / max(off, 1 / (rows + 2)) - _BOUND)


def tellable(rows: int, margin: int) -> bool:
    """Return whether so many samples can show at all that a loss is below the margin: where not one of them is answered differently."""
    return rows > 0 and _BOUND / (rows + 2) < margin / WHOLE


def enough(margin: int) -> int:
    """Return with how many samples an equal variant passes in SHARE of rollouts; 0 where no number is enough."""
    if margin <= 0:
        return 0
    low, high = 0, 1
    while passing(high, margin) < SHARE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passing(middle, margin) < SHARE else (low, middle)
    return high


@lru_cache(maxsize=256)
def smallest_halted(rows: int, gates: RolloutGates) -> int | None:
    """Return the smallest loss, in ten-thousandths of accuracy, that is halted in SHARE of rollouts; None where even the largest is not."""
    low, high = gates.margin // _STEP, WHOLE // _STEP
    if rows <= 0 or _halted(rows, high * _STEP, gates) < SHARE:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _halted(rows, middle * _STEP, gates) < SHARE else (low, middle)
    return high * _STEP


def _halted(rows: int, loss: int, gates: RolloutGates) -> float:
    """Return how likely a loss is both sure and beyond the margin, at the number of changed samples that is to be expected."""
    share = min(1.0, (CHANGED + loss) / WHOLE)
    changed = round(rows * share)
    worse = min(1.0, (CHANGED / 2 + loss) / (CHANGED + loss))
    least = max(_sure(changed, gates.surely), math.floor((changed + rows * gates.margin / WHOLE) / 2) + 1)
    if least > changed:
        return 0.0
    return 1.0 if worse >= 1 else beta_share(worse, least, changed - least + 1)  # a binomial's upper tail


def _sure(changed: int, surely: int) -> int:
    """Return how many of the changed samples must be worse for the bet to have grown so much; more than there are: none would do."""
    low, high = changed // 2, changed + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _bet(middle, changed - middle) >= math.log(surely) else (middle, high)
    return high


def _bet(worse: int, better: int) -> float:
    """Return the logarithm of what one staked has become."""
    a, b = worse + 1, better + 1
    against = 1 - beta_share(0.5, a, b)
    if against <= 0:
        return -math.inf
    return (worse + better + 1) * math.log(2) + math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b) + math.log(against)
