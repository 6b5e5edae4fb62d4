"""Commands for a model's author: they look at a .tflite, make one trainable, and open no registry."""

from __future__ import annotations

__all__ = ["author", "graft", "inspect", "int8_head", "pack", "zoo"]
