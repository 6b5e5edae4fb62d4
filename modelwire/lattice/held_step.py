"""How long a step is held: a round sends with the step of the round before, while that changes neither too many entries nor too few.

A step chosen anew each round falls as training calms down, so that quiet rounds send as much as wild ones. What they add is noise
about to be taken back: the residual would have cancelled it. Decision 0007 has the figures.
"""

from __future__ import annotations

FEWEST = 0.25  # of the density: fewer entries than this, and the step falls


def count_to_send(sent: int, most: int) -> int:
    """Return how many entries a round sends: as many as with the held step, or the nearer of the two counts that bound it.

    sent: what the held step would send. most: what the density allows, >= 1; FEWEST * most, and one at least, is the other bound.
    """
    return min(max(sent, int(FEWEST * most), 1), most)
