"""What the agent and a process that runs a model say to each other: a head in JSON, then the bytes of arrays as they lie in memory.

Each side takes what the other says for what a stranger says: lengths, types and shapes are checked before memory is taken for them.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits

HEAD_MAX = 1 << 20  # bytes; the names and shapes of a few thousand tensors
ARRAYS_MAX = 4 * limits.DEFAULT.model_file  # bytes of one frame's arrays: weights and slots, as a journal holds them
_START = struct.Struct("<4sI")  # magic, bytes of the head
_MAGIC = b"EAM1"
_KINDS = "fiub"
_WIDEST = 8  # bytes of a number
_AXES = 32
Arrays = Mapping[str, NDArray[Any]]
Wait = Callable[[int, bool], None]  # returns when the file may be read, or written where the second word is True


class BadFrame(ValueError):
    """What came is no frame, or says more than was asked for."""


class Frames:
    """Two pipes to the other side. A file that does not block is waited for as the owner says."""

    def __init__(self, incoming: int, outgoing: int, wait: Wait | None = None) -> None:
        self._in, self._out, self._wait = incoming, outgoing, wait

    def send(self, said: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Say it. Raises OSError when nobody listens."""
        given = {name: np.ascontiguousarray(a).reshape(a.shape) for name, a in (arrays or {}).items()}
        head = json.dumps({**said, "arrays": [[name, a.dtype.str, list(a.shape)] for name, a in given.items()]}).encode()
        self._write(memoryview(_START.pack(_MAGIC, len(head)) + head))
        for a in given.values():
            if a.size:
                self._write(_bytes(a))

    def receive(self, most: int = ARRAYS_MAX) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what is said next, and its arrays. most: bytes that they may have.

        Raises EOFError when the other side has ended, BadFrame for what it may not say.
        """
        magic, length = _START.unpack(self._exactly(_START.size))
        if magic != _MAGIC or length > HEAD_MAX:
            raise BadFrame(f"a head of {length} bytes")
        try:
            said = json.loads(self._exactly(length))
            layout = [(str(name), np.dtype(str(kind)), tuple(_whole(n) for n in shape)) for name, kind, shape in said.pop("arrays")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
            raise BadFrame("a head that is none") from e
        if any(t.kind not in _KINDS or t.itemsize > _WIDEST or not t.isnative or len(shape) > _AXES for _, t, shape in layout):
            raise BadFrame("arrays of a kind that no model has")
        if sum(t.itemsize * math.prod(shape) for _, t, shape in layout) > most:
            raise BadFrame(f"arrays of more than {most} bytes")
        arrays = {name: np.empty(shape, t) for name, t, shape in layout}
        for a in arrays.values():
            if a.size:
                self._read(_bytes(a))
        return said, arrays

    def _exactly(self, size: int) -> bytes:
        out = bytearray(size)
        self._read(memoryview(out))
        return bytes(out)

    def _read(self, into: memoryview) -> None:
        while into:
            try:
                got = os.readv(self._in, [into])
            except BlockingIOError:
                assert self._wait is not None, "a file of this side does not block"
                self._wait(self._in, False)
                continue
            if not got:
                raise EOFError
            into = into[got:]

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:
                assert self._wait is not None, "a file of this side does not block"
                self._wait(self._out, True)


def _bytes(a: NDArray[Any]) -> memoryview:
    return memoryview(a.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # an array is a buffer


def _whole(number: object) -> int:
    if type(number) is not int or not 0 <= number <= ARRAYS_MAX:
        raise ValueError("shape")
    return number
