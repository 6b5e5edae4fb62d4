"""Versions by name: rebuilt, replayed, compared, listed, unlearned, written out. Reads a registry; knows no network and no command line."""

from __future__ import annotations

__all__ = [
    "cards", "changes", "comparing", "exporting", "last_models", "listing", "materialise", "naming", "plans", "replaying",
    "reporting", "route", "several", "squashed", "states", "unlearning",
]  # fmt: skip
