"""Trainable .tflite files: what is read of one, where its weights lie, and what keeps it from being trained.

Knows no runtime, and nothing of updates or of the lattice.
"""

from __future__ import annotations

__all__ = ["file", "flatbuffer", "graph", "int8_finder", "int8_head", "int8_numbers", "notes"]
