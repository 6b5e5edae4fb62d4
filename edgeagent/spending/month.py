"""Bytes over the link in a month, held against a limit: written down before they leave, over restarts and clocks that are set.

A month ends when the board's clock says a later one. A clock that says an earlier one ends nothing, until the agent has run for a whole
month: then the clock was ahead before, and the month begins anew by what it says now. Where the centre's signed word bears the clock out,
the month is set right at once, and keeps its bytes: a board that runs for a minute a day would wait for years.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError, MonthSpent

MQTT = 16  # bytes of a PUBLISH and its PUBACK around topic and message: 5 + 2 + 2 + 1, and 4, at most
PACKET, SEGMENT = 40, 1360  # bytes of the headers of TCP and IP; bytes of a message in one packet
PING = 4 + 4 * PACKET  # bytes, both ways: PINGREQ, PINGRESP and their acknowledgements
CONNECTING, TLS = 600, 4600  # bytes of TCP's and MQTT's beginning, both ways; of a TLS handshake with two certificates
LEASE, LEASE_FREE = 4096, 65_536  # bytes that are set apart at once, with a limit and without one: each time takes a write to the disk
ALLOWANCE_LEAST, ALLOWANCE_SHARE = 65_536, 16  # bytes beyond the limit, or a 16th of it, for hellos, answers and receipts
LONGEST = 31 * 86_400.0  # seconds of running after which a month is over whatever the clock says
HELLO = 2048  # bytes that a hello takes, at most
KEPT = 13  # months
RAN = 6 * 3600.0  # seconds of running that a kill may forget: each note of them is a write


def cost(topic: int, message: int) -> int:
    """Return the bytes that a message takes on the link, with MQTT, TCP and IP around it and its acknowledgement. Both in bytes.

    An estimate: TLS adds 29 bytes a record, and what is lost and sent again by TCP nobody here sees.
    """
    whole = topic + message + MQTT
    return whole + 2 * PACKET * (1 + whole // SEGMENT)


@dataclass(frozen=True, slots=True)
class MonthBytes:
    """One month, as far as it is counted."""

    month: int  # 12 * year + month - 1
    sent: int
    received: int

    @property
    def total(self) -> int:
        return self.sent + self.received

    def __str__(self) -> str:
        return f"{self.month // 12:04}-{self.month % 12 + 1:02}"


class Month:
    """The month that is counted now."""

    def __init__(self, database: Database, limit: int) -> None:
        """limit: bytes a month, both ways; 0: none. Nothing is counted before `begin`."""
        self._db, self.limit = database, limit
        self._held = self._used_in = 0  # bytes set apart in the database and not used; bytes that came and are not written down
        self._ran = self._ran_before = self._looked = 0.0  # seconds: since they were written down; written down; monotonic
        self.now = MonthBytes(0, 0, 0)
        self._begun = False

    @classmethod
    def read(cls, database: Database, limit: int, wall: float) -> Month:
        """Return the month as it stands in the database, for who looks on. wall: Unix seconds."""
        made = cls(database, limit)
        made.now = next(iter(months(database, 1)), MonthBytes(month_of(wall), 0, 0))
        if month_of(wall) > made.now.month:  # the agent begins it when it runs
            made.now = MonthBytes(month_of(wall), 0, 0)
        return made

    def begin(self, wall: float, now: float) -> None:
        """Count from now on. wall: Unix seconds; now: monotonic seconds."""
        self._begun, self._looked = True, now
        rows = months(self._db, 1)
        self.now = rows[0] if rows else MonthBytes(month_of(wall), 0, 0)
        self._ran_before = float(self._db.one("SELECT coalesce(max(ran), 0) FROM month WHERE number=(SELECT max(number) FROM month)")[0])
        with suppress(ModelWireError):
            self.look(wall, now, write=True)

    def look(self, wall: float, now: float, *, write: bool = False) -> None:
        """Let the month end when it is over. Raises DiskUnwritable."""
        self._ran, self._looked = self._ran + max(0.0, now - self._looked), now
        month, ran = month_of(wall), self._ran_before + self._ran
        over = month > self.now.month or (month < self.now.month and ran >= LONGEST)
        if not (over or write or self._ran >= RAN):
            return
        with self._db.transaction():
            number = self._row()
            self._db.run("UPDATE month SET sent=?, received=?, ran=? WHERE number=?", self.now.sent, self.now.received, ran, number)
            if over:
                self._db.insert("month", number=number + 1, month=month)
                self._db.run("DELETE FROM month WHERE number <= ?", number + 1 - KEPT)
        self._held = self._used_in = 0
        self._ran, self._ran_before = 0.0, 0.0 if over else ran
        if over:
            self.now = MonthBytes(month, 0, 0)

    def set_right(self, wall: float) -> None:
        """Let the month be that of a clock which the centre bears out, where one that was ahead has begun a later one.

        It keeps its bytes, and takes those back that were counted in that month before: nothing is given twice. Raises DiskUnwritable.
        """
        month = month_of(wall)
        if not self._begun or month >= self.now.month:
            return
        with self._db.transaction():
            number, ran = self._row(), self._ran_before + self._ran
            row = self._db.one(
                "SELECT coalesce(sum(sent), 0) s, coalesce(sum(received), 0) r FROM month WHERE month=? AND number<?", month, number
            )
            now = MonthBytes(month, self.now.sent + int(row["s"]), self.now.received + int(row["r"]))
            self._db.run("DELETE FROM month WHERE month=? AND number<?", month, number)
            self._db.run(
                "UPDATE month SET month=?, sent=?, received=?, ran=? WHERE number=?", month, now.sent, now.received, ran, number
            )
        self.now, self._held, self._used_in = now, 0, 0
        self._ran, self._ran_before = 0.0, ran

    def _row(self) -> int:
        row = self._db.maybe("SELECT max(number) FROM month")
        if row is not None and row[0] is not None:
            return int(row[0])
        return self._db.insert("month", number=1, month=self.now.month)

    # What is left.

    @property
    def left(self) -> int | None:
        """Bytes that updates may still take this month; None without a limit."""
        return max(0, self.limit - self.now.total) if self.limit else None

    def admits(self, size: int) -> bool:
        """Return whether an update of this many bytes, all that is around it included, may leave this month."""
        return not self.limit or self.now.total + size <= self.limit

    def answers(self, size: int) -> bool:
        """Return whether a hello or an answer may leave: a little beyond the limit, so that the centre hears and is heard."""
        return not self.limit or self.now.total + size <= self.limit + allowance(self.limit)

    @property
    def silent(self) -> bool:
        """Whether not even a hello may leave any more."""
        return not self.answers(HELLO)

    def error(self, size: int) -> MonthSpent:
        """Return the error of an update of so many bytes that may not leave."""
        wait = "wait for the next month, or raise link.monthly_bytes"
        if size > self.limit:  # to wait is no help
            wait = f"no month takes it: raise link.monthly_bytes above {size}"
        fix = f"{wait}; edgeagent status says what is left"
        return MonthSpent(spent=self.now.total, limit=self.limit, month=str(self.now), size=size, fix=fix)

    # What goes.

    @contextmanager
    def setting_apart(self, size: int) -> Iterator[None]:
        """Write down that so many bytes will leave, in one transaction with what the block writes."""
        with self._db.transaction():
            yield
            self._add(size)
        self._held += size

    def sends(self, size: int) -> None:
        """Count bytes that are about to leave: they are on the disk before, unless it takes nothing."""
        self.now = MonthBytes(self.now.month, self.now.sent + size, self.now.received)
        self._held -= size
        if self._held < 0 and self._begun:
            more = -self._held + (LEASE if self.limit else LEASE_FREE)
            with suppress(ModelWireError):
                self._add(more)
                self._held += more

    def receives(self, size: int) -> None:
        """Count bytes that came."""
        self.now = MonthBytes(self.now.month, self.now.sent, self.now.received + size)
        self._used_in += size
        if self._used_in >= (LEASE if self.limit else LEASE_FREE) and self._begun:
            with suppress(ModelWireError):
                self._db.run("UPDATE month SET received=? WHERE number=(SELECT max(number) FROM month)", self.now.received)
                self._used_in = 0

    def _add(self, size: int) -> None:
        self._db.run("UPDATE month SET sent=sent+? WHERE number=(SELECT max(number) FROM month)", size)

    def close(self, wall: float, now: float) -> None:
        """Write down what was used, and give back what was set apart and was not."""
        if self._begun:
            with suppress(ModelWireError):
                self.look(wall, now, write=True)


def allowance(limit: int) -> int:
    """Return the bytes beyond a limit that hellos, answers and receipts may take."""
    return max(ALLOWANCE_LEAST, limit // ALLOWANCE_SHARE)


def month_of(wall: float) -> int:
    """Return the month of a time, in Unix seconds, as 12 * year + month - 1 in UTC; of a time beyond all calendars, the first."""
    try:
        said = time.gmtime(max(0.0, wall))
    except (OverflowError, ValueError, OSError):
        return 12 * 1970
    return 12 * said.tm_year + said.tm_mon - 1


def months(database: Database, most: int = KEPT) -> list[MonthBytes]:
    """Return the months that were counted, the newest first."""
    rows = database.all("SELECT month, sent, received FROM month ORDER BY number DESC LIMIT ?", most)
    return [MonthBytes(int(r["month"]), max(0, int(r["sent"])), max(0, int(r["received"]))) for r in rows]
