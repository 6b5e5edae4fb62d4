"""How a model learns one lesson, and how the result is judged. Knows no state folder, no round and no link."""

from __future__ import annotations

__all__ = ["balance", "batches", "course", "guard", "int8_head", "learner", "threshold"]
