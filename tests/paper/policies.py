"""What a chain of updates costs under each policy of keeping: whole models, the bare chain, and the two-way rule under its promise.

Planned by `edgecloud whatif`'s own rules from the bytes that the flow measured; evidence TOPIC=centre measures the real compactor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecloud.keeping.promise import Promise
from edgecloud.keeping.retention import Keep
from edgecloud.keeping.whatif import DELTA, EXACT, Chains, forecast, recoveries
from edgecloud.versions.route import Rates

VERSIONS = 1000


@dataclass(frozen=True)
class PolicyCost:
    """One policy for one chain."""

    policy: str
    stored: int  # bytes: updates and kept states, the base aside
    over_least: float  # of the least possible: the updates and one state
    worst_states: float  # bytes read for the worst version, in kept states
    mean_states: float


def costs(kind: str, sizes: list[int], state: int, weights: int) -> list[PolicyCost]:
    """Return what each policy comes to. sizes: bytes of some updates, repeated to a thousand; state: bytes of a kept state."""
    n = VERSIONS
    size = np.resize(np.array(sizes, np.int64), n)
    zero, flag = np.zeros(n, np.int64), np.zeros(n, bool)
    fresh = flag.copy()
    fresh[0] = True
    chains = Chains(
        np.arange(1, n + 1), zero, size, zero + (EXACT if kind == "exact" else DELTA), fresh, zero, zero, np.full(n, float(state)),
        np.full(n, float(weights)), np.zeros(n), flag, flag,
    )  # fmt: skip
    least, rates = float(size.sum() + state), Rates()
    bare = recoveries(chains, rates, np.zeros(n)).bytes / state
    whole = 4 * weights
    out = [
        PolicyCost("every version whole (float32)", n * whole, n * whole / least, whole / state, whole / state),
        PolicyCost("the bare chain", int(size.sum()), size.sum() / least, float(bare.max()), float(bare.mean())),
    ]
    heads = flag.copy()
    heads[-1] = True
    for states in (2.0, 3.0, 5.0):
        told, _ = forecast(chains, Promise(states=states), Keep(everything=True), rates, heads)
        out.append(PolicyCost(f"recover_within = {states:g} states", told.stored, told.stored / least, told.worst_bytes / state,
                              told.mean_bytes / state))  # fmt: skip
    return out
