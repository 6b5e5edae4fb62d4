"""What the agent asks of Python and the disk: time, pauses, databases, modules that load when they are needed. Knows no other room."""

from __future__ import annotations

__all__ = ["backoff", "children", "clock", "database", "deferred", "notice"]
