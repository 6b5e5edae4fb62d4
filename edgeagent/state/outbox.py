"""Updates between being sealed here and being known at the centre: queued, offered, stored, then verified, refused or lost.

The state of an update is in its row of `version`; its bytes are in `outbox` until it is verified, given up or carried by another.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from edgecommon.sqlite import Database, Row
from modelwire.errors import OutboxFull

UNRECEIPTED = ("queued", "offered")
LIVE = ("queued", "offered", "stored")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One update whose bytes are still here."""

    version: int
    epoch: int
    state: str  # queued, offered or stored
    kind: str
    commit: bytes
    parent: bytes
    size: int


class Outbox:
    """The updates of one model, in the order of their versions."""

    def __init__(self, database: Database, model: str) -> None:
        self._db = database
        self.model = model

    def waiting(self, *states: str) -> list[Waiting]:
        """Return the updates in `states` (all three by default), lowest version first, without their bytes."""
        rows = self._db.all(
            "SELECT v.*, o.size FROM outbox o JOIN version v USING (model, version) WHERE model=? ORDER BY version", self.model
        )
        wanted = states or LIVE
        return [
            Waiting(r["version"], r["epoch"], r["state"], r["kind"], r["commit_id"], r["parent"], r["size"])
            for r in rows
            if r["state"] in wanted
        ]

    def body(self, version: int) -> bytes:
        """Return an update's bytes. Raises KeyError when they were freed."""
        return bytes(self._db.one("SELECT body FROM outbox WHERE model=? AND version=?", self.model, version)["body"])

    def held_bytes(self) -> int:
        return int(self._db.one("SELECT coalesce(sum(size), 0) FROM outbox WHERE model=?", self.model)[0])

    def check_room(self, more: int, budget: int) -> None:
        """Raise OutboxFull when `more` bytes would not fit beside what waits for a receipt."""
        size = self.held_bytes()
        if size + more > budget:
            raise OutboxFull(held=size, budget=budget)

    def transaction(self) -> AbstractContextManager[None]:
        return self._db.transaction()

    # All that follows runs inside the caller's transaction.

    def enqueue(self, version: int, body: bytes) -> None:
        self._db.insert("outbox", model=self.model, version=version, size=len(body), body=body)

    def offer(self, version: int) -> None:
        """Mark an update as handed to the transport: it may be known from now on, and never changes again."""
        self._db.run("UPDATE version SET state='offered' WHERE model=? AND version=? AND state='queued'", self.model, version)

    def find(self, epoch: int, version: int, commit: bytes) -> Row | None:
        """Return the row of the update that a receipt names, or None when it is none of this device's."""
        return self._db.maybe(
            "SELECT * FROM version WHERE model=? AND epoch=? AND version=? AND commit_id=?", self.model, epoch, version, commit
        )

    def stored(self, row: Row) -> list[int]:
        """Mark an update and all it rests on as held by the centre; return the versions that this is news for."""
        return self._mark("stored", [r for r in [row, *self._ancestors(row)] if r["state"] in UNRECEIPTED])

    def verified(self, row: Row) -> list[int]:
        """Mark an update and all it rests on as rebuilt by the centre, and free their bytes; return the news."""
        return self._mark("verified", [r for r in [row, *self._ancestors(row)] if r["state"] in LIVE])

    def refuse(self, row: Row, reason: str) -> list[int]:
        """Mark an update and all that rests on it as refused, and free their bytes; return the news.

        Nothing happens when it was refused already, or when the centre has verified it. What the centre says of the others, if it has
        them at all, is still to come.
        """
        if row["state"] not in LIVE:
            return []
        others, edge = list[Row](), [row]
        while edge:
            edge = [d for r in edge for d in self._children(r) if d["state"] in LIVE]
            others += edge
        why = f"given up with @{row['version']}, which was refused: {reason}"
        return sorted(self._mark("refused", [row], reason) + self._mark("refused", others, why))

    def unreceipted_parent(self, row: Row) -> bytes:
        """Return the commit that an update rests on where the centre has said nothing of it yet; empty where it has."""
        parent = self._db.maybe("SELECT * FROM version WHERE model=? AND commit_id=? AND epoch=?", self.model, row["parent"], row["epoch"])
        return bytes(parent["commit_id"]) if parent is not None and parent["state"] in UNRECEIPTED else b""

    def drop_all(self, above: int, reason: str) -> list[int]:
        """Mark everything above version `above` as lost, whatever was said of it: the centre does not hold it any more."""
        condition = "model=? AND version>? AND state IN ('queued','offered','stored','verified')"
        rows = self._db.all(f"SELECT * FROM version WHERE {condition}", self.model, above)
        self._db.run(f"UPDATE version SET held=state WHERE {condition} AND state IN ('stored','verified')", self.model, above)
        return self._mark("lost", rows, reason)

    def drop_open(self, reason: str) -> list[int]:
        """Mark everything that the centre has not verified as lost, and free its bytes; return the news."""
        rows = self._db.all("SELECT * FROM version WHERE model=? AND state IN ('queued','offered','stored')", self.model)
        self._db.run("UPDATE version SET held=state WHERE model=? AND state='stored'", self.model)
        return self._mark("lost", rows, reason)

    def offer_again(self, versions: Iterable[int]) -> None:
        """Take `stored` back: the centre does not hold these any more, and their bytes are still here."""
        for version in versions:
            self._db.run("UPDATE version SET state='offered' WHERE model=? AND version=? AND state='stored'", self.model, version)

    def carry(self, skipped: Iterable[int], by: int) -> None:
        """Mark queued updates as carried by another one, and free their bytes."""
        for version in skipped:
            self._free(version)
            self._db.run("UPDATE version SET state='skipped', carried_by=? WHERE model=? AND version=?", by, self.model, version)

    def replace(self, version: int, body: bytes, **columns: Any) -> None:
        """Put other bytes in the place of a queued update's."""
        self._db.run("UPDATE outbox SET body=?, size=? WHERE model=? AND version=?", body, len(body), self.model, version)
        assignments = ", ".join(f"{name}=?" for name in columns)
        self._db.run(f"UPDATE version SET {assignments} WHERE model=? AND version=?", *columns.values(), self.model, version)

    def note(self, version: int, text: str) -> None:
        """Write beside an update what the log should say of it."""
        self._db.run("UPDATE version SET reason=? WHERE model=? AND version=?", text, self.model, version)

    def _mark(self, state: str, rows: Iterable[Row], reason: str = "") -> list[int]:
        news = sorted({int(r["version"]) for r in rows})
        for version in news:
            if state in ("verified", "refused", "lost"):
                self._free(version)
            self._db.run(
                "UPDATE version SET state=?, reason=coalesce(nullif(?, ''), reason) WHERE model=? AND version=?",
                state, reason, self.model, version,
            )  # fmt: skip
        return news

    def _free(self, version: int) -> None:
        self._db.run("DELETE FROM outbox WHERE model=? AND version=?", self.model, version)

    def _ancestors(self, row: Row) -> list[Row]:
        """Return what `row` rests on, as long as its bytes are here: further back everything is verified."""
        out: list[Row] = []
        while True:
            parent = self._db.maybe(
                "SELECT * FROM version WHERE model=? AND commit_id=? AND version<?", self.model, row["parent"], row["version"]
            )
            if parent is None or parent["state"] not in LIVE:
                return out
            out.append(parent)
            row = parent

    def _children(self, row: Row) -> list[Row]:
        return self._db.all("SELECT * FROM version WHERE model=? AND parent=? AND version>?", self.model, row["commit_id"], row["version"])
