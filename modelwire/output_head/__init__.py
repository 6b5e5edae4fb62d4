"""The last layers of a net, trained to the same bits anywhere: rows of features, the trainer, and recipes that say what was trained how.

Knows no state and no file: which weights a recipe starts from is told to it.
"""

from __future__ import annotations

__all__ = ["forgotten", "recipe", "row_ids", "rows", "trainer"]
