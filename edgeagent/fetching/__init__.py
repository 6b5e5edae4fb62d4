"""A file of known digest on its way here, by HTTP or in parts: resumed, proven, within budgets. Knows no model and no MQTT client."""

from __future__ import annotations

__all__ = ["download", "over_http", "sources", "tasks"]
