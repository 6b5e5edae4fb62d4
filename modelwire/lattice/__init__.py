"""A model on the lattice: its state, how a round is snapped to it, and how updates and recipes move it, bit for bit.

Knows no network, no disk and no file format but that of updates; nothing in modelwire stands on it but the names for notebooks.
"""

from __future__ import annotations

__all__ = ["between", "candidates", "exact", "narrow", "rebuild", "replay", "snap", "state", "thinning"]
