"""A transfer in parts goes on by itself while the centre takes some of what is sent, and waits for its time when it takes nothing."""

from __future__ import annotations

from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.link.transport import Transport
from edgeagent.link.upload import SOON, Upload
from modelwire.wire import parts

SIZE = 20 * 1024
DATA = np.random.default_rng(1).bytes(SIZE)


class Broker:
    """Takes everything at once, and passes on what it is told to."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send(self, topic: str, data: bytes) -> int:
        self.sent.append(parts.parse(data).index)
        return len(self.sent)


def rounds(taken: list[int]) -> tuple[int, list[int], int]:
    """Let the centre take so many parts of each pass; return passes, the parts sent of each, and those that it lacks at the end."""
    outgoing = parts.describe(DATA, fleet="f", device="d", model="m", at=1, part=1600)
    upload, broker, held, now = Upload("t", outgoing), Broker(), set[int](), 0.0
    sizes: list[int] = []
    for count in taken:
        before = len(broker.sent)
        upload.wanted(parts.bitmap(held, outgoing.count))
        asks = upload.push(cast(Transport, broker), now)
        while upload.busy:
            assert not asks
            for ticket in range(1, len(broker.sent) + 1):
                upload.accepted(ticket)
            asks = upload.push(cast(Transport, broker), now)
        assert not asks, "the centre has its time to answer"
        sizes.append(len(broker.sent) - before)
        held |= set(broker.sent[before:][:count])
        now += SOON
        if not upload.push(cast(Transport, broker), now):
            break
        assert not upload.push(cast(Transport, broker), now + 100 * SOON), "it asks once"
    return len(sizes), sizes, outgoing.count - len(held)


def test_what_was_left_out_goes_again_at_once_while_some_of_it_is_taken() -> None:
    passes, sizes, lacking = rounds([8] * 9)
    assert lacking == 0 and sizes[:3] == [20, 12, 4] and passes == 4


def test_who_is_told_that_nothing_has_come_waits_for_its_time() -> None:
    assert rounds([0] * 9) == (2, [20, 20], 20)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40))
def test_it_sends_no_more_passes_than_there_are_parts(taken: list[int]) -> None:
    passes, sizes, lacking = rounds(taken)
    assert passes <= 22 and sizes == sorted(sizes, reverse=True) and (lacking == 0 or passes == len(taken) or 0 in taken)
