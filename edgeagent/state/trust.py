"""Whom the device believes: the trust records that it holds, the centre's newest time, and the newest end of the centre's log."""

from __future__ import annotations

from edgecommon.sqlite import Database
from modelwire.errors import ConfigError, WireError, WrongFleet
from modelwire.wire import log, records
from modelwire.wire.records import Signed, Trust, expect
from modelwire.wire.signing import Fleet
from modelwire.wire.trust import Trusted

SAME_FLEET = "give this board the fleet.pub of its own centre: edgecloud trust show tells its id"
KEPT = 2  # records: the keys of the one before the newest are good for a while


class TrustStore:
    """What a state folder keeps of whom to believe."""

    def __init__(self, database: Database, fleet: Fleet) -> None:
        """Raises ConfigError when the records that are here are of another fleet."""
        self._db = database
        rows = [row["record"] for row in database.all("SELECT record FROM trust ORDER BY number DESC LIMIT ?", KEPT)]
        signed = [records.parse(row) for row in rows]  # each was proven when it came
        if any(one.fleet != fleet.id for one in signed):
            raise ConfigError(reason=f"{database.path.parent} is of another fleet than the fleet's public key: put back the one of init")
        newest, before = (*(expect(one, Trust) for one in signed), None, None)[:KEPT]
        self.held = Trusted(fleet, newest, before)
        self._foreign = self.foreign

    @property
    def time(self) -> int:
        """The newest Unix seconds of the centre's clock that a welcome said; 0 before the first."""
        return self._db.number("SELECT value FROM meta WHERE key='time'")

    @property
    def link(self) -> log.Link | None:
        """The newest end of the centre's log that a welcome said; None before the first, or where it keeps none."""
        data = self._db.one("SELECT value FROM meta WHERE key='log'")[0]
        return log.parse_link(data) if data else None

    def verify(self, signed: Signed) -> None:
        """Raise WrongFleet or BadSignature unless a key that speaks for the centre in this role has signed it."""
        self.held.verify(signed, self.time)
        if self._foreign:
            self._set_foreign(b"")

    @property
    def foreign(self) -> bytes:
        """The id of another fleet whose centre speaks to this board, and ours has not spoken since; empty when none does."""
        row = self._db.maybe("SELECT value FROM meta WHERE key='foreign'")
        return bytes(row[0]) if row is not None else b""

    @property
    def foreign_said(self) -> str:
        """What a person reads of it."""
        foreign, ours = self.foreign, self.held.fleet.id.hex()
        if not foreign:
            return ""
        if self.held.number:
            return f"another fleet of this name, with the id {foreign.hex()}, speaks to this board; its own has the id {ours}"
        return f"fleet.pub is of the fleet with the id {ours}, and the centre that answers here is of the fleet with the id {foreign.hex()}"

    def hear_foreign(self, refused: WireError) -> str:
        """Note that a record was refused because it is of another fleet. Returns what to say of that, once; else nothing."""
        foreign = bytes.fromhex(str(refused.facts["got"])) if isinstance(refused, WrongFleet) else b""
        if foreign == self._foreign or not foreign:
            return ""
        self._set_foreign(foreign)
        return f"{self.foreign_said}; {SAME_FLEET}"

    def _set_foreign(self, foreign: bytes) -> None:
        self._db.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('foreign', ?)", foreign)
        self._foreign = foreign

    def take(self, signed: Signed, data: bytes) -> bool:
        """Take a trust record, and return whether it is news; `data` is what it was parsed from. Raises WireError for one that can't hold.

        A number that is held, or was, is not looked at: the centre says its record again at each hello.
        """
        record = expect(signed, Trust)
        if record.number <= self.held.number and signed.fleet == self.held.fleet.id:
            return False
        held = self.held.take(signed)
        with self._db.transaction():
            self._db.insert("trust", number=record.number, record=data)
            self._db.run("DELETE FROM trust WHERE number NOT IN (SELECT number FROM trust ORDER BY number DESC LIMIT ?)", KEPT)
        self.held = held
        return True

    @property
    def fork(self) -> tuple[log.Link, log.Link] | None:
        """The newest link at which the centre's log was found to be another than before: as it was known, and as it was said then."""
        row = self._db.maybe("SELECT value FROM meta WHERE key='fork'")
        data = bytes(row[0]) if row is not None else b""
        return (log.parse_link(data[: log.BYTES]), log.parse_link(data[log.BYTES :])) if data else None

    @property
    def fork_said(self) -> str:
        """What a person reads of it; empty when the log only ever grew."""
        if self.fork is None:
            return ""
        known, other = self.fork
        what = "has another entry" if known.number == other.number else f"went back from entry {known.number} to"
        return f"the centre's log {what} {other.number}: ask the operator whether it was restored"

    def saw(self, time: int, end: bytes, *, since: int | None = None) -> str:
        """Note what a welcome says: the centre's time, and the end of its log, or nothing. Neither goes back. Raises Malformed.

        since: the number of the newest link that was known when the hello was said that this answers; None when it answers none.
        Returns what is odd about that log, once; empty when nothing is. Nothing is decided by it.
        """
        link, known = log.parse_link(end) if end else None, self.link
        with self._db.transaction():
            self._db.run("UPDATE meta SET value=max(value, ?) WHERE key='time'", time)
            if link is None or link == known:
                return ""
            if known is None or link.number > known.number:
                self._db.run("UPDATE meta SET value=? WHERE key='log'", end)
                return ""
            # A lower number alone may be a word from before; in answer to who knew a higher one, the log went back.
            went_back = link.number == known.number or (since is not None and link.number < since)
            if not went_back or (self.fork is not None and self.fork[0] == known):
                return ""
            self._db.run("UPDATE meta SET value=? WHERE key='fork'", known.encode() + link.encode())
        return self.fork_said
