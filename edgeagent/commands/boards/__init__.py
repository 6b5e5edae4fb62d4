"""Commands about which board this is."""

from __future__ import annotations

__all__ = ["board"]
