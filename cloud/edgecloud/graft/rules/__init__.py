"""The gradients, a rule for each operator: importing a module registers its rules with the tape. Knows operators, not what is trained."""

from __future__ import annotations

__all__ = ["conv", "dense", "functions", "pointwise", "sequences", "shape", "space"]
