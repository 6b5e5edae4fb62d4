"""Troubles of a board that its centre is told of at each hello, for as long as they last: kept in the agent's database."""

from __future__ import annotations

from contextlib import suppress

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError
from modelwire.wire.more import TROUBLE_TEXT_MAX

KEYS = {"smaller": "board-smaller"}  # of the table meta: what stands there in words, and the trouble that it is
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
