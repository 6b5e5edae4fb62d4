"""Data cards: what a device's data looks like in counts that merge exactly, and what of it may leave the device.

Knows no samples beyond the arrays it counts, and no model.
"""

from __future__ import annotations

__all__ = ["card", "facts", "privacy", "shift", "sketch"]
