"""Troubles of a board that its centre is told of at each hello, for as long as they last: kept in the agent's database, or
written down by the system beside the agent, which is who updates itself."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError
from modelwire.wire.more import TROUBLE_TEXT_MAX

KEYS = {"smaller": "board-smaller"}  # of the table meta: what stands there in words, and the trouble that it is
SYSTEM = Path("/run/edgeagent-told")  # a file for each, called by its id, with one line of words; root's
OF_SYSTEM = ("system-refused", "system-left")
_KEY_OF = {trouble: key for key, trouble in KEYS.items()}


def tell(database: Database, trouble: str, text: str) -> None:
    """Let the next hello tell of a trouble, in words; an empty text: no more. On a disk that takes nothing it stays as it was."""
    if text != told(database).get(trouble, ""):
        with suppress(ModelWireError):  # for people: nothing stands on it
            database.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", _KEY_OF[trouble], text[:TROUBLE_TEXT_MAX])


def told(database: Database) -> dict[str, str]:
    """Return the troubles that there are now, in words by their ids."""
    rows = {key: database.maybe("SELECT value FROM meta WHERE key=?", key) for key in KEYS}
    return {KEYS[key]: str(row[0]) for key, row in rows.items() if row is not None and row[0]}


def told_by_system(folder: Path | None = None) -> dict[str, str]:
    """Return the troubles that the system beside the agent tells of, in words by their ids; what can't be read is passed over."""
    out: dict[str, str] = {}
    for name in OF_SYSTEM:
        with suppress(OSError):
            handle = os.open((folder or SYSTEM) / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    continue
                text = " ".join(file.read(4 * TROUBLE_TEXT_MAX).decode(errors="replace").split())
            out[name] = "".join(c if c.isprintable() else "?" for c in text)[:TROUBLE_TEXT_MAX] or "nothing more is said"
    return out
