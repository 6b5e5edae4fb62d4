"""Decodes the updates of a way ahead of where they are applied, on the other cores: the range coder takes most of a recovery's time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from modelwire.errors import ModelWireError
from modelwire.tensors import Schema
from modelwire.update.container import Container
from modelwire.update.sections import Sections, invert

LOOKAHEAD = 64  # updates
ROOM = 64 * 1024 * 1024  # bytes that decoded updates may take together, about
DECODED = 64  # bytes of a decoded update for each of its coded ones, at most about


class Ahead:
    """The sections of each update in order; of one that is to be taken back, what takes it back. `close` it.

    opened: opens each, on the thread that asks, and says whether it is to be taken back. The first are under way when this is made.
    """

    def __init__(self, opened: Iterable[tuple[Callable[[], Container], bool]], schema: Schema) -> None:
        self._left, self._schema = iter(opened), schema
        self._ahead, self._held = deque[tuple[int, Future[Sections]]](), 0
        cores = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(max(1, min(4, cores)), thread_name_prefix="edgecloud-decode")
        self._fill()

    def next(self) -> Sections:
        """Return the sections of the next update. Raises what opening and decoding it do."""
        size, future = self._ahead.popleft()
        self._held -= size
        self._fill()
        return future.result()

    def close(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._ahead) < LOOKAHEAD and (not self._ahead or self._held < ROOM) and (one := next(self._left, None)) is not None:
            try:
                container = one[0]()
            except ModelWireError as error:
                self._ahead.append((0, _failed(error)))  # when it is its turn, not before
                self._left = iter(())
                return
            size = DECODED * container.size
            self._held += size
            self._ahead.append((size, self._pool.submit(_sections, container, self._schema, one[1])))


def _sections(container: Container, schema: Schema, back: bool) -> Sections:
    sections = container.sections(schema)
    return invert(sections) if back else sections


def _failed(error: ModelWireError) -> Future[Sections]:
    out: Future[Sections] = Future()
    out.set_exception(error)
    return out
