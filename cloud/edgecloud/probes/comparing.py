"""Where two models part: how far what each layer gives for the same rows is apart, by what is computed or kept of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intermediates import LayerSeen, VersionSeen

THRESHOLD = 0.1  # of the norm of what the first model's layer gives


@dataclass(frozen=True, slots=True)
class LayerApart:
    """One layer of both models."""

    name: str
    values: int  # that it gives for all rows
    equal: bool  # to the bit, as they were computed
    relative: float  # norm of the difference over the norm of the first; infinite where that is 0, NaN where one is no number
    uncertain: float  # how far `relative` may be off, for what is kept is not to the bit


def layers_apart(a: VersionSeen, b: VersionSeen) -> tuple[list[LayerApart], list[str]]:
    """Return the layers that both have, in the order of the first, and the names of those that one has alone or with another shape."""
    theirs = {one.name: one for one in b.layers}
    out, odd = list[LayerApart](), list[str]()
    for mine in a.layers:
        other = theirs.pop(mine.name, None)
        if other is None or other.values.shape != mine.values.shape:
            odd.append(mine.name)
        else:
            out.append(_apart(mine, other))
    return out, [*odd, *theirs]


def parting(layers: list[LayerApart], threshold: float = THRESHOLD) -> LayerApart | None:
    """Return the first layer that is further apart than a threshold, what is uncertain taken off; one of no numbers is, too."""
    return next((one for one in layers if not one.relative - one.uncertain <= threshold), None)


def _apart(mine: LayerSeen, other: LayerSeen) -> LayerApart:
    if mine.chunk == other.chunk:
        return LayerApart(mine.name, mine.values.size, True, 0.0, 0.0)
    a, b = mine.values.astype(np.float64), other.values.astype(np.float64)
    norm, apart = float(np.linalg.norm(a)), float(np.linalg.norm(a - b))
    if not norm:
        return LayerApart(mine.name, a.size, False, float("inf") if apart else 0.0, 0.0)
    relative, lost = apart / norm, mine.spread + other.spread
    # What is kept is off by at most what was lost of it, in the difference and in the norm that it is divided by.
    floor = max(norm - mine.spread, np.finfo(float).tiny)
    low, high = max(0.0, apart - lost) / (norm + mine.spread), (apart + lost) / floor
    uncertain = max(high - relative, relative - low)
    return LayerApart(mine.name, a.size, False, relative, uncertain if lost else 0.0)
