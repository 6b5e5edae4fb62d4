"""What "nothing lost, nobody starved" promises: attacks, floods at the door, troubles of a board, schedules, kills, crash states, crowds.

Each part measures its own figures and can be run alone: python -m tests.evidence.lost.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

from tests.evidence.parts import Figures, measured

PARTS: tuple[str, ...] = ("attacks", "door", "troubles", "schedules", "chaos", "crowd", "blocks")


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    return measured(__name__, PARTS, full)
