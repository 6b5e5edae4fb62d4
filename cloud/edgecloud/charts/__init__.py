"""Draws rows as SVG or PNG: heat maps, maps of cohorts, the matrix, cards beside each other. Knows no registry."""

from __future__ import annotations

__all__ = ["drawing", "placing"]
