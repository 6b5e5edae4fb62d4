"""Commands for what an operator adds: bases, devices and their keys, requests, notes."""

from __future__ import annotations

__all__ = ["annotate", "bases", "devices", "overview", "snapshot"]
