"""What the board has and what training may take of it: sensors, budgets, known costs. Knows no model and no state folder."""

from __future__ import annotations

__all__ = ["budget", "costs", "fitting", "meters", "sensors"]
