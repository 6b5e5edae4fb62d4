"""Messages between the program and the process that runs models: a line of JSON and arrays behind it, with their lengths in front."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from typing import Any

HEAD_MAX = 4 << 20  # bytes of the JSON
_LENGTHS = struct.Struct("<QQ")


class ChannelEndedError(Exception):
    """The other side is gone, or says what no side says."""


class LateError(Exception):
    """The time is over."""


def send(handle: int, head: dict[str, Any], body: bytes | memoryview = b"", *, until: float = float("inf")) -> None:
    """Write one message to a descriptor that does not block. until: by the monotonic clock. Raises ChannelEndedError or LateError."""
    said = json.dumps(head).encode()
    for piece in (_LENGTHS.pack(len(said), len(body)) + said, body):
        left = memoryview(piece).cast("B")
        while len(left):
            _ready([], [handle], until)
            try:
                left = left[os.write(handle, left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise ChannelEndedError from None


def receive(handle: int, most: int, *, until: float = float("inf")) -> tuple[dict[str, Any], bytearray]:
    """Return one message. most: bytes that its body may have. Raises ChannelEndedError or LateError."""
    said, size = _LENGTHS.unpack(_exactly(handle, _LENGTHS.size, until))
    if said > HEAD_MAX or size > most:
        raise ChannelEndedError
    try:
        head = json.loads(_exactly(handle, said, until))
    except (ValueError, RecursionError):
        raise ChannelEndedError from None
    if not isinstance(head, dict):
        raise ChannelEndedError
    return head, _exactly(handle, size, until)


def _exactly(handle: int, size: int, until: float) -> bytearray:
    out = bytearray(size)
    view, have = memoryview(out), 0
    while have < size:
        _ready([handle], [], until)
        try:
            got = os.readv(handle, [view[have:]])
        except BlockingIOError:
            continue
        except OSError:
            raise ChannelEndedError from None
        if not got:
            raise ChannelEndedError
        have += got
    return out


def _ready(reads: list[int], writes: list[int], until: float) -> None:
    left = None if until == float("inf") else until - time.monotonic()
    if left is not None and left <= 0:
        raise LateError
    ready = select.select(reads, writes, [], left)
    if not (ready[0] or ready[1]):
        raise LateError
