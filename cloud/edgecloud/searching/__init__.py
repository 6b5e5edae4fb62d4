"""Which versions are alike: the nearest, cohorts, whose file this is, drift. Sketches shortlist, exact distances decide."""

from __future__ import annotations

__all__ = ["cluster", "drift", "gathering", "grouping", "identify", "nearest", "reasons", "told"]
