"""Weights that are not plain float32: float16, int8 and int4 beside float activations, sparse ones; what they are as float32."""

from __future__ import annotations

__all__ = ["plain", "sparse", "stored"]
