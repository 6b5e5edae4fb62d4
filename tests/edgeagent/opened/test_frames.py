"""What the agent and a process that runs a model say to each other comes through whole, and nothing else does."""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeagent.opened.frames import ARRAYS_MAX, HEAD_MAX, BadFrame, Frames

KINDS = st.sampled_from(["<f4", "<f8", "<f2", "|i1", "<i4", "<i8", "|u1", "<u2", "|b1"]).map(np.dtype)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.dictionaries(st.text(max_size=12), arrays.arrays(KINDS, SHAPES), max_size=6)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            try:
                os.close(end)
            except OSError:
                continue


def heard(data: bytes, most: int = ARRAYS_MAX) -> Any:
    """Return what is made of these bytes, behind which the other side has ended."""
    with pipe() as (incoming, outgoing):

        def say() -> None:
            try:
                os.write(outgoing, data)
            finally:
                os.close(outgoing)

        speaker = threading.Thread(target=say)
        speaker.start()
        try:
            return Frames(incoming, -1).receive(most)
        finally:
            speaker.join()


def frame(head: Any, body: bytes = b"", magic: bytes = b"EAM1", length: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<4sI", magic, len(text) if length is None else length) + text + body


@given(given=ARRAYS, number=st.floats(allow_nan=False), word=st.text(max_size=20))
def test_what_is_said_comes_through_to_the_bit(given: dict[str, np.ndarray[Any, Any]], number: float, word: str) -> None:
    with pipe() as (incoming, outgoing):
        speaker = threading.Thread(target=Frames(-1, outgoing).send, args=({"call": word, "lr": number}, given))
        speaker.start()
        said, got = Frames(incoming, -1).receive()
        speaker.join()
    assert said == {"call": word, "lr": number}
    assert list(got) == list(given)
    for name, a in given.items():
        assert (got[name].dtype, got[name].shape, got[name].tobytes()) == (a.dtype, a.shape, a.tobytes())


def test_arrays_that_do_not_lie_in_a_row_are_sent_as_they_read() -> None:
    a = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2]
    with pipe() as (incoming, outgoing):
        Frames(-1, outgoing).send({}, {"a": a})
        _, got = Frames(incoming, -1).receive()
    assert (got["a"] == a).all()


@pytest.mark.parametrize("data", [
    frame({"arrays": []}, magic=b"EAM2"),
    frame(b"", length=HEAD_MAX + 1),
    frame(b"["),
    frame([1, 2]),
    frame({}),
    frame({"arrays": 3}),
    frame({"arrays": [["x", "<f4"]]}),
    frame({"arrays": [["x", "|O", [1]]]}, bytes(8)),
    frame({"arrays": [["x", "<U4", [1]]]}, bytes(16)),
    frame({"arrays": [["x", ">f4", [1]]]}, bytes(4)),
    frame({"arrays": [["x", "<c16", [1]]]}, bytes(16)),
    frame({"arrays": [["x", "<f4", [-1]]]}),
    frame({"arrays": [["x", "<f4", [1.0]]]}, bytes(4)),
    frame({"arrays": [["x", "<f4", [True]]]}, bytes(4)),
    frame({"arrays": [["x", "<f4", [1 << 31, 1 << 31]]]}),
    frame({"arrays": [["x", "<f4", [1] * 40]]}, bytes(4)),
    frame({"arrays": [["x", "<f8", [ARRAYS_MAX // 8]], ["y", "<f4", [1]]]}),
])  # fmt: skip
def test_what_is_no_frame_is_refused_before_memory_is_taken(data: bytes) -> None:
    with pytest.raises(BadFrame):
        heard(data)


def test_more_than_was_asked_for_is_refused() -> None:
    data = frame({"arrays": [["x", "<f4", [4]]]}, bytes(16))
    assert heard(data, 16)[1]["x"].shape == (4,)
    with pytest.raises(BadFrame, match="more than 15 bytes"):
        heard(data, 15)


@given(st.data())
def test_one_that_is_cut_off_has_ended(data: st.DataObject) -> None:
    whole = frame({"arrays": [["x", "<f4", [4]]]}, bytes(16))
    with pytest.raises(EOFError):
        heard(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_anything_else_is_none(data: bytes) -> None:
    with pytest.raises((BadFrame, EOFError)):
        heard(data)
