"""Fronts that no batch passes, or that keep state: they run as they are, once a sample, and what lies behind them learns."""

from __future__ import annotations

__all__ = ["called", "singly", "stateless"]
