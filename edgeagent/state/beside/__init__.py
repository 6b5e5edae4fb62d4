"""The bases that lie on the disk beside the one that a model is on: what is staged or soaking, and the way back. Knows no head."""

from __future__ import annotations

__all__ = ["lying", "rows"]
