"""How a model's updates reach the centre: the talk about each model, and the MQTT under it. Knows no training and no command line."""

from __future__ import annotations

__all__ = [
    "certificate", "credentials", "device_side", "enrolling", "first_look", "installing", "link_state", "looking", "metered", "mqtt",
    "session", "transport", "unread",
]  # fmt: skip
