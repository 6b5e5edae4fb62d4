"""What a version's count sketch is: 256 whole numbers that add as its lattice coordinates add. Knows no network and no model's file."""

from __future__ import annotations

__all__ = ["counting", "measuring"]
