"""The fleet that the tests are of: its id, and keys of every role, the same in all runs."""

from __future__ import annotations

from typing import Any

from modelwire.wire.records import Trust
from modelwire.wire.signing import Fleet, PrivateKey

NO_FILE: dict[str, Any] = {"file_sha256": bytes(32), "file_size": 1, "file_tree": bytes(32)}  # of a base that is weights alone
FLEET_ID = bytes(range(16))
ROOT, RECEIPT, COMMAND, DIRECTOR = (PrivateKey(bytes([n]) * 32) for n in (0xF1, 0xF2, 0xF3, 0xF4))
FLEET = Fleet(ROOT.public, FLEET_ID)


def trust(fleet: str, *, number: int = 1, since: int = 0, until: int = 0, overlap: int = 0, at: int = 0) -> Trust:
    """Return the record that names the keys above."""
    keys = (ROOT.public, RECEIPT.public, COMMAND.public, DIRECTOR.public)
    return Trust(fleet, "all", "all", at, number, since, until, overlap, *keys)
