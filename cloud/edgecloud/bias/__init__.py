"""Which devices see a skewed world, by how much beyond chance, and what their models lack."""

from __future__ import annotations

__all__ = ["fleet", "helping", "skew", "telling", "views"]
