"""Schedules: thousands of short lives of a small fleet, each with its own troubles, its power cuts among them. README.md tells more."""

from __future__ import annotations

from .playing import Played, play
from .schedule import Schedule, Trouble, scheduled

__all__ = ["Played", "Schedule", "Trouble", "play", "scheduled"]
