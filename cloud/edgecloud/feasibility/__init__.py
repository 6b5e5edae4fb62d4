"""Whose model would do for whom: cards, sketches and probes first, then the models themselves; the fleet's matrix of scores."""

from __future__ import annotations

__all__ = ["evaluating", "fitness", "intervals", "lazily", "matrix", "ranking", "scoring"]
