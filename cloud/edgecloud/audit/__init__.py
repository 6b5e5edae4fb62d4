"""What the log proves: who speaks for which device, whether the tables say the same, and whether the log itself is whole."""

from __future__ import annotations

__all__ = ["admissions", "anchors", "carrying", "claiming", "deploying", "entries", "erased", "refusing", "signing", "tampering", "telling"]
