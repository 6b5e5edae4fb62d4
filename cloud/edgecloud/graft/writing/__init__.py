"""Writes .tflite files: new tables around an old file that stays whole. Knows the format, and nothing of gradients."""

from __future__ import annotations

__all__ = ["build", "flat", "noted", "ops", "standins", "strides"]
