"""Worker processes as the ingester sees them: it deals versions out by lineage, and names the one that ends or holds up a worker.

A lineage stays with one worker, so its versions come in order and their parent's state is at hand. What a worker had in hand when it
ended is given to a new one, singly; what ends that one too is at fault.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from edgecloud.sketches import counting
from modelwire.errors import WireError
from modelwire.wire import cbor

from .worker import FAULT, FRAME_MAX, WORDS

log = logging.getLogger("edgecloud.rebuild")
AT_ONCE = 64  # versions that a worker is told of ahead
REST = (1.0, 30.0)  # seconds before a worker that does not even start is tried again: at first, and at most


@dataclass(frozen=True, slots=True)
class WorkOutcome:
    """What came of one version that was dealt out."""

    id: int
    word: str  # one of worker.WORDS
    text: str = ""
    seconds: float = 0.0
    sketch: bytes = b""  # a hint, never a proof; empty where there is none


@dataclass(frozen=True, slots=True)
class WorkerBounds:
    """What one worker may take."""

    seconds: float = 600.0  # on one version; the longest training that is replayed takes about half a minute
    memory: int = 4 << 30  # bytes of data; a model of 128 million weights needs half of it
    kept_bytes: int = 256 << 20  # of states that it keeps


def usual_count() -> int:
    """Return how many workers suit this machine: none where there is one core."""
    cores = len(os.sched_getaffinity(0))
    return 0 if cores < 2 else 2


class WorkerPool:
    """The workers of one registry, for one thread. They start with the first version that is given."""

    def __init__(self, path: Path, count: int, bounds: WorkerBounds | None = None) -> None:
        bounds = bounds if bounds is not None else WorkerBounds()
        self._workers = [_Worker(path, bounds) for _ in range(count)]

    @property
    def waiting(self) -> int:
        """How many versions were given and are not judged yet."""
        return sum(len(w.queue) + len(w.sent) for w in self._workers)

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [w.process.pid for w in self._workers if w.process is not None]

    def give(self, id: int, lineage: int) -> None:
        """Let a version be judged; one of the same lineage that was given before comes before it."""
        self._workers[lineage % len(self._workers)].queue.append(id)

    def take(self, seconds: float) -> list[WorkOutcome]:
        """Return what was judged, having waited for so long at most."""
        for worker in self._workers:
            worker.send()
        by_connection = {w.heard: w for w in self._workers if w.heard is not None}
        out: list[WorkOutcome] = []
        for connection in wait(list(by_connection), seconds) if by_connection else []:
            assert isinstance(connection, Connection)
            out += by_connection[connection].hear()
        if not by_connection:
            time.sleep(seconds)  # all of them rest
        for worker in self._workers:
            out += worker.look_after()
        return out

    def close(self) -> None:
        """End the workers; what they had in hand stays as it was."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """One worker, whichever process it is just now."""

    def __init__(self, path: Path, bounds: WorkerBounds) -> None:
        self._path, self._bounds = path, bounds
        self.queue: deque[int] = deque()  # to be sent
        self.sent: OrderedDict[int, None] = OrderedDict()  # sent and not answered
        self.suspects: set[int] = set()  # in hand when a process ended: sent singly
        self.process: subprocess.Popen[bytes] | None = None
        self.heard: Connection | None = None
        self._said: Connection | None = None
        self._started = False  # it has said so
        self._since = 0.0  # monotonic seconds of its last sign of life
        self._rest, self._again = REST[0], 0.0

    def send(self) -> None:
        """Tell the process of what waits; start it where there is something and none runs."""
        if not self.queue or (self.process is None and not self._start()):
            return
        ids: list[cbor.Value] = []
        while self.queue and len(self.sent) < AT_ONCE:
            singly = self.queue[0] in self.suspects
            if self.sent and (singly or self.suspects & self.sent.keys()):
                break
            if not self.sent:
                self._since = time.monotonic()
            id = self.queue.popleft()
            self.sent[id] = None
            ids.append(id)
            if singly:
                break
        if ids:
            assert self._said is not None
            with contextlib.suppress(OSError):  # it has ended: `hear` is told, too
                self._said.send_bytes(cbor.encode(ids))

    def hear(self) -> Iterator[WorkOutcome]:
        """Yield what the process says that it has judged, and what is at fault when it has ended instead."""
        assert self.heard is not None
        try:
            rows = cbor.decode(self.heard.recv_bytes(FRAME_MAX))
        except (EOFError, OSError) as error:
            yield from self._ended("" if isinstance(error, EOFError) else str(error))
            return
        except WireError:
            rows = None
        self._since = time.monotonic()
        self._started, self._rest = True, REST[0]
        for row in rows if isinstance(rows, list) else [None]:
            outcome = _parsed(row)
            if outcome is None or outcome.id not in self.sent:
                yield from self._ended("it says what no worker says")
                return
            del self.sent[outcome.id]
            self.suspects.discard(outcome.id)
            yield outcome

    def look_after(self) -> Iterator[WorkOutcome]:
        """Yield what is at fault when the process holds on to a version for too long."""
        if self.sent and self._started and time.monotonic() - self._since > self._bounds.seconds:
            yield from self._ended(f"it took longer than {self._bounds.seconds:g} s")

    def end(self) -> None:
        process, self.process = self.process, None
        for connection in (self._said, self.heard):
            if connection is not None:
                connection.close()
        self._said = self.heard = None
        if process is not None:
            process.kill()  # it writes nothing, so nothing is lost
            process.wait()

    def _start(self) -> bool:
        """Start a process; return False while one that does not start is left alone for a while."""
        if time.monotonic() < self._again:
            return False
        words = [str(self._path), str(self._bounds.kept_bytes), str(self._bounds.memory)]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgecloud.workers.worker", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._complain(f"can't be started: {error}")
            return False
        assert self.process.stdin is not None and self.process.stdout is not None
        self._said = Connection(os.dup(self.process.stdin.fileno()), readable=False)
        self.heard = Connection(os.dup(self.process.stdout.fileno()), writable=False)
        self.process.stdin.close()
        self.process.stdout.close()
        self._started, self._since = False, time.monotonic()
        return True

    def _ended(self, why: str) -> Iterator[WorkOutcome]:
        """Yield the version that is at fault, if that is known; all others are dealt out again."""
        process, started = self.process, self._started
        if process is not None and not why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                why = _how(process.wait(5.0))
        self.end()
        if not started:
            self._complain(why or "did not start")
        in_hand, self.sent = list(self.sent), OrderedDict()
        if len(in_hand) == 1 and started and in_hand[0] in self.suspects:
            self.suspects.discard(in_hand[0])
            yield WorkOutcome(in_hand[0], FAULT, f"the worker that rebuilt it, and another one after it: {why}")
            return
        if started:
            log.warning("a worker of the rebuild has ended with %d versions in hand: %s; they are tried singly", len(in_hand), why)
            self.suspects |= {*in_hand}
        self.queue.extendleft(reversed(in_hand))

    def _complain(self, why: str) -> None:
        log.error("a worker of the rebuild %s; trying again in %g s", why, self._rest)
        self._again = time.monotonic() + self._rest
        self._rest = min(2 * self._rest, REST[1])


def _parsed(row: object) -> WorkOutcome | None:
    """Return what a process says of a version; None for what no worker says."""
    if not isinstance(row, list) or len(row) != 5:
        return None
    id, word, text, took, sketch = row
    if type(id) is not int or word not in WORDS or not isinstance(text, str) or type(took) is not int:
        return None
    if not isinstance(sketch, bytes) or len(sketch) not in (0, counting.BYTES):
        return None
    return WorkOutcome(id, str(word), text, took / 1e6, sketch)


def _how(code: int) -> str:
    """Return how a process ended, in words."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"
