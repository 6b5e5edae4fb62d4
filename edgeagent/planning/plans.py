"""What was decided about each update, kept beside its version: the table of costs, the reason, and until when it waits for others."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from edgecommon.sqlite import Database, Row

TEXT_MAX = 64 * 1024  # characters of a decision's JSON
KEPT = 1000  # decisions of a model that keep their table; of older ones only the choice stays
_OLD = ('{"reason": "it was decided: ', '; the table of so old a decision is not kept"}')  # around its choice
_GAP = 100  # version numbers between two decisions, at most and nearly always: snapshots that commands asked for take some


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """One decision. document: the table as `decisions.as_document` gives it."""

    version: int
    at: int  # Unix seconds
    choice: str
    hold: int  # Unix seconds until which the update waits; 0: it goes
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """The updates that wait to be sent, and why."""

    count: int
    size: int  # bytes
    document: dict[str, Any]  # of the last decision
    until: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class HeldUpdates:
    """The queued updates that were told to wait; all zeros for none."""

    queued: int = 0
    size: int = 0  # bytes
    updates: int = 0  # with those that one of the queued carries
    first: int = 0  # Unix seconds of the first that is queued
    until: int = 0  # Unix seconds at which they go, whatever else speaks for waiting


class Plans:
    """The decisions about one model's updates."""

    def __init__(self, database: Database, model: str) -> None:
        self._db, self._model = database, model

    def keep(self, version: int, choice: str, hold: int, document: dict[str, Any], now: int) -> None:
        """Write a decision down, inside the transaction that queues its update. now: Unix seconds."""
        self._db.run(
            "INSERT OR REPLACE INTO plan (model, version, at, choice, hold, decision) VALUES (?,?,?,?,?,?)",
            self._model, version, now, choice, hold, json.dumps(document, allow_nan=False),
        )  # fmt: skip
        self._db.run(  # a table takes 2 KB: of a round a minute they would come to a gigabyte a year
            "UPDATE plan SET decision=? || choice || ? WHERE model=? AND version BETWEEN ? AND ?",
            *_OLD, self._model, version - KEPT - _GAP, version - KEPT,
        )  # fmt: skip

    def of(self, version: int) -> KeptPlan | None:
        """Return the decision about a version; None where there is none: it was told its kind, or is of an earlier release."""
        return _plan(self._db.maybe("SELECT * FROM plan WHERE model=? AND version=?", self._model, version))

    def last(self) -> KeptPlan | None:
        """Return the last decision."""
        return _plan(self._db.maybe("SELECT * FROM plan WHERE model=? ORDER BY version DESC LIMIT 1", self._model))

    def waits(self, now: float, most: float = math.inf) -> Waits | None:
        """Return what waits to be sent; None when everything that is queued may go. now: Unix seconds.

        most: seconds that the settings let an update wait now, which may be less than when it was decided; 0: none waits.
        One queued update that waits for nobody takes all before it along. A clock that went back ends the wait: it may be any time.
        """
        if not most:
            return None
        rows = self._db.all(
            "SELECT v.version, v.bytes, p.at, p.hold FROM version v LEFT JOIN plan p USING (model, version)"
            " WHERE v.model=? AND v.state='queued' ORDER BY v.version",
            self._model,
        )
        if not rows or any(not r["hold"] or not r["at"] <= now < r["hold"] for r in rows):
            return None
        until = min(min(r["hold"], r["at"] + most + 1) for r in rows)
        if now >= until:
            return None
        newest = self.of(rows[-1]["version"])
        return Waits(len(rows), sum(r["bytes"] for r in rows), newest.document if newest is not None else {}, int(until))

    def held(self) -> HeldUpdates:
        """Return what waits, and with it the updates that became part of what waits."""
        row = self._db.one(
            "SELECT count(*), coalesce(sum(v.bytes), 0), coalesce(min(p.at), 0), coalesce(min(p.hold), 0) FROM version v"
            " JOIN plan p USING (model, version) WHERE v.model=? AND v.state='queued' AND p.hold > 0",
            self._model,
        )
        if not row[0]:
            return HeldUpdates()
        carried = self._db.number(
            "SELECT count(*) FROM version WHERE model=? AND state='skipped' AND version >"
            " (SELECT coalesce(max(version), 0) FROM version WHERE model=? AND state NOT IN ('queued', 'skipped', 'rejected'))",
            self._model, self._model,
        )  # fmt: skip
        return HeldUpdates(int(row[0]), int(row[1]), int(row[0]) + carried, int(row[2]), int(row[3]))

    def carry(self, first: int, last: int) -> None:
        """Let the last of these queued updates wait no longer than any that it carries, inside the transaction that joins them."""
        least = self._db.number(
            "SELECT coalesce(min(coalesce(p.hold, 0)), 0) FROM version v LEFT JOIN plan p USING (model, version)"
            " WHERE v.model=? AND v.state='queued' AND v.version BETWEEN ? AND ?",
            self._model, first, last,
        )  # fmt: skip
        self._db.run("UPDATE plan SET hold=? WHERE model=? AND version=? AND hold > ?", max(1, least), self._model, last, least)

    def joins(self) -> bool:
        """Return whether what is queued goes as one: some of it was told to wait, and all of it is of rounds.

        What a command asked for stays apart: it says of itself what no sum can say, as which samples it forgot.
        """
        row = self._db.one(
            "SELECT count(*), count(p.version), coalesce(max(p.hold), 0) FROM version v LEFT JOIN plan p USING (model, version)"
            " WHERE v.model=? AND v.state='queued'",
            self._model,
        )
        return bool(row[0] == row[1] > 1 and row[2] > 0)

    def release(self) -> None:
        """Let all that waits go, as one: its time is over."""
        self._db.run("UPDATE plan SET hold=1 WHERE model=? AND hold > 1", self._model)


def _plan(row: Row | None) -> KeptPlan | None:
    if row is None or len(row["decision"]) > TEXT_MAX:
        return None
    try:
        document = json.loads(row["decision"])
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    return KeptPlan(row["version"], row["at"], row["choice"], row["hold"], document)
