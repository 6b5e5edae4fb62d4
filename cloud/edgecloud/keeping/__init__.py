"""What the centre keeps so that every version comes back within a promise, and what it lets go. Knows no network and no command line."""

from __future__ import annotations

__all__ = ["deciding", "erasing", "promise", "purging", "retention", "thinning"]
