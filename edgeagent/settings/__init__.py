"""What an operator may say, as one tree: read, checked, and written out for a new device. Knows none of the rooms that go by it."""

from __future__ import annotations

__all__ = ["channels", "editing", "reading", "template", "tree", "units"]
