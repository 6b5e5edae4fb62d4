"""How long a step is held: a round sends with the step of the round before, while that changes neither too many entries nor too few.

A step chosen anew each round falls as training calms down, so that quiet rounds send as much as wild ones. What they add is noise
about to be taken back: the residual would have cancelled it. Decision 0006 has the figures.
"""

from __future__ import annotations

FEWEST = 0.25  # of the density: fewer entries than this, and the step falls


def edge_to_send(held: float | None, most: float, fewest: float) -> float:
    """Return the magnitude from which differences are sent: the held one, or the nearer of the two that bound it.

    held: where the last round drew the line, None without one. most and fewest: the magnitudes that `density` and FEWEST * density
    of all entries reach; most <= fewest, since fewer entries reach more.
    """
    return most if held is None else min(max(held, most), fewest)
