"""The version numbers of one model of whose standing this board has no last word: what it asks the centre, and what the answers settle.

A refused or lost version is *sure* once the centre has said so in answer to a hello that asked. Until then the board has concluded it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgecommon.sqlite import Database, Row
from modelwire.wire import cbor, numbers
from modelwire.wire.records import Level, Receipt

ASKED_AT_ONCE = 256  # numbers in one hello; the rest is asked for when these are settled
CONCLUDED = ("refused", "lost")


class Doubts:
    """What one model's rows leave open."""

    def __init__(self, database: Database, model: str) -> None:
        self._db, self._model = database, model

    def any(self) -> bool:
        """Return whether there is a version that was stored or given up, and of which the centre has still to say the last word."""
        open_one = "SELECT 1 FROM version WHERE model=? AND (state='stored' OR (state IN ('refused', 'lost') AND sure=0)) LIMIT 1"
        return self._db.maybe(open_one, self._model) is not None

    def said(self) -> dict[str, cbor.Value]:
        """Return what a hello says of them in `more`; nothing when there are none."""
        lost = self._numbers("state='lost' AND sure=0 AND held<>''")
        dropped = self._numbers("(state='refused' OR (state='lost' AND held='')) AND sure=0")
        unsure = self._numbers("state IN ('offered', 'stored')")
        out: dict[str, cbor.Value] = {}
        for key, pairs in ((numbers.LOST, lost), (numbers.DROPPED, dropped), (numbers.UNSURE, unsure)):
            out |= numbers.said(key, numbers.spans(pairs))
        return out

    def settle(self, row: Row, receipt: Receipt) -> bool:
        """Take the centre's answer about a version that this board had concluded upon; return whether that is news.

        For an answer to a hello that asked, and for no other: what was said earlier may be true no more.
        """
        if row["state"] not in CONCLUDED or receipt.level is Level.STORED:  # its last word is still to come
            return False
        after = receipt.level.value, receipt.reason
        self._db.run(
            "UPDATE version SET state=?, reason=?, sure=?, held='' WHERE model=? AND version=?",
            *after, int(receipt.level is Level.REFUSED), self._model, row["version"],
        )  # fmt: skip
        return (row["state"], row["reason"]) != after

    def off_chain(self, verified: Iterable[int]) -> list[int]:
        """Doubt what can't stand beside versions that were just verified, and return it: it counts as lost until the centre answers.

        The centre's versions are one chain with rising numbers. So between a version and its parent it holds nothing of this epoch.
        """
        out = []
        for version in verified:
            rows = self._db.all(
                "SELECT b.version FROM version v JOIN version b ON b.model=v.model AND b.epoch=v.epoch AND b.version<v.version"
                " WHERE v.model=? AND v.version=? AND b.state IN ('stored', 'verified')"
                " AND b.version > coalesce((SELECT p.version FROM version p WHERE p.model=v.model AND p.commit_id=v.parent),"
                " CASE WHEN EXISTS (SELECT 1 FROM model WHERE name=v.model AND v.parent IN (base_commit, first_commit)) THEN 0 END)",
                self._model, version,
            )  # fmt: skip
            out += [int(row["version"]) for row in rows]
        for version in out:
            self._db.run(
                "UPDATE version SET held=state, state='lost', sure=0, reason=? WHERE model=? AND version=?",
                "the centre goes on without it", self._model, version,
            )  # fmt: skip
            self._db.run("DELETE FROM outbox WHERE model=? AND version=?", self._model, version)
        return sorted(set(out))

    def replaced(self, receipt: Receipt) -> bool:
        """Take an answer about another update under a number that was given up here; return whether there is such a number."""
        changed = self._db.run(
            "UPDATE version SET state='lost', sure=1, reason=? WHERE model=? AND epoch=? AND version=? AND commit_id<>?"
            " AND state IN ('refused', 'lost') AND sure=0",
            f"the centre holds another update as @{receipt.version}", self._model, receipt.epoch, receipt.version, receipt.commit,
        )  # fmt: skip
        return changed > 0

    def missing(self, more: Mapping[str, cbor.Value]) -> list[int]:
        """Take from an answer which of the numbers that were given up the centre holds nothing of; return the news."""
        out = []
        for span in numbers.read(more, numbers.MISSING):
            rows = self._db.all(
                "SELECT version FROM version WHERE model=? AND epoch=? AND version BETWEEN ? AND ?"
                " AND state IN ('refused', 'lost') AND sure=0 ORDER BY version",
                self._model, span.epoch, span.first, span.last,
            )  # fmt: skip
            out += [int(row["version"]) for row in rows]
        for version in out:
            self._db.run("UPDATE version SET state='lost', sure=1 WHERE model=? AND version=?", self._model, version)
        return out

    def reopen(self, up_to: int | None = None) -> None:
        """Ask again about all that was given up, or all of it up to a version: the centre is another one than it was."""
        self._db.run(
            "UPDATE version SET sure=0 WHERE model=? AND state IN ('refused', 'lost') AND sure=1 AND version<=?",
            self._model, 1 << 62 if up_to is None else up_to,
        )  # fmt: skip

    def lost(self, *, confirmed: bool = False) -> list[int]:
        """Return the versions that are lost. confirmed: those alone of which the centre had once said that it holds them."""
        condition = "state='lost' AND held<>''" if confirmed else "state='lost'"
        return [version for _, version in self._numbers(condition, limit=-1)]

    def _numbers(self, condition: str, limit: int = ASKED_AT_ONCE) -> Iterable[tuple[int, int]]:
        rows = self._db.all(
            f"SELECT epoch, version FROM version WHERE model=? AND version IS NOT NULL AND {condition} ORDER BY version LIMIT ?",
            self._model, limit,
        )  # fmt: skip
        return [(int(row["epoch"]), int(row["version"])) for row in rows]
