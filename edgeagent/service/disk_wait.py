"""The agent while its disk takes nothing more: it says so once, keeps its link, and goes on with what it had in hand when there is room."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgeagent.link.transport import Arrived
from edgeagent.system.clock import Clock
from edgeagent.system.notice import Notice
from edgeagent.troubles import naming
from edgecommon import disk, files
from modelwire.errors import DiskUnwritable

FIRST, LONGEST = 1.0, 15.0  # seconds between two looks whether there is room
CALM = 60.0  # seconds without trouble after which it is news again
HELD_MOST, HELD_BYTES = 64, 4 << 20  # messages that wait for room; the broker keeps back what is not acknowledged
_log = logging.getLogger("edgeagent")


class DiskWait:
    """Whether this agent waits for its disk, and the messages that it could not take meanwhile: none of them is acknowledged."""

    def __init__(
        self, clock: Clock, *, in_order: Callable[[], None] = lambda: None, make_room: Callable[[], None] = lambda: None
    ) -> None:
        """in_order: makes good what was begun when the disk gave out; called before anything else is written.

        make_room: gives back what the agent itself can spare.
        """
        self.trouble: DiskUnwritable | None = None
        self.patient = True  # False: the trouble ends what was begun
        self.held: deque[Arrived] = deque()
        self._clock, self._in_order, self._make_room, self._notice = clock, in_order, make_room, Notice()
        self._due = 0.0
        self._pause = FIRST
        self._tried: float | None = None  # monotonic seconds of the last time that it went on
        self._again = False  # what was tried again found no room

    @property
    def waits(self) -> bool:
        return self.trouble is not None

    @property
    def holds_enough(self) -> bool:
        """Whether no more messages should be looked for: they would only fill the memory."""
        return len(self.held) >= HELD_MOST or sum(len(m.data) for m in self.held) >= HELD_BYTES

    @contextmanager
    def minded(self) -> Iterator[None]:
        """Wait from now on when the disk takes nothing more that the block writes; for one who is not patient it is an error."""
        try:
            yield
        except (DiskUnwritable, OSError) as e:
            found = e if isinstance(e, DiskUnwritable) else disk.unwritable(e)
            if found is None or not self.patient:
                raise
            self.begin(found)

    def over(self) -> bool:
        """Look, when it is time to, whether there is room again; return whether nothing is waited for. Raises DiskUnwritable."""
        now = self._clock.monotonic()
        if self.trouble is None:
            if self._again and self._tried is not None and now - self._tried >= CALM:
                self._again = False
                _log.info("there is room on the disk again: going on")
            return True
        if now < self._due:
            return False
        self._make_room()
        if _refusal(self.trouble) is not None:
            self._pause = min(LONGEST, 2 * self._pause)
            self._due = now + self._pause
            return False
        self._tried, self._due = now, now + self._pause
        self._in_order()
        self.trouble = None
        self._notice.clear()
        _log.log(logging.DEBUG if self._again else logging.INFO, "there is room on the disk again: going on")
        return True

    def retake(self, read: Callable[[Arrived], None]) -> None:
        """Take the messages that waited, in their order, once there is room again."""
        while self.over() and self.held:
            read(self.held.popleft())

    def begin(self, error: DiskUnwritable) -> None:
        """Wait from now on, and say so where it is news; whoever waits already looks when it was to."""
        if self.trouble is not None:
            return
        now = self._clock.monotonic()
        self._again = self._tried is not None and now - self._tried < CALM
        # Where a try found room and the work did not, it wants more than is tried for.
        self._pause = min(LONGEST, 2 * self._pause) if self._again else FIRST
        self._due, self.trouble = now + self._pause, error
        said = _refusal(error) or error  # it knows how much is waited for
        what = {"trouble": naming.name_of(said), "message": said.message, "hint": said.next_step}
        self._notice.say({**what, "since": int(self._clock.wall())})
        level = logging.DEBUG if self._again else logging.WARNING
        _log.log(level, "%s; waiting for room: %s (trouble %s)", said.message, said.next_step, what["trouble"])


def wait_at_start(error: DiskUnwritable, lock: Path, clock: Clock, *, say: Callable[[str], None] = lambda text: None) -> None:
    """Return when the disk that kept an agent from starting takes writes again. lock: of the state folder; it is held meanwhile.

    say: is told again and again what is waited for.
    """
    waiting = DiskWait(clock)
    with ExitStack() as held:
        with suppress(DiskUnwritable, OSError):
            held.enter_context(files.locked(lock))
        waiting.begin(error)
        while not waiting.over():
            say(f"waits for room on its disk: {error.message}")
            clock.sleep(FIRST)


def _refusal(trouble: DiskUnwritable) -> DiskUnwritable | None:
    """Return what the disk says against twice what found no room: what was begun has more than one file to write."""
    needed = int(str(trouble.facts.get("needed", 0)))
    return disk.refusal(Path(str(trouble.facts["path"])), max(disk.TRIED, 2 * needed))
