"""What a round's delta would come to with fewer of its entries: estimated from those it has, without another snap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelwire.update.sections import AnySection, sparse

from .snap import APART

SAMPLED = 1 << 17  # entries that are looked at, evenly over all of them; more tell no more


@dataclass(frozen=True, slots=True)
class ThinnedDelta:
    """A delta of the largest moves alone. bytes: estimated, of the whole update."""

    entries: int
    bytes: int
    kept: float  # share of what the entries move their weights by, squared: 0 to 1; the rest stays in the residual


def thinned(sections: Sequence[AnySection], *, size: int, fixed: int, shares: Sequence[float]) -> list[ThinnedDelta]:
    """Return what a delta with these shares of its entries would come to, each share in (0, 1].

    size: bytes of the update as it is; fixed: those of them that no entry takes. Fewer entries lie further apart, and take more bits
    each: the same rule by which a round aims at its budget of bytes (`snap`).
    """
    moves = [
        np.abs(s.value.astype(np.float64)) * math.ldexp(s.step, s.exponent) for s in sparse(sections) if len(s.value)
    ]
    count = sum(len(m) for m in moves)
    if not count:
        return []
    every = -(-count // SAMPLED)
    squares = np.sort(np.square(np.concatenate(moves)[::every]))[::-1]
    total = float(squares.sum())
    each, out = 8 * max(0, size - fixed) / count, []
    for share in shares:
        entries = max(1, int(share * count))
        looked = max(1, int(share * len(squares)))
        bits = entries * (each + APART * math.log2(count / entries))
        kept = float(squares[:looked].sum()) / total if total > 0 else 1.0
        out.append(ThinnedDelta(entries, fixed + math.ceil(bits / 8), min(1.0, kept)))
    return out
