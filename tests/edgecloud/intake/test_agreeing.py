"""The centre answers a hello about single version numbers: its last word on what it holds, and what is lost for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from edgecloud.intake import agreeing
from edgecloud.intake.decision import Bounds, Result
from edgecloud.registry import SqliteStore
from modelwire.wire import log, numbers
from modelwire.wire.numbers import Span
from modelwire.wire.records import Level, Receipt, Welcome
from modelwire.wire.welcome import KEY
from tests.edgecloud.centre import Centre, revoke
from tests.edgecloud.device import Base, ScriptedDevice, Sent, key_of

NONCE = b"\x0a" * numbers.NONCE_BYTES


def asks(**spans: list[Span]) -> dict[str, Any]:
    """Return `more` of a hello that asks about these numbers."""
    more: dict[str, Any] = {numbers.NONCE: NONCE}
    for key, runs in spans.items():
        more |= numbers.said(key, runs)
    return more


def answers(centre: Centre, device: ScriptedDevice, more: dict[str, Any]) -> tuple[list[Receipt], Welcome]:
    centre.said()
    centre.take(device.hello(more=more))
    said = centre.said()
    (welcome,) = (w for w in said if isinstance(w, Welcome))
    return [r for r in said if isinstance(r, Receipt)], welcome


def lost(centre: Centre, device: ScriptedDevice) -> list[tuple[int, int, bool]]:
    lineage = centre.store.lineages.get(device.name, device.model)
    assert lineage is not None
    return [(r.epoch, r.version, r.held) for r in centre.store.losses.of(lineage.id)]


@pytest.fixture
def five(centre: Centre, device: ScriptedDevice) -> list[Sent]:
    """Five updates of a device; the second and all after it are not sent yet."""
    sent = [device.train() for _ in range(5)]
    centre.deliver(device, sent[0])
    centre.rebuild()
    return sent


def test_every_answer_gives_the_nonce_back_and_a_hello_without_one_gets_none(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train())
    centre.rebuild()
    receipts, welcome = answers(centre, device, asks(unsure=[Span(1, 1, 1)]))
    assert [(r.version, r.level, r.more) for r in receipts] == [(1, Level.VERIFIED, {numbers.NONCE: NONCE})]
    whose = {KEY: device.key.public}
    assert welcome.more == {numbers.NONCE: NONCE, **whose}
    assert answers(centre, device, {})[1].more == whose
    assert answers(centre, device, {numbers.NONCE: b"short"})[1].more == whose
    stranger = ScriptedDevice(device.base, name="nobody")
    assert answers(centre, stranger, {numbers.NONCE: NONCE})[1].more == {numbers.NONCE: NONCE, KEY: stranger.key.public}


def test_a_stranger_in_a_boards_name_has_an_answer_to_his_own_key_alone(centre: Centre, device: ScriptedDevice) -> None:
    stranger = ScriptedDevice(device.base, name=device.name)
    stranger.key, stranger.fleet_id = key_of("mallory"), device.fleet_id
    stranger.life = device.life  # he has heard the board's hello, and says its state and nonce
    _, welcome = answers(centre, stranger, {numbers.NONCE: NONCE})
    assert (welcome.status, welcome.state) == ("quarantine", device.state_id)
    assert welcome.more == {numbers.NONCE: NONCE, KEY: stranger.key.public}


def test_what_a_board_gave_up_and_nothing_is_held_of_is_lost_for_good(
    centre: Centre, device: ScriptedDevice, five: list[Sent]
) -> None:
    _, welcome = answers(centre, device, asks(lost=[Span(1, 1, 2)], dropped=[Span(1, 3, 4)], unsure=[Span(1, 5, 5)]))
    assert numbers.read(welcome.more, numbers.MISSING) == [Span(1, 2, 4)]
    assert lost(centre, device) == [(1, 2, True), (1, 3, False), (1, 4, False)]
    late = centre.deliver(device, *five[1:4])
    assert [d.result for d in late] == [Result.DROPPED] * 3 and centre.statuses(device) == {1: "verified"}
    assert centre.deliver(device, five[4])[0].result is Result.PARKED, "that one was only doubted"
    assert numbers.read(answers(centre, device, asks(lost=[Span(1, 2, 2)]))[1].more, numbers.MISSING) == [Span(1, 2, 2)], "said again"


def test_what_is_held_is_answered_by_its_receipt_and_never_noted_as_lost(
    centre: Centre, device: ScriptedDevice, five: list[Sent]
) -> None:
    centre.deliver(device, *five[1:])
    receipts, welcome = answers(centre, device, asks(lost=[Span(1, 1, 5)]))
    assert [r.version for r in receipts] == [1] and numbers.MISSING not in welcome.more, "the others are not judged yet"
    centre.rebuild()
    receipts, _ = answers(centre, device, asks(dropped=[Span(1, 1, 5)]))
    assert [(r.version, r.level) for r in receipts] == [(n, Level.VERIFIED) for n in range(1, 6)]
    assert lost(centre, device) == []


def test_a_refusal_is_answered_in_its_own_words(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    centre.deliver(device, five[2])
    device.reflash()
    centre.greet(device)
    centre.said()
    device.life = 0
    receipts, _ = answers(centre, device, asks(dropped=[Span(1, 3, 3)]))
    assert [(r.version, r.level, r.reason) for r in receipts] == [(3, Level.REFUSED, "epoch 1 is closed")]


def test_an_orphan_that_its_board_gave_up_waits_no_more(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    centre.deliver(device, five[3])
    _, welcome = answers(centre, device, asks(dropped=[Span(1, 2, 4)]))
    assert numbers.read(welcome.more, numbers.MISSING) == [Span(1, 2, 4)] and centre.store.inbox.orphans(device.name) == []


def test_numbers_that_a_board_has_not_used_yet_are_not_lost(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    for runs in ([Span(1, 6, 6)], [Span(1, 2, 1 << 40)], [Span(1, 1, (1 << 62) - 1)]):
        _, welcome = answers(centre, device, asks(lost=runs, dropped=runs))
        assert numbers.MISSING not in welcome.more
    assert lost(centre, device) == []
    centre.said()
    centre.take(device.hello(version=(1 << 61), more=asks(lost=[Span(1, 1 << 60, 1 << 61)])))
    assert lost(centre, device) == [], "nor are those out of reach"


def test_a_number_that_is_lost_is_never_granted_again(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    answers(centre, device, asks(dropped=[Span(1, 2, 5)]))
    device.reflash()
    centre.greet(device)
    for record in centre.said():
        device.hear(record)
    assert device.version == 5


def test_one_hello_costs_no_more_than_its_share(store: SqliteStore, base: Base) -> None:
    centre = Centre(store, Bounds(looks=10, answers=3, lost_numbers=12))
    device = centre.meet(ScriptedDevice(base))
    sent = [device.train() for _ in range(40)]
    centre.deliver(device, *sent[:8])
    centre.rebuild()
    assert len(answers(centre, device, asks(unsure=[Span(1, 1, 8)]))[0]) == 3
    for wanted in ([(11, 20)], [(11, 20), (21, 22)], [(21, 22)]):
        answers(centre, device, asks(dropped=[Span(1, *pair) for pair in wanted]))
    assert [v for _, v, _ in lost(centre, device)] == list(range(11, 23)), "ten at a time"
    _, welcome = answers(centre, device, asks(dropped=[Span(1, 31, 40)]))
    assert numbers.MISSING not in welcome.more and len(lost(centre, device)) == 12, "what is not noted is not called missing"


@pytest.mark.parametrize(
    "value",
    [
        7, [], [7], [[1, 2]], [[1, 2, 3, 4]], [["1", 2, 3]], [[1, 3, 2]], [[0, 1, 2]], [[1, 0, 2]], [[1, True, 2]], [[1, 1, 1 << 62]],
        [[1 << 32, 1, 1]], [[1, 1, 1]] * 33, [[1, 2, 3], "more"],
    ],
)  # fmt: skip
def test_a_key_of_another_form_counts_for_nothing(centre: Centre, device: ScriptedDevice, five: list[Sent], value: Any) -> None:
    for key in (numbers.LOST, numbers.DROPPED, numbers.UNSURE):
        receipts, welcome = answers(centre, device, {numbers.NONCE: NONCE, key: value})
        assert (receipts, welcome.more, welcome.status) == ([], {numbers.NONCE: NONCE, KEY: device.key.public}, "ok")
    assert lost(centre, device) == []


def test_a_hello_of_another_board_that_is_said_again_settles_nothing_here(centre: Centre, base: Base) -> None:
    one, two = (centre.meet(ScriptedDevice(base, name=name)) for name in ("pi-1", "pi-2"))
    centre.deliver(one, one.train())
    two.train()
    topic, data = two.hello(more=asks(dropped=[Span(1, 1, 1)]))
    assert centre.take((one.topic("hello"), data)).result is Result.DROPPED
    assert lost(centre, one) == []
    centre.take((topic, data))
    assert lost(centre, two) == [(1, 1, False)] and lost(centre, one) == []


# Witnesses of the log.


@dataclass
class FakeLog:
    """A log of so many entries, whose links are their numbers."""

    entries: int

    def link(self, number: int) -> bytes | None:
        return number.to_bytes(32, "big") if number <= self.entries else None


def seen(number: int, digest: bytes | None = None) -> dict[str, Any]:
    return {numbers.WITNESS: log.Link(number, digest or number.to_bytes(32, "big")).encode()}


def test_a_link_that_the_log_does_not_hold_is_noted_once(
    centre: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreeing, "_links", lambda store: FakeLog(10))
    for more in (seen(10), seen(3), {}, {numbers.WITNESS: b"short"}, {numbers.WITNESS: bytes(40)}, {numbers.WITNESS: 7}):
        assert answers(centre, device, more)[1].status == "ok"
    assert centre.store.losses.witnesses() == []
    for more in (seen(12), seen(12), seen(7, b"\x01" * 32)):
        assert answers(centre, device, more)[1].status == "ok"
    rows = centre.store.losses.witnesses("pi-7")
    assert sorted((r.number, bool(r.ours)) for r in rows) == [(7, True), (12, False)]
    for number in range(20, 60):
        answers(centre, device, seen(number))
    assert len(centre.store.losses.witnesses()) == Bounds().witnesses


def test_what_boards_say_is_never_changed_nor_deleted(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    answers(centre, device, asks(dropped=[Span(1, 2, 2)]))
    for statement in ("DELETE FROM lost", "UPDATE lost SET held = 1", "UPDATE lost SET version = 9"):
        with pytest.raises(Exception, match="write-once"):
            centre.store.database.run(statement)
    assert lost(centre, device) == [(1, 2, False)]


def test_a_stranger_and_a_revoked_key_settle_nothing(centre: Centre, device: ScriptedDevice, five: list[Sent]) -> None:
    revoke(centre.store, device.name, 5)
    _, welcome = answers(centre, device, asks(dropped=[Span(1, 2, 5)]))
    assert welcome.status == "quarantine" and lost(centre, device) == []
