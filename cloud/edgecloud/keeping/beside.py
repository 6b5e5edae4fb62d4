"""What is done to the store beside the ingester, by a thread of low priority: never in the way of what devices send."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edgecloud.registry import SqliteStore
from edgecommon import disk
from modelwire.errors import DiskUnwritable, StateBusy

from .compacting import Compactor, compacting
from .measuring import measured

log = logging.getLogger("edgecloud.compactor")
NICE = 10
SHARE = 0.1  # of the time, at most, while messages come: the priority of a thread counts for nothing against the interpreter's lock
REST, IDLE = 1.0, 10  # seconds between two looks, and times as many when there was nothing to do for long
FULL = "%s; no state is kept until there is room, and none that is kept is lost: %s"


class StoreWork(Protocol):
    """Work on the store that can be cut anywhere: a bounded piece at a time."""

    def waiting(self) -> bool:
        """Return whether there may be work."""

    def run(self) -> object | None:
        """Do one piece and return what came of it; None when there is none, or when it was asked to stop."""


class KeepingThread:
    """The thread. `works`: makes what it is to do, in order, from its own store; the compactor is the first of it.

    busy: whether messages come, or wait for their proof: after each piece it then rests until the piece was a small share of the time.
    """

    def __init__(
        self, path: Path, opened: Callable[[], SqliteStore], stopping: Callable[[], bool],
        *works: Callable[[SqliteStore], StoreWork], clock: Callable[[], float] = time.time, rest: float = REST,
        busy: Callable[[], bool] = lambda: False, timer: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._path, self._opened, self._stopping, self._clock, self._rest = path, opened, stopping, clock, rest
        self._busy, self._timer = busy, timer
        self._works = works
        self._full = False  # its disk took nothing more, the last time
        self._thread = threading.Thread(target=self._run, name="edgecloud-compactor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the piece in hand, once it was asked to stop."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            store = self._opened()
            try:
                self._work(store)
            finally:
                store.close()
        except Exception:
            # What it does is derived: versions come in and come back without it, only slower.
            log.exception("the compactor has found a bug and stops until the next start; nothing is lost")

    def _work(self, store: SqliteStore) -> None:
        compactor = Compactor(store, self._clock, stopping=self._stopping)
        works: list[StoreWork] = [compactor, *(make(store) for make in self._works)]
        idle = 0  # looks in a row that found nothing: each costs a row of every model
        while not self._stopping():
            idle = min(IDLE, idle + 1)
            began = self._timer()
            try:
                if any(work.waiting() for work in works) and self._do(store, works):
                    self._said_full(None)
                    idle = 0
                    self._give_way(self._timer() - began)
                    continue
            except StateBusy:
                pass  # another writer: it has time
            except (DiskUnwritable, OSError) as error:
                full = error if isinstance(error, DiskUnwritable) else disk.unwritable(error)
                if full is None:
                    raise
                self._said_full(full)
            self._wait(idle * self._rest)

    def _do(self, store: SqliteStore, works: list[StoreWork]) -> bool:
        """Do what there is to do, while messages come a piece of each; return whether there was anything."""
        did = False
        with compacting(store, self._path):
            if works[0].waiting() and not self._busy():  # it takes a second, and would measure a machine that does something else
                measured(store, int(self._clock()))
            for work in works:
                while not self._stopping() and (done := work.run()) is not None:
                    did = True
                    log.debug("%s", done)
                    if self._busy():
                        break
        return did

    def _said_full(self, full: DiskUnwritable | None) -> None:
        if full is not None and not self._full:
            log.error(FULL, full.message, full.next_step)
        if full is None and self._full:
            log.warning("there is room on the disk again: states are kept again")
        self._full = full is not None

    def _give_way(self, spent: float) -> None:
        """Rest after so many seconds of work, until they were no more than their share, or nothing comes any more."""
        end = self._timer() + spent * (1 / SHARE - 1)
        while self._busy() and not self._stopping() and self._timer() < end:
            time.sleep(0.05)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping() and time.monotonic() < end:
            time.sleep(0.05)
