"""The thread that has new versions scored beside an ingester. It loads what runs models only where there is a probe set."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecloud.registry import SqliteStore
from modelwire.errors import StateBusy

if TYPE_CHECKING:
    from .asking import Asking

log = logging.getLogger("edgecloud.scoring")
SHARE = 0.05  # of one processor's time
REST = 5.0  # seconds between two looks that found nothing, and before a process that ended is started anew


class ScoringThread:
    """The thread. opened: opens the registry for it. stopping: asked often. share: of one processor's time, up to 1; 0: none."""

    def __init__(
        self, path: Path, opened: Callable[[], SqliteStore], stopping: Callable[[], bool], *, share: float = SHARE,
        clock: Callable[[], float] = time.time, rest: float = REST,
    ) -> None:  # fmt: skip
        self._path, self._opened, self._stopping = path, opened, stopping
        self._share, self._clock, self._rest = share, clock, rest
        self._asking: Asking | None = None
        self._thread = threading.Thread(target=self._run, name="edgecloud-scoring", daemon=True)

    def start(self) -> None:
        """Begin; with no share of the time it has nothing to do."""
        if self._share > 0:
            self._thread.start()

    def join(self) -> None:
        """Wait for its end, once it was asked to stop."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._asking is None else self._asking.pid

    def _run(self) -> None:
        try:
            store = self._opened()
            try:
                while not self._stopping() and not self._has_probes(store):
                    end = time.monotonic() + self._rest
                    while not self._stopping() and time.monotonic() < end:
                        time.sleep(0.05)
                if not self._stopping():
                    from .asking import Asking

                    self._asking = Asking(self._path, self._stopping, self._share, self._clock, self._rest)
                    self._asking.work(store)
            finally:
                store.close()
        except Exception:
            # What it does is derived: `edgecloud matrix --update` does the same.
            log.exception("the scoring of versions has found a bug and stops until the next start; nothing is lost")

    def _has_probes(self, store: SqliteStore) -> bool:
        try:
            return bool(store.probes.all())
        except StateBusy:
            return False
