"""What the agent asks of Python and the disk: time, its database files, and modules that load when they are needed. Knows no other room."""

from __future__ import annotations

__all__ = ["clock", "database", "deferred", "notice"]
