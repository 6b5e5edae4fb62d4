"""What both wings need and modelwire must not know: the TFLite runtimes, files, SQLite, logs, brokers, and what a command line says.

Knows neither wing: what is an operator's or a device's own comes in as an argument.
"""

from __future__ import annotations

__all__ = ["access", "broker", "disk", "files", "logs", "memory", "printing", "runtime", "sqlite"]
