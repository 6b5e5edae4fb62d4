"""Probe sets, and what versions make of them: outputs, agreement, intermediates kept once. Models run in processes with limits."""

from __future__ import annotations

__all__ = ["agreeing", "comparing", "intermediates", "running", "sets"]
