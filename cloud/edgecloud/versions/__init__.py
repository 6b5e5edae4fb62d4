"""Versions by name: rebuilt, replayed, compared, unlearned, written to a file. Reads a registry; knows no network and no command line."""

from __future__ import annotations

__all__ = ["cards", "comparing", "exporting", "last_models", "materialise", "naming", "replaying", "unlearning"]
