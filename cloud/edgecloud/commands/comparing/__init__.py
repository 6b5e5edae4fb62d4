"""Commands that compare: which models are alike, whose model fits, who sees a biased world, and merges."""

from __future__ import annotations

__all__ = ["cluster", "compare", "drift", "identify", "nearest", "plots", "probes"]
