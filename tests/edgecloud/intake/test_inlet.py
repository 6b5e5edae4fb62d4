"""Turns: whoever sends how much, the others are served; the room is bounded; what is left out is only what its sender sent too much."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.intake.quotas.inlet import AT_EASE, CROWD, DEBT, MESSAGE, QUANTUM, SECOND, Inlet
from edgecloud.intake.quotas.rates import SendingRate
from edgecloud.intake.transport import Delivery

FREE = SendingRate(1e9, 1e9, 1e12, 1e12)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def inlet(count: int = 1000, size: int = 1 << 26, **rates: SendingRate) -> tuple[Inlet, list[Delivery], Clock]:
    dropped: list[Delivery] = []
    clock = Clock()
    made = Inlet(count, size, leave_out=dropped.append, monotonic=clock, **{"board": FREE, "strangers": FREE, **rates})
    made.admit(f"pi-{n}" for n in range(10))
    return made, dropped, clock


def message(device: str, size: int = 100, mark: int = 0) -> Delivery:
    return Delivery(f"e1/orchard/{device}/digits/up/update", bytes(size), mark)


def go_on() -> bool:
    return False


def device_of(delivery: Delivery) -> str:
    return delivery.topic.split("/")[2]


def served(made: Inlet, count: int) -> list[str]:
    batch, _ = made.take(count, 0.0, 0.0, go_on)
    made.done(batch, [0.0] * len(batch))
    return [device_of(d) for d in batch]


def test_one_honest_message_comes_within_a_turn_of_each_other_sender_whatever_waits_before_it() -> None:
    made, _, _ = inlet()
    for n in range(300):
        made.put(message("pi-1", 1000), go_on)
        made.put(message(f"nobody-{n}", 1000), go_on)  # as many names as messages
    made.put(message("pi-2"), go_on)
    order = served(made, 601)
    turn = QUANTUM // 1000 + 2
    assert order.index("pi-2") <= 6 * turn  # itself, the flood, and four queues for all strangers
    assert len(order) == 601 and made.empty


def test_turns_go_by_bytes_and_not_by_messages() -> None:
    made, _, _ = inlet()
    for _ in range(100):
        made.put(message("pi-1", 100_000), go_on)
        made.put(message("pi-2", 5_000), go_on)
    sizes: Counter[str] = Counter()
    for _ in range(60):
        (name,) = served(made, 1)
        sizes[name] += {"pi-1": 100_000, "pi-2": 5_000}[name] + MESSAGE
    assert abs(sizes["pi-1"] - sizes["pi-2"]) <= 100_000 + MESSAGE + 2 * QUANTUM


def test_work_that_took_long_is_paid_for_by_its_sender_and_forgotten_with_time() -> None:
    made, _, clock = inlet()

    def next_fifty() -> Counter[str]:
        for _ in range(50):
            made.put(message("pi-1"), go_on)
            made.put(message("pi-2"), go_on)
        return Counter(served(made, 50))

    made.put(message("pi-1"), go_on)
    batch, _ = made.take(1, 0.0, 0.0, go_on)
    made.done(batch, [0.5])
    assert next_fifty() == {"pi-2": 50}
    served(made, 1000)
    clock.now += -DEBT / SECOND
    assert next_fifty()["pi-1"] >= 1  # a turn is longer than fifty of these: whoever is first
    served(made, 1000)
    made.put(message("pi-1"), go_on)
    batch, _ = made.take(1, 0.0, 0.0, go_on)
    made.done(batch, [1e9])
    made.put(message("pi-1"), go_on)
    assert served(made, 1) == ["pi-1"], "nobody else waits, so nobody is kept waiting"


def test_what_is_beyond_a_rate_is_left_out_and_comes_in_again_with_time() -> None:
    rate = SendingRate(messages=2, messages_at_once=5, bytes=1000, bytes_at_once=10_000)
    made, dropped, clock = inlet(board=rate, strangers=rate)
    for n in range(8):
        made.put(message("pi-1", 10, n), go_on)
    assert [d.token for d in dropped] == [5, 6, 7] and made.left_out() == {"pi-1": 3} and made.left_out() == {}
    clock.now += 1.0
    for n in range(3):
        made.put(message("pi-1", 10, n), go_on)
    assert [d.token for d in dropped] == [5, 6, 7, 2]
    made.put(message("pi-2", 50_000), go_on)  # larger than all its room: alone
    made.put(message("pi-2", 10), go_on)
    assert len(dropped) == 5
    for n in range(100):
        made.put(message(f"nobody-{n}", 10), go_on)
    assert made.left_out()["strangers"] == 100 - 4 * 5, "names buy no room"


def test_half_the_room_is_the_most_that_one_sender_has_while_others_wait() -> None:
    made, dropped, _ = inlet(count=10, size=10_000)
    for _ in range(7):
        made.put(message("pi-1", 10), go_on)
    made.put(message("pi-2", 10), go_on)
    made.put(message("pi-1", 10), go_on)
    assert [device_of(d) for d in dropped] == ["pi-1"]
    made.put(message("pi-2", 6000), go_on)
    assert len(dropped) == 2
    made.put(message("pi-3", 6000), go_on)
    assert len(dropped) == 2


def test_a_full_room_holds_back_until_it_is_asked_to_stop() -> None:
    made, dropped, _ = inlet(count=3)
    for _ in range(3):
        made.put(message("pi-1"), go_on)
    asked: list[int] = []
    made.put(message("pi-1"), lambda: asked.append(1) is None and len(asked) > 1)
    assert len(asked) == 2 and made.full and not dropped


def test_what_was_not_looked_at_keeps_its_place() -> None:
    made, _, _ = inlet()
    for n in range(6):
        made.put(message("pi-1", 10, n), go_on)
    batch, _ = made.take(4, 0.0, 0.0, go_on)
    made.done(batch[:1], [0.0])
    made.back(batch[1:])
    rest, _ = made.take(10, 0.0, 0.0, go_on)
    made.done(rest, [0.0] * len(rest))
    assert [d.token for d in batch[:1] + rest] == [0, 1, 2, 3, 4, 5] and made.bytes == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 14), st.integers(0, 3000)),
        st.tuples(st.just("take"), st.integers(1, 5), st.floats(0, 3)),
        st.tuples(st.just("back"), st.integers(1, 5), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.floats(0, 5)),
        st.tuples(st.just("admit"), st.integers(10, 14), st.just(0)),
    ),
    max_size=80,
)


@pytest.mark.parametrize("tight", [False, True])
@given(steps=STEPS)
def test_whatever_happens_each_message_is_served_once_or_left_out_in_the_order_of_its_sender(tight: bool, steps: list) -> None:
    rate = SendingRate(1, 6, 2000, 9000) if tight else FREE
    made, dropped, clock = inlet(count=20, size=20_000, board=rate, strangers=rate)
    put: list[Delivery] = []
    got: list[Delivery] = []
    for step, n, value in steps:
        if step == "put":
            if made.full or made.bytes + value > 20_000:
                continue  # it would wait, and nobody else is here
            put.append(message(f"pi-{n}", int(value), len(put)))
            made.put(put[-1], go_on)
        elif step == "admit":
            made.admit([f"pi-{n}"])
        elif step == "wait":
            clock.now += value
        else:
            batch, _ = made.take(n, 0.0, 0.0, go_on)
            kept = batch[: len(batch) // 2] if step == "back" else batch
            made.done(kept, [float(value)] * len(kept))
            made.back(batch[len(kept) :])
            got += kept
    got += (rest := made.take(10_000, 0.0, 0.0, go_on)[0])
    made.done(rest, [0.0] * len(rest))
    assert made.empty and made.bytes == 0
    assert sorted(d.token for d in got + dropped) == list(range(len(put)))
    if not any(step == "admit" for step, *_ in steps):
        for name in {device_of(d) for d in got}:
            mine = [d.token for d in got if device_of(d) == name]
            assert mine == sorted(mine)


def test_who_has_sent_much_lately_has_few_messages_on_their_way_even_where_nobody_else_is_seen() -> None:
    rate = SendingRate(messages=1, messages_at_once=200, bytes=1e9, bytes_at_once=1e9)
    made, dropped, clock = inlet(board=rate)
    at_ease = int(200 * (1 - AT_EASE[0]))
    for _ in range(at_ease + CROWD + 20):
        made.put(message("pi-1"), go_on)
    assert dropped and len(served(made, 1000)) == max(CROWD, at_ease + 1)
    screened = made.screen([("e1/orchard/pi-1/digits/up/update", 10)] * 100 + [("e1/orchard/pi-2/digits/up/update", 10)])
    assert screened == [True] * CROWD + [False] * (100 - CROWD) + [True]
    clock.now += 200
    assert all(made.screen([("e1/orchard/pi-1/digits/up/update", 10)] * at_ease)), "it has sent little since"


def test_screening_takes_nothing_and_says_what_putting_will() -> None:
    rate = SendingRate(messages=1, messages_at_once=5, bytes=10, bytes_at_once=100)
    made, dropped, _ = inlet(board=rate)
    topic = message("pi-1").topic
    for _ in range(3):
        assert made.screen([(topic, 10)] * 7) == [True] * 5 + [False] * 2
    for _ in range(5):
        made.put(message("pi-1", 10), go_on)
    assert not dropped and made.screen([(topic, 10)]) == [False] and made.left_out() == {"pi-1": 7}
