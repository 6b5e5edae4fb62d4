"""What comparing promises: search by sketches, feasibility of models for others, bias found and no false alarm, merges, intermediates.

Each part measures its own figures and can be run alone: python -m tests.evidence.compare.PART; FULL=1 for the sizes of the promise.
"""

from __future__ import annotations

from tests.evidence.parts import Figures, measured

PARTS: tuple[str, ...] = ("nearest", "cohorts", "intermediates", "feasibility", "matrix", "bias", "merging")


def measure(full: bool) -> Figures:
    """Return the figures of all parts. full: the sizes that the promise names, which take long."""
    return measured(__name__, PARTS, full)
