"""What both sides agree on to put another base on a device: variants, plans, terms, reports, states. Knows no model's weights."""

from __future__ import annotations

__all__ = ["plans", "reports", "sealed", "states", "terms", "variants"]
