"""The terms of J for one form of an update, at one or many sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .candidates import Candidate
from .conditions import Conditions
from .figures import MOST, in_range
from .links import F64
from .prices import Prices


@dataclass(frozen=True, slots=True)
class RecoverySpeeds:
    """How fast a centre recovers versions. The defaults were measured on one core of a shared x86-64 server; measure yours."""

    start_s: float = 0.005  # before the first byte
    read: float = 1e9  # bytes/s from the disk's cache
    apply: float = 1.3e9  # weights/s: an update added to a state
    prove: float = 2.9e8  # bytes/s of SHA-256 over the float32 of the result

    def __post_init__(self) -> None:
        for name in ("start_s", "read", "apply", "prove"):
            in_range(f"{name} of the centre", getattr(self, name))


def recovery_s(speeds: RecoverySpeeds, *, kept: float, chain: float, updates: int, weights: float, replay_s: float = 0.0) -> float:
    """Return the seconds to recover a version: t0 + (kept + chain) / read + updates * weights / apply + 4 * weights / prove + replays.

    kept: bytes of the nearest kept state; chain: bytes of the updates from there, so many; replay_s: seconds of the recipes among them.
    A speed of 0 is not known and counts for nothing. Raises BadArgument for what is negative or not finite.
    """
    for name, value in (("kept", kept), ("chain", chain), ("updates", updates), ("weights", weights), ("replay_s", replay_s)):
        in_range(f"{name} of a recovery", value)
    seconds = speeds.start_s + replay_s
    for amount, speed in ((kept + chain, speeds.read), (updates * weights, speeds.apply), (4.0 * weights, speeds.prove)):
        seconds += min(MOST, amount / speed) if speed else 0.0
    return seconds


def storage_cost(stored: float, months: float, prices: Prices) -> float:
    """Return w_s * bytes * months: what keeping so many bytes for so long costs."""
    return prices.per_byte_month * months * stored


def recovery_cost(recoveries: float, seconds: float, prices: Prices) -> float:
    """Return w_r * n * seconds: what so many recoveries of that length cost."""
    return prices.per_second * recoveries * seconds


def joules_of(candidate: Candidate, sizes: F64, conditions: Conditions, *, awake: bool) -> F64:
    """Return the joules of making `candidate` and sending it as so many bytes: wake-up, bytes, encoding, training that only it takes.

    awake: the radio is up already, and no wake-up is paid.
    """
    seconds = 0.0
    if conditions.encode_rate is not None and conditions.encode_rate.value:
        seconds += min(MOST, candidate.encoded / conditions.encode_rate.value)  # the slowest rate there is makes no infinity
    if conditions.step_s is not None:
        seconds += candidate.steps * conditions.step_s.value
    wakeup = 0.0 if awake else conditions.wakeup.value
    watts = 0.0 if conditions.watts is None else conditions.watts.value
    return np.asarray(wakeup + conditions.link.on_air(sizes) * conditions.byte.value + seconds * watts)


def terms_of(candidate: Candidate, sizes: F64, updates: F64, conditions: Conditions, prices: Prices, *, awake: bool) -> F64:
    """Return what bytes, energy, storage, recovery and accuracy of `candidate` cost at each size in bytes, shape (5, len(sizes)).

    updates: how many are in it. Recovery and accuracy count for each of them: who would have recovered one in between recovers this one,
    and that fewer versions can be asked for is no gain. Elementwise sums and products, so each column is what it would be alone.
    """
    stored = sizes if candidate.stored is None else np.maximum(candidate.stored + (sizes - candidate.bytes), 0.0)
    terms = np.empty((5, len(sizes)))
    terms[0] = prices.per_byte * sizes
    terms[1] = prices.per_joule * joules_of(candidate, sizes, conditions, awake=awake)
    terms[2] = stored * storage_cost(1.0, conditions.months.value, prices)
    terms[3] = recovery_cost(conditions.recoveries.value, candidate.recover_s, prices) * updates
    terms[4] = prices.per_accuracy * candidate.accuracy_lost * updates
    return terms
