"""The director as a process: steps again and again, notes that it looks, says what it did. It holds the director's key, and no broker."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecloud import keys
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.registry.lock import lock_director, share_registry
from edgecloud.registry.rollout_rows import DRAFT
from edgecommon.systemd import Systemd
from modelwire.errors import DiskUnwritable, ModelWireError, RetiredKey, StateBusy
from modelwire.wire.keys import fingerprint
from modelwire.wire.signing import Role, Signer
from modelwire.wire.trust import Trusted

from .stepping import StepDone, Stepper

log = logging.getLogger("edgecloud.director")
FIGURE = "director"  # among what was measured of a registry: when it looked last, for who wants to know whether one runs
NOTED = 15  # seconds between two such notes
ONCE = 10_000  # steps of one run that ends by itself
ALIVE = 1.0  # seconds between two looks at whether it is to stop


class RolloutDirector:
    """Directs the rollouts of one registry. clock: Unix seconds."""

    def __init__(
        self, path: Path, key: Signer, *, read_key: Callable[[], Signer] | None = None, every: float = 5.0,
        systemd: Systemd | None = None, clock: Callable[[], float] = time.time, synchronous: str = "FULL",
    ) -> None:  # fmt: skip
        """read_key: reads the key's file again, when a newer trust record names another key than this one."""
        self._path, self._key, self._read_key = path.resolve(), key, read_key
        self._every, self._clock, self._synchronous = every, clock, synchronous
        self._systemd = Systemd({}) if systemd is None else systemd
        self._stop = threading.Event()
        self._stepper: Stepper | None = None
        self._noted, self._known = 0, frozenset[str]()
        self.total = StepDone()

    def stop(self) -> None:
        """End after the step that is under way. Called from any thread, or by a signal."""
        self._stop.set()

    def run(self, *, once: bool = False) -> StepDone:
        """Step until stopped; or with `once` until a step finds nothing to do, and return all that was done.

        Raises StateBusy when another director is at this registry, RetiredKey or BadArgument when the trust record names another key.
        """
        with lock_director(self._path):
            if not once:
                log.info("directs the rollouts in %s, and looks every %g s", self._path, self._every)
            try:
                for _ in range(ONCE if once else 1 << 62):
                    done = self._look(once)
                    if self._stop.is_set() or (once and not done):
                        break
                    if not once and not done.unfinished:
                        self._rest()
            finally:
                self._systemd.stopping()
        return self.total

    def _look(self, once: bool) -> StepDone:
        """Step once. A registry or a disk that can't be had now is tried again, unless it runs once."""
        try:
            with self._opened() as stepper:
                now = int(self._clock())
                done = self._stepped(stepper, now)
                self._note(stepper.store, now, done)
        except (StateBusy, DiskUnwritable) as error:
            if once:
                raise
            log.warning("waits: %s", error.message)
            self._systemd.starting(f"waits: {error.message}")
            return StepDone()
        self._tell(done)
        self._systemd.ready()
        self._systemd.alive()
        return done

    def _stepped(self, stepper: Stepper, now: int) -> StepDone:
        held = keys.trusted(stepper.store.identity, [row.record for row in stepper.store.trusts.all()])
        if self._key.public not in keys.named(held, Role.DIRECTOR):
            self._take_newer(held)
        if self._key.public not in held.keys(Role.DIRECTOR, now):
            if any(one is not None and self._key.public in one.director for one in (held.newest, held.before)):
                raise RetiredKey(what="the director's key", fingerprint=fingerprint(self._key.public), number=held.number)
            keys.require_speaks(self._key, Role.DIRECTOR, held, "the private key")
        stepper.key = self._key
        return stepper.step(now)

    def _take_newer(self, held: Trusted) -> None:
        """Take the key that the newest trust record names, where its file holds it by now."""
        try:
            found = self._read_key() if self._read_key is not None else None
        except ModelWireError as error:  # it may be about to be replaced
            log.debug("%s", error)
            return
        if found is not None and found.public in keys.named(held, Role.DIRECTOR):
            log.info("sealing with the director key %s of trust record %d from now on", fingerprint(found.public), held.number)
            self._key = found

    @contextmanager
    def _opened(self) -> Iterator[Stepper]:
        """Give the stepper on the registry that has its name now: a restore may have put another file there."""
        with share_registry(self._path):
            store = open_registry(self._path, synchronous=self._synchronous)
            try:
                if self._stepper is None:
                    self._stepper = Stepper(store, self._key)
                self._stepper.on(store)
                yield self._stepper
            finally:
                store.close()  # left open, it would keep a restore from putting another file in the place

    def _note(self, store: SqliteStore, now: int, done: StepDone) -> None:
        """Note that it looks, for who asks whether a director runs."""
        if abs(now - self._noted) >= NOTED or done:
            store.tallies.set_measured(FIGURE, "looked", now)
            self._noted = now
        rows = [row for row in store.rollouts.all(ended=False) if row.state != DRAFT]
        self._systemd.status(", ".join(f"{row.name} {row.state} phase {row.phase + 1}" for row in rows[:8]) or "no rollout is under way")

    def _tell(self, done: StepDone) -> None:
        total = self.total
        for line in done.lines:
            log.info("%s", line)
        counts = {"taken in": done.assigned, "offered a variant": done.offered, "sent back or told to stay": done.taken_back}
        if any(counts.values()):
            log.info("devices: %s", ", ".join(f"{n} {what}" for what, n in counts.items() if n))
        for note in dict.fromkeys(done.notes):
            if note not in self._known:
                log.warning("%s", note)
                total.notes.append(note)
        self._known = frozenset(done.notes)
        total.lines += done.lines
        total.offered, total.taken_back, total.assigned = (
            total.offered + done.offered, total.taken_back + done.taken_back, total.assigned + done.assigned,
        )  # fmt: skip
        del total.lines[:-1000], total.notes[:-1000]

    def _rest(self) -> None:
        end = time.monotonic() + self._every
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            self._systemd.alive()
            self._stop.wait(min(ALIVE, left))
        self._systemd.alive()
