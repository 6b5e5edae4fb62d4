"""Commands for the models of devices: their versions, what they learnt from, and what else they could have become."""

from __future__ import annotations

__all__ = ["card", "diff", "evidence", "forget", "log", "materialise", "prove", "replay", "show", "why"]
