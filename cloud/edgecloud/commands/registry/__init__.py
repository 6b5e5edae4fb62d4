"""Commands for the registry as a whole: made, filled, proven, copied and put back."""

from __future__ import annotations

__all__ = [
    "anchor", "audit", "backup", "compact", "doctor", "ingest", "init", "policy", "repair", "restore", "stats", "thin", "verify", "version",
    "whatif",
]  # fmt: skip
