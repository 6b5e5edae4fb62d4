"""What the frozen part of a model made of each sample, kept, and the exact trainer on it. Knows no state folder and no settings."""

from __future__ import annotations

__all__ = ["base_file", "by_recipe", "exact_course", "gathering", "rows_learner"]
