"""The registry's log: what was decided, entry after entry, each linked to all before it; the ingester's key signs where it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from edgecloud.registry.rows import LogEntry, SignedEnd
from edgecloud.registry.seams.trust import OwnEntry, RecentEntries
from edgecommon.sqlite import Database
from modelwire.errors import RegistryDamaged
from modelwire.wire import cbor
from modelwire.wire.log import Link, next_link

from .tallies import CLAIM

AT_ONCE = 10_000  # entries that are read together


class SqliteLog:
    """Implements Log."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock
        self.appended: set[bytes] = set()  # links of entries that this connection has made since the end was signed
        self.remembered = RecentEntries()
        self._last: Link | None = None  # the entry that this connection made last, as long as the same transaction goes on
        self._era = -1

    def append(self, kind: str, subject: bytes = b"", **content: cbor.Value) -> int:
        at = int(self._clock())
        entry = cbor.encode({"kind": kind, "at": at, **content})
        with self._database.joined():  # nobody links to the same end meanwhile
            link = next_link(self._last if self._era == self._database.era else self.end(), entry)
            self._database.run("INSERT INTO log VALUES (?, ?, ?, ?)", link.number, subject, entry, link.digest)
            self._last, self._era = link, self._database.era
        self.appended.add(link.digest)
        self.remembered.keep(link.digest, OwnEntry(kind, at, subject, entry))
        return link.number

    def end(self) -> Link | None:
        row = self._database.maybe("SELECT number, link FROM log ORDER BY number DESC LIMIT 1")
        return None if row is None else Link(int(row[0]), bytes(row[1]))

    def link(self, number: int) -> bytes | None:
        row = self._database.maybe("SELECT link FROM log WHERE number = ?", number)
        return None if row is None else bytes(row[0])

    def after(self, number: int) -> Iterator[LogEntry]:
        while rows := self._database.all(
            "SELECT number, subject, entry, link FROM log WHERE number > ? ORDER BY number LIMIT ?", number, AT_ONCE
        ):
            for row in rows:
                yield LogEntry(*row)
            number = rows[-1][0]

    def about_none(self) -> Iterator[LogEntry]:
        for row in self._database.all("SELECT number, subject, entry, link FROM log WHERE subject = x'' ORDER BY number"):
            yield LogEntry(*row)

    def has_claims(self) -> bool:
        wanted = f"SELECT 1 FROM log INDEXED BY log_claims WHERE instr(entry, x'{CLAIM.hex()}') > 0 LIMIT 1"
        return self._database.maybe(wanted) is not None

    def about(self, subject: bytes) -> Iterator[LogEntry]:
        for row in self._database.all("SELECT number, subject, entry, link FROM log WHERE subject = ? ORDER BY number", subject):
            yield LogEntry(*row)

    def place(self, subject: bytes) -> int:
        return self._database.number("SELECT coalesce(max(number), 0) FROM log WHERE subject = ?", subject)

    def signed(self) -> SignedEnd | None:
        row = self._database.maybe("SELECT number, link, signature FROM log_end")
        if row is None:
            return None
        if not (type(row[0]) is int and isinstance(row[1], bytes) and isinstance(row[2], bytes)):
            raise RegistryDamaged(path=self._database.path, reason="the signed end of its log is no signature: another program wrote it")
        return SignedEnd(*row)

    def sign(self, end: SignedEnd) -> None:
        self._database.run(
            "INSERT INTO log_end VALUES (1, ?, ?, ?)"
            " ON CONFLICT (one) DO UPDATE SET number = excluded.number, link = excluded.link, signature = excluded.signature",
            end.number, end.link, end.signature,
        )  # fmt: skip
        self.appended.clear()
