"""What a device learns from: the spool of samples, its cards, and how files become samples. Knows no model, no state folder and no link."""

from __future__ import annotations

__all__ = ["cards", "from_files", "sharing", "spool", "spool_tables"]
