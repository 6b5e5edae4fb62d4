"""The process that scores versions beside an ingester: is told a probe set and versions, and says what they come to. It writes nothing.

    python -m edgecloud.feasibility.child REGISTRY MEMORY

Frames on standard input and output are CBOR: [digest of the probe set, base, [version ids]], and a list of rows as `packed` has them; null
for what this process could not do just now. What a version does to this process, its parent sees from outside.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path

from edgecloud.probes import sets
from edgecloud.registry import EvaluationRow, SqliteStore, open_registry
from edgecloud.versions.materialise import LoadedBases
from edgecloud.workers.worker import be_bounded
from edgecommon import logs
from modelwire.errors import ModelWireError
from modelwire.wire import cbor

from . import evaluating

NICE = 19
FRAME_MAX = 8 << 20  # bytes
log = logging.getLogger("edgecloud.scoring")


class ScoringWork:
    """What the process does with a frame. Keeps the last probe set and bases."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self._bases = store, LoadedBases(store)
        self._ready: evaluating.PreparedProbes | None = None

    def answer(self, digest: bytes, base: bytes, ids: list[int]) -> list[EvaluationRow]:
        """Return the rows of these versions; of one that is gone meanwhile none. Raises ModelWireError."""
        if self._ready is None or self._ready.row.digest != digest:
            row = next((one for one in self._store.probes.all() if one.digest == digest), None)
            if row is None:
                return []
            self._ready = evaluating.prepare(row, sets.load(self._store, row))
        found = [version for id in ids if (version := self._store.versions.by_id(id)) is not None and version.base == base]
        return evaluating.score_some(self._store, self._ready, base, found, self._bases, 0) if found else []


def packed(rows: list[EvaluationRow]) -> cbor.Value:
    """Return rows as a frame holds them."""
    return [
        [r.subject, r.probes, r.context, r.n, r.right, r.base_right, r.loss, r.broken, float(r.milliseconds), r.fault] for r in rows
    ]  # fmt: skip


def unpacked(value: cbor.Value, at: int) -> list[EvaluationRow] | None:
    """Return the rows of a frame; None for what no such process says."""
    if not isinstance(value, list):
        return None
    out = []
    for row in value:
        match row:
            case [
                int() | bytes() as subject, bytes() as probes, str() as context, int() as n, int() | None as right,
                int() | None as base_right, float() | None as loss, int() as broken, float() as milliseconds, str() as fault,
            ]:  # fmt: skip
                out.append(EvaluationRow(subject, probes, context, n, right, base_right, loss, broken, milliseconds, at, fault))
            case _:
                return None
    return out


def main(words: list[str]) -> None:
    """Work until standard input ends: the parent has stopped, or was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a whole group may get one; the parent says when to end
        signal.signal(number, signal.SIG_IGN)
    heard, said = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what prints must not end up among the frames
    _be_modest(int(words[1]))
    work = ScoringWork(open_registry(Path(words[0]), readonly=True))
    said.send_bytes(cbor.encode([]))  # it has started
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked = cbor.decode(heard.recv_bytes(FRAME_MAX))
            told = threading.Event()
            threading.Thread(target=_watch, args=(told,), daemon=True).start()
            said.send_bytes(cbor.encode(_told(work, asked)))
            told.set()


def _told(work: ScoringWork, asked: cbor.Value) -> cbor.Value:
    match asked:
        case [bytes() as digest, bytes() as base, list() as ids]:
            try:
                return packed(work.answer(digest, base, [id for id in ids if isinstance(id, int)]))
            except ModelWireError as error:
                log.warning("versions could not be scored: %s", error.message)
    return None


def _watch(told: threading.Event) -> None:
    """End the process with its parent, in the middle of whatever it does."""
    parent = os.getppid()
    while not told.wait(1.0):
        if os.getppid() != parent:
            os._exit(0)


def _be_modest(memory: int) -> None:
    """Let this process be bounded as a worker is, and go last where others want the processor."""
    os.nice(NICE)
    be_bounded(memory)


if __name__ == "__main__":
    logs.start("edgecloud", "warning", logs.TextLines("%(levelname)s %(name)s: %(message)s"))
    main(sys.argv[1:])
