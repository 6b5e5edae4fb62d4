"""Takes in what devices send: checks it, keeps it, rebuilds it, answers. Writes to a registry; knows no command line and no grafting."""

from __future__ import annotations

__all__ = ["decision", "epochs", "greeting", "mqtt", "reaching", "service"]
