"""Nobody starved: whose message is next, and how much of each device is taken in. Decides and counts; says nothing and stores no update."""

from __future__ import annotations

__all__ = ["charging", "content", "inlet", "rates", "screening", "trainings", "turns"]
