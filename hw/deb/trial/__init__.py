"""Tries a package as a firmware team would: in an empty Debian of each architecture, with a broker and a centre beside it."""

from __future__ import annotations

__all__ = ["booted", "centre", "course", "units"]
