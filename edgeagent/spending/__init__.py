"""What a running agent takes of its link and its flash: bytes a month, counted before they leave, and bytes written a day."""

from __future__ import annotations

__all__ = ["flash", "month", "tables"]
