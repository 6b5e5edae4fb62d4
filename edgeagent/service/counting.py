"""What a running agent keeps count of beside its work: the month's bytes, what is written to the disk, messages
that were let go unread, how far its clock is off, and in which boot the centre answered last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeagent.board.budget import TrainingWait
from edgeagent.link.unread import UnreadTally
from edgeagent.spending import flash
from edgeagent.spending.flash import FlashCount
from edgeagent.spending.month import Month
from edgeagent.state.folder import DeviceFolder
from edgeagent.system.clock import Clock
from edgeagent.troubles import naming
from edgeagent.troubles.table import trouble
from edgeagent.troubles.told import tell, told_by_system
from edgecommon import disk
from edgecommon.sqlite import Database
from modelwire.errors import DiskUnwritable, LinkError, ModelWireError

if TYPE_CHECKING:
    from edgeagent.link.session import Session

NEXT_DAY = "the next day (UTC), or a higher budget.flash_bytes_a_day"
EVERY = 5.0  # seconds between two looks: they read the database
TELL_EVERY = 60.0  # seconds between two hellos of nothing but a trouble: one may come and go
SMALLER = "board-smaller"
OFF = 86_400.0  # seconds from the centre's clock beyond which this board's is wrong
BOOT = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("edgeagent")


class BoardCounts:
    """The counts of one run."""

    def __init__(self, device: DeviceFolder, clock: Clock) -> None:
        self._device, self._clock = device, clock
        self.month = Month(device.database, device.settings.link.monthly_bytes)
        self._flash = _flash_count(device)
        self.unread = UnreadTally(device.database, clock.wall)
        self._due = 0.0
        self._heard: tuple[int, float] | None = None  # the centre's newest time, and monotonic seconds at which it was heard
        self._answered = ""  # the boot in which the centre answered, once it did in this run
        self._off: str | None = None  # what was said of the clock in this run; None before it was compared
        self._spent = self._wore = ""
        self._tell_again = self._look_again = 0.0
        self._disk = ""  # the trouble of the disk that was seen

    def begin(self) -> None:
        now = self._clock.monotonic()
        self.month.begin(self._clock.wall(), now)
        self._flash.begin(now)
        self._heard = (self._device.trust.time, -1.0)
        self._tell_budget()
        self._due = now

    def turn(self, sessions: Collection[Session], waits_for: DiskUnwritable | None = None) -> None:
        """Look, when it is time to. waits_for: the trouble of the disk that the agent waits for. Raises DiskUnwritable."""
        now = self._clock.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY
        self._tell_centre(sessions, waits_for, now)
        wall = self._clock.wall()
        if self._look_at_clock(wall, now):
            self.month.set_right(wall)
        self._look_for_answers(sessions)
        self._look_at_month(sessions)
        self.month.look(wall, now)
        self._flash.look(wall, now)

    def round_over(self) -> None:
        """Note what was written, where a limit stands on it: a kill would forget it. Best effort: the round is written down."""
        if any(m.budget.flash_bytes_a_day for m in self._device.settings.models):
            with suppress(ModelWireError):
                self._flash.look(self._clock.wall(), self._clock.monotonic(), at_once=True)

    def held(self, name: str, other: Callable[[], TrainingWait | None]) -> Callable[[], TrainingWait | None]:
        """Return what says why a model's rounds wait: for `other`, or since the day's bytes to the disk are spent. Nothing else waits."""
        limit = self._device.settings.model(name).budget.flash_bytes_a_day

        def why() -> TrainingWait | None:
            text = flash.spent(limit, self._flash.today(self._clock.wall())) if limit else ""
            if text and not self._wore:
                _log.warning("trouble flash-spent: %s; rounds wait for %s", text, NEXT_DAY)
            self._wore = text
            return TrainingWait(f"flash-spent: the day's {disk.said(limit)} of budget.flash_bytes_a_day", NEXT_DAY) if text else other()

        return why

    def close(self) -> None:
        wall, now = self._clock.wall(), self._clock.monotonic()
        self.unread.write()
        self.month.close(wall, now)
        self._flash.close(wall, now)

    def _tell_budget(self) -> None:
        """Say, and keep, that the board has less memory than its settings want of it."""
        text = self._device.lowered
        if text:
            _log.warning("trouble %s: %s: that is kept to", SMALLER, text)
        tell(self._device.database, SMALLER, text)

    def _look_at_clock(self, wall: float, now: float) -> bool:
        """Return whether the centre's signed word of this run bears the clock out; say once where it does not, or no more."""
        said = self._device.trust.time
        if self._heard is None or said != self._heard[0]:
            self._heard = (said, now)
        time, heard = self._heard
        if not time:
            return False
        # Of an earlier run nobody knows how long ago it was heard: then it says no more than that it is later than this.
        off = wall - time - (now - heard) if heard >= 0 else min(0.0, wall - time)
        if abs(off) > OFF:
            way = "behind" if off < 0 else "ahead of"
            if not self._off or way not in self._off:
                self._off = f"it is {abs(off) / 86_400:.0f} days {way} the centre's"
                _log.warning("trouble clock-off: %s; nothing is numbered by it; a round may come early or late", self._off)
                _keep(self._device.database, "clock", self._off)
            return False
        if heard < 0:  # it says nothing for this clock: what an earlier run found stands
            return False
        if self._off or (self._off is None and clock_off(self._device.database)):
            _log.info("the clock agrees with the centre's")
            _keep(self._device.database, "clock", "")
        self._off = ""
        return True

    def _tell_centre(self, sessions: Collection[Session], waits_for: DiskUnwritable | None, now: float) -> None:
        """Have a hello said where there is a trouble that the centre was not told of: the next one may be an hour off."""
        known = trouble(naming.name_of(waits_for) if waits_for is not None else self._look_at_disk(now))
        beside = {**told_by_system(), **({known.id: known.seen} if known is not None else {})}
        for session in sessions:
            session.agreement.beside = beside
        news = [session for session in sessions if session.welcomed and session.agreement.has_news()]
        if news and now >= self._tell_again:
            self._tell_again = now + TELL_EVERY
            for session in news:
                with suppress(LinkError):  # it goes with the next connection
                    session.say_hello(now)

    def _look_at_disk(self, now: float) -> str:
        """Return the trouble of the disk, by its id: one that has nothing to write learns of a full disk hours later else."""
        if now >= self._look_again:
            self._look_again = now + TELL_EVERY
            with suppress(OSError):
                system = disk.file_system_of(Path(self._device.database.path))
                found = "disk-read-only" if system.read_only else "disk-full" if system.full else ""
                if found and found != self._disk:
                    _log.warning("trouble %s: %s", found, system.told())
                self._disk = found
        return self._disk

    def _look_for_answers(self, sessions: Collection[Session]) -> None:
        """Keep the name of this boot once the centre has answered a hello of this run: a system on trial is called good by it."""
        if not self._answered and any(session.agreement.answered for session in sessions):
            self._answered = boot()
            _keep(self._device.database, "answered", self._answered)

    def _look_at_month(self, sessions: Collection[Session]) -> None:
        held = [error for session in sessions if (error := session.leaving.spent() or session.leaving.silenced()) is not None]
        text = held[0].message if held else ""
        if bool(text) != bool(self._spent):
            _log.log(logging.WARNING if text else logging.INFO, "%s", f"trouble month-spent: {text}" if text else "updates may leave again")
        self._spent = text


def _flash_count(device: DeviceFolder) -> FlashCount:
    databases = device.database, device.spool.database
    return FlashCount(device.database, lambda: sum(d.connection.total_changes for d in databases))


@contextmanager
def written_counted(device: DeviceFolder) -> Iterator[FlashCount]:
    """Count what the block writes to the disk, for who does an agent's work once."""
    count, clock = _flash_count(device), Clock()
    count.begin(clock.monotonic())
    try:
        yield count
    finally:
        count.close(clock.wall(), clock.monotonic())


def _keep(database: Database, key: str, text: str) -> None:
    with suppress(ModelWireError):  # for people: nothing stands on it
        database.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", key, text)


def boot() -> str:
    """Return the kernel's name for this boot, a UUID; "unknown" where it gives none."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return "unknown"


def answered_in(database: Database) -> str:
    """Return the boot in which the centre last answered a hello of this device; empty where it never did."""
    row = database.maybe("SELECT value FROM meta WHERE key='answered'")
    return str(row[0]) if row is not None else ""


def clock_off(database: Database) -> str:
    """Return how far the clock was off when an agent last compared it; empty where it agreed, or was never compared."""
    row = database.maybe("SELECT value FROM meta WHERE key='clock'")
    return str(row[0]) if row is not None else ""
