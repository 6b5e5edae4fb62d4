"""What deploying promises: worse variants halted, none halted without need, devices that end whole, rollbacks exact, a simulated fleet.

Each part measures its own figures and can be run alone: python -m tests.evidence.deploy.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

from tests.evidence.parts import Figures, measured

PARTS: tuple[str, ...] = ("device", "gates", "fetching", "rollback", "simulate", "worse", "kills")


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    return measured(__name__, PARTS, full)
