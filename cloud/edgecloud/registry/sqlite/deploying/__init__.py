"""Deployments in SQLite: their tables and the seam on them. Knows no other table's meaning, and not what a seal says."""

from __future__ import annotations

__all__ = ["rollouts", "tables"]
