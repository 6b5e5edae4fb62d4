"""Commands about what the centre wants this device to run."""

from __future__ import annotations

__all__ = ["desired"]
