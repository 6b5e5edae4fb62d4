"""One worker process: is told numbers of versions, rebuilds them from the registry, and says of each what came of it.

    python -m edgecloud.workers.worker REGISTRY KEPT_BYTES MEMORY

Frames on standard input and output are CBOR: a list of version ids, and a list of
[id, word, text, microseconds, sketch]. What a hostile update
does to this process, its parent sees from outside; so it sends nothing that its parent would have to trust: a sketch says where to look.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from edgecloud.registry import open_registry
from edgecommon import logs
from modelwire.errors import ConfigError, DiskUnwritable, KernelError, LineageError, ModelWireError, RegistryDamaged, StateBusy
from modelwire.wire import cbor

from .building import Builder

OK, REFUSED, OURS, FAULT, SKIPPED, AGAIN = "ok", "refused", "ours", "fault", "skipped", "again"
WORDS = (OK, REFUSED, OURS, FAULT, SKIPPED, AGAIN)
TEXT_MAX = 2000  # characters of a reason
FRAME_MAX = 1 << 20  # bytes
BAD_KEPT = 10_000  # refused versions that are kept in mind: their parent has written them down long before
_OURS = (RegistryDamaged, KernelError, ConfigError)  # the centre's own trouble: no version is at fault
log = logging.getLogger("edgecloud.rebuild")


class VersionWork:
    """What one worker does with the ids that it is told."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self.sketch = b""  # of the last version that was rebuilt
        self._bad: dict[int, None] = {}  # refused: what was built on one of them is refused with it, by the parent process

    def judge(self, id: int) -> tuple[str, str]:
        """Return what came of a version, as a word, and why."""
        version = self._builder.store.versions.by_id(id)
        if version is None:
            return SKIPPED, ""
        try:
            lineage = self._builder.store.lineages.by_id(version.lineage)
        except LineageError:
            return SKIPPED, ""  # its device was erased meanwhile
        if version.parent_id in self._bad:
            self._note(id)
            return SKIPPED, ""
        try:
            self._builder.build(lineage, version)
            self.sketch = self._builder.sketch(version)
        except (StateBusy, DiskUnwritable) as error:
            return AGAIN, str(error)
        except _OURS as error:
            return OURS, str(error)
        except ModelWireError as error:
            self._note(id)
            return REFUSED, str(error)
        except Exception as error:
            log.exception("%s@%d met a fault of this program", lineage, version.version)
            return FAULT, f"{type(error).__name__}: {error}"
        return OK, ""

    def _note(self, id: int) -> None:
        self._bad[id] = None
        if len(self._bad) > BAD_KEPT:
            self._bad.pop(next(iter(self._bad)))


def main(words: list[str]) -> None:
    """Work until standard input ends: the parent has stopped, or was killed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a whole group may get one; the parent says when to end
        signal.signal(number, signal.SIG_IGN)
    heard, said = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what prints must not end up among the frames
    path, kept, memory = Path(words[0]), int(words[1]), int(words[2])
    be_bounded(memory)
    jobs: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(heard, jobs), daemon=True).start()
    work = VersionWork(Builder(open_registry(path, readonly=True), kept))
    said.send_bytes(cbor.encode([]))  # it has started
    while True:
        id = jobs.get()
        began = time.perf_counter()
        word, text = work.judge(id)
        sketch = work.sketch if word == OK else b""
        # Each by itself: the next one may take long, or end this process.
        said.send_bytes(cbor.encode([[id, word, text[:TEXT_MAX], round(1e6 * (time.perf_counter() - began)), sketch]]))


def _listen(heard: Connection, jobs: queue.SimpleQueue[int]) -> None:
    """Hand on what is to be done, and end the process with its parent, in the middle of whatever it does."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            ids = cbor.decode(heard.recv_bytes(FRAME_MAX))
            for id in ids if isinstance(ids, list) else []:
                if isinstance(id, int):
                    jobs.put(id)
    os._exit(0)


def be_bounded(memory: int) -> None:
    """Let this process take so many bytes and no core dump, and be the first that goes when the machine has none left."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    logs.start("edgecloud", "warning", logs.TextLines("%(levelname)s %(name)s: %(message)s"))
    main(sys.argv[1:])
