"""The word of the host, the person or program beside the agent, on what is desired: said by `edgeagent desired`, heard by the machine."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgecommon.sqlite import Database

_KEY = "host:"  # in `meta`, before a model's name
REASON_MAX = 300  # characters


@dataclass(frozen=True, slots=True)
class HostWord:
    """What the host said about one number of a model."""

    number: int
    accepts: bool
    reason: str


def say(database: Database, model: str, word: HostWord) -> None:
    """Keep the host's word on a model's desired; it counts for its number alone."""
    value = json.dumps({"number": word.number, "accepts": word.accepts, "reason": word.reason[:REASON_MAX]})
    with database.transaction():
        database.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", _KEY + model, value)


def said(database: Database, model: str, number: int) -> HostWord | None:
    """Return the host's word on this number; None when it has said nothing."""
    row = database.maybe("SELECT value FROM meta WHERE key=?", _KEY + model)
    if row is None:
        return None
    try:
        word = json.loads(row["value"])
        return HostWord(number, bool(word["accepts"]), str(word["reason"])) if word["number"] == number else None
    except (ValueError, TypeError, LookupError):  # what else stands there is nobody's word
        return None
