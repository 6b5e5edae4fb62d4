"""What a device must not lose: each model's versions, files and outbox, and the folder that holds them. Knows no round and no link."""

from __future__ import annotations

__all__ = [
    "agent_tables", "answers", "beside", "claim", "commands", "doubts", "folder", "forgetting", "history", "keys", "lineage", "looking",
    "models", "new_folder", "outbox", "outcome", "slots", "taking", "trust",
]  # fmt: skip
