"""Commands about which board this is, and how it is set up."""

from __future__ import annotations

__all__ = ["board", "provision"]
