"""Finds the true shape of every tensor of a stock graph, and the values that depend on shapes and constants alone.

A converter writes 1 for a size that it leaves open, wherever in a shape it stands; what a runtime then computes with is found here from the
inputs' shapes, operator by operator.
"""

from __future__ import annotations

from .passing import PASSES, POINTWISE, computed_weights, product_axis, shared_axes
from .reshaping import IN_FRONT, moves, reshaped
from .resolving import Resolved, resolve

__all__ = [
    "IN_FRONT", "PASSES", "POINTWISE", "Resolved", "computed_weights", "moves", "product_axis", "reshaped", "resolve", "shared_axes",
]  # fmt: skip
