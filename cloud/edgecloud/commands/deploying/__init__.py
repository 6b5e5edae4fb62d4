"""Commands that put another base on devices: variants, rollouts, and who is left out of them."""

from __future__ import annotations

__all__ = ["answers", "asking"]
