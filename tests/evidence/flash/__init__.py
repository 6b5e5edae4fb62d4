"""What flashing promises: wheels that run, an image that boots and keeps its word, memory, power cuts, bytes written a day.

Each part measures its own figures and can be run alone: python -m tests.evidence.flash.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

from tests.evidence.parts import Figures, measured

PARTS: tuple[str, ...] = ("boots", "cuts", "wheels", "deb", "pages", "image")


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    return measured(__name__, PARTS, full)
