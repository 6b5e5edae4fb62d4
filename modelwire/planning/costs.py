"""The terms of J for one form of an update at a given size."""

from __future__ import annotations

from .candidates import Candidate
from .conditions import Conditions
from .prices import Prices


def joules_of(candidate: Candidate, size: float, conditions: Conditions) -> float:
    """Return the joules of making `candidate` and sending it as `size` bytes: wake-up, bytes, encoding, training that only it takes."""
    seconds = 0.0
    if conditions.encode_rate is not None and conditions.encode_rate.value:
        seconds += candidate.encoded / conditions.encode_rate.value
    if conditions.step_s is not None:
        seconds += candidate.steps * conditions.step_s.value
    wakeup = 0.0 if conditions.awake else conditions.wakeup.value
    watts = 0.0 if conditions.watts is None else conditions.watts.value
    return wakeup + size * conditions.byte.value + seconds * watts


def terms_of(candidate: Candidate, size: float, conditions: Conditions, prices: Prices) -> tuple[float, float, float, float, float]:
    """Return what bytes, energy, storage, recovery and accuracy of `candidate` cost when it is `size` bytes long."""
    stored = size if candidate.stored is None else candidate.stored + (size - candidate.bytes)
    return (
        prices.per_byte * size,
        prices.per_joule * joules_of(candidate, size, conditions),
        prices.per_byte_month * max(stored, 0.0) * conditions.months.value,
        prices.per_second * conditions.recoveries.value * candidate.recover_s,
        prices.per_accuracy * candidate.accuracy_lost,
    )
