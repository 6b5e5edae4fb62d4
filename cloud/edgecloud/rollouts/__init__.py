"""Rollouts: whom a variant is brought to and when, whether it does what it should there, and the step that decides it. Holds no network."""

from __future__ import annotations

__all__ = [
    "choosing", "directing", "enrolling", "gates", "group", "judging", "moves", "offering", "orders", "pairing", "planning", "power",
    "publishing", "rows", "statements", "stepping", "verbs",
]  # fmt: skip
