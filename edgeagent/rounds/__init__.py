"""One round after another: opened, trained, settled; taken up where a kill left it. Knows no link, no service and no command line."""

from __future__ import annotations

__all__ = ["drift", "journal", "opening", "reports", "resuming", "round", "standing", "starts"]
