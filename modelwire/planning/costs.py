"""The terms of J for one form of an update, at one or many sizes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .candidates import Candidate
from .conditions import Conditions
from .prices import Prices

F64: TypeAlias = NDArray[np.float64]


def joules_of(candidate: Candidate, sizes: F64, conditions: Conditions, *, awake: bool) -> F64:
    """Return the joules of making `candidate` and sending it as so many bytes: wake-up, bytes, encoding, training that only it takes.

    awake: the radio is up already, and no wake-up is paid.
    """
    seconds = 0.0
    if conditions.encode_rate is not None and conditions.encode_rate.value:
        seconds += candidate.encoded / conditions.encode_rate.value
    if conditions.step_s is not None:
        seconds += candidate.steps * conditions.step_s.value
    wakeup = 0.0 if awake else conditions.wakeup.value
    watts = 0.0 if conditions.watts is None else conditions.watts.value
    return np.asarray(wakeup + sizes * conditions.byte.value + seconds * watts)


def terms_of(candidate: Candidate, sizes: F64, conditions: Conditions, prices: Prices, *, awake: bool) -> F64:
    """Return what bytes, energy, storage, recovery and accuracy of `candidate` cost at each size in bytes, shape (5, len(sizes)).

    Elementwise sums and products, so each column is what it would be alone.
    """
    stored = sizes if candidate.stored is None else np.maximum(candidate.stored + (sizes - candidate.bytes), 0.0)
    terms = np.empty((5, len(sizes)))
    terms[0] = prices.per_byte * sizes
    terms[1] = prices.per_joule * joules_of(candidate, sizes, conditions, awake=awake)
    terms[2] = prices.per_byte_month * stored * conditions.months.value
    terms[3] = prices.per_second * conditions.recoveries.value * candidate.recover_s
    terms[4] = prices.per_accuracy * candidate.accuracy_lost
    return terms
