"""A file that is to be fetched, what fetches it, and a clock that stands until somebody moves it."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgeagent.fetching.download import Download
from edgeagent.fetching.http_source import HttpSource
from edgeagent.fetching.ranges import Source
from edgeagent.fetching.tasks import LEAF, FetchTask
from edgeagent.fetching.watched_socket import Patience
from edgeagent.system.backoff import Backoff
from modelwire import merkle

LONG = 60.0  # seconds that a test waits for a thread, at most
BRIEF = Patience(connect=20, head=0.4, window=0.4, least=2048)  # for servers that never come to an end


@dataclass(frozen=True)
class Wanted:
    """A file of so many bytes."""

    size: int = 5 * LEAF + 123

    @cached_property
    def data(self) -> bytes:
        return random.Random(self.size).randbytes(self.size)

    @cached_property
    def leaves(self) -> bytes:
        return b"".join(merkle.leaves(self.data, LEAF))

    def task(self, *urls: str, **changes: object) -> FetchTask:
        task = FetchTask(1, hashlib.sha256(self.data).digest(), self.size, merkle.file_tree(self.data), b"c" * 32, urls)
        return replace(task, **changes)  # type: ignore[arg-type]

    def served(self) -> dict[str, bytes]:
        """Return what lies in the folder of a static server."""
        return {"/m.tflite": self.data, "/m.leaves": self.leaves}


class Fetcher:
    """A download under a clock that jumps to what is due next."""

    def __init__(
        self, folder: Path, task: FetchTask, *, patience: Patience | None = None, source: Source | None = None, month: object = None,
        ask: Callable[[bytes], None] = lambda have: None, ca: Path | None = None,
    ) -> None:  # fmt: skip
        self.now, self._woken = 0.0, threading.Event()
        self.sources, self._ca = 0, ca
        self._source, self._patience = source, patience or Patience(least=1)
        self.download = Download(
            folder, task, source=self._make, ask=ask, backoff=Backoff(10, 100, random.Random(1)),
            month=month,  # type: ignore[arg-type]
        )  # fmt: skip
        self.download.connected(0.0)

    def _make(self) -> Source:
        self.sources += 1
        return self._source or HttpSource(self._ca, self._woken.set, self._patience)

    def step(self) -> None:
        """Do what is due next, at its time."""
        d = self.download
        if d.due == float("inf"):
            assert self._woken.wait(LONG), f"nothing comes: {d.progress}"
        self._woken.clear()
        self.now = max(self.now, d.due if d.due < float("inf") else self.now)
        d.tick(self.now)

    def run(self, until: Callable[[], bool] = lambda: False) -> Download:
        while not self.download.settled and not until():
            self.step()
        return self.download
