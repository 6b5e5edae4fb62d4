"""Commands about the keys that speak for a fleet: who is believed, how that changes, and how their files are kept."""

from __future__ import annotations

__all__ = ["keys", "trust"]
