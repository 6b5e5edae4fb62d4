"""Commands about who may connect: the fleet's CA, and a broker's files."""

from __future__ import annotations

__all__ = ["ca"]
