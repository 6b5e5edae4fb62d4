"""Rollouts: whom a variant is brought to and when, whether it does what it should there, and the step that decides it. Holds no network."""

from __future__ import annotations

__all__ = ["directing", "enrolling", "gates", "judging", "moves", "offering", "orders", "pairing", "stepping"]
