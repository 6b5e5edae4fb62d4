"""The seams: what a registry must be able to do, by subject, as protocols that SQLite implements."""

from __future__ import annotations

__all__ = ["evaluations", "inbox", "keeping", "models", "probing", "quotas", "rollouts", "store", "thinning", "trust"]
