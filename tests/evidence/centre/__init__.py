"""What the centre promises: recovery within bounds, a planner near the optimum, proofs that can't be forged, and its rates.

Each part measures its own figures and can be run alone: python -m tests.evidence.centre.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

from tests.evidence.parts import Figures, measured

PARTS = ("storing", "papers", "planner", "simulation", "proofs", "rates", "queries")


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    return measured(__name__, PARTS, full)
