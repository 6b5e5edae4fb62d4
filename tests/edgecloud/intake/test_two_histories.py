"""Two state folders with one key: the centre refuses the second history, says so once, and no stranger can make it say so."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest

from edgecloud.intake.challenge import challenge
from edgecloud.intake.decision import Result
from edgecloud.registry import AlarmRow
from modelwire.update.sections import Kind
from modelwire.wire import numbers, records
from modelwire.wire.numbers import Span
from modelwire.wire.records import Hello, Level, Receipt, Welcome
from tests.edgecloud.centre import SECRET, Centre
from tests.edgecloud.device import Base, ScriptedDevice, key_of


def alarms(centre: Centre) -> list[AlarmRow]:
    return centre.store.losses.alarms(only_open=True)


def clone(device: ScriptedDevice) -> ScriptedDevice:
    """Return a second board with a copy of this one's folder; its samples are other ones."""
    made = deepcopy(device)
    made.train(density=0.0001)  # so its numbers of chance are others from here on
    made.state, made.residual, made.version, made.head = (deepcopy(x) for x in (device.state, device.residual, device.version, device.head))
    return made


def greet_again(centre: Centre, device: ScriptedDevice) -> list[Result]:
    """Say hello until it is no longer challenged, and return what became of each."""
    out = []
    while not out or (out[-1] is Result.CHALLENGED and len(out) < 3):
        out.append(centre.take(device.hello()).result)
        for record in centre.said():
            if isinstance(record, Welcome):
                device.answer = record.challenge
    return out


@pytest.fixture
def two(centre: Centre, device: ScriptedDevice) -> tuple[ScriptedDevice, ScriptedDevice]:
    """A board with two versions at the centre, and a second one with a copy of its folder."""
    centre.deliver(device, device.train(), device.train())
    centre.rebuild()
    centre.said()
    return device, clone(device)


def test_another_commit_under_a_number_raises_one_alarm_that_counts(centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]) -> None:
    first, second = two
    centre.deliver(first, first.train())
    for n in range(50):
        twin = second.seal(Kind.SNAPSHOT, second.state.snapshot(), version=3, parent=second.head, extension={"note": str(n)})
        assert centre.deliver(second, twin)[0].result is Result.REFUSED
    (alarm,) = alarms(centre)
    assert (alarm.device, alarm.model, alarm.kind, alarm.times) == ("pi-7", "digits", "fork", 50)
    assert "@3 is already held with another commit" in alarm.text
    assert centre.head(first) == 3


def test_an_alarm_that_was_acknowledged_is_raised_anew(centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]) -> None:
    first, second = two
    centre.deliver(first, first.train())
    centre.deliver(second, second.train())
    centre.now += 10
    assert centre.store.losses.acknowledge("pi-7", centre.now) == 1 and alarms(centre) == []
    assert centre.store.losses.acknowledge("pi-7", centre.now) == 0
    centre.now += 10
    centre.deliver(second, second.train(version=3))
    (alarm,) = alarms(centre)
    assert (alarm.times, alarm.first_at, alarm.last_at) == (1, centre.now, centre.now)


def test_a_second_version_on_one_parent_is_of_another_history_and_is_named(
    centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]
) -> None:
    first, second = two
    centre.deliver(first, first.train())
    late = second.train(version=9)
    assert centre.deliver(second, late)[0].result is Result.REFUSED
    refusal = centre.store.refusals.by_commit(late.commit)
    assert refusal is not None and refusal.error == "TwoHistories" and "@3 went on from the same one before it" in refusal.reason
    assert len(alarms(centre)) == 1


def test_the_same_on_the_base_is_found_too(centre: Centre, device: ScriptedDevice) -> None:
    second = clone(device)
    centre.deliver(device, device.train())
    centre.deliver(second, second.train(version=5))
    assert [a.kind for a in alarms(centre)] == ["fork"]


def test_a_folder_behind_the_head_proves_itself_by_a_challenge_before_it_counts(
    centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]
) -> None:
    first, second = two
    late = first.hello()
    centre.deliver(first, first.train())
    for _ in range(3):  # late, or played again by the broker
        assert centre.take(late).result is Result.CHALLENGED
    centre.said()
    assert alarms(centre) == []
    assert greet_again(centre, first) == [Result.WELCOMED] and alarms(centre) == []
    assert greet_again(centre, second) == [Result.CHALLENGED, Result.WELCOMED]
    (alarm,) = alarms(centre)
    assert "a folder that stands at @2 speaks, and @3 came before" in alarm.text


def test_an_answer_from_before_the_head_moved_proves_nothing(centre: Centre, base: Base) -> None:
    device = centre.meet(ScriptedDevice(base))
    said = records.parse(device.hello()[1]).record
    assert isinstance(said, Hello)
    opened = device.hello(answer=challenge(SECRET, said, centre.now))  # as the hello did that opened its epoch
    centre.deliver(device, device.train())
    assert centre.take(opened).result is Result.CHALLENGED and alarms(centre) == []


def test_a_stranger_raises_no_alarm(centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]) -> None:
    first, second = two
    centre.deliver(first, first.train())
    second.key = key_of("a stranger")
    for _ in range(3):
        assert centre.take(second.hello()).result is Result.QUARANTINED
        assert centre.deliver(second, second.train())[0].result is Result.QUARANTINED
    forged = replace(second.train(), parent=first.head)
    centre.deliver(second, forged)
    assert alarms(centre) == []


def test_a_sound_life_raises_no_alarm(centre: Centre, device: ScriptedDevice) -> None:
    sent = [device.train() for _ in range(3)]
    centre.deliver(device, sent[2], sent[0], sent[0], sent[1])
    lie = device.train(fingerprint=(1, 2))
    child = device.train()
    centre.deliver(device, lie, child)
    centre.rebuild()
    refused = [r for r in centre.said() if isinstance(r, Receipt) and r.level is Level.REFUSED]
    centre.deliver(device, device.snapshot(refused[-1].good), lie, child)
    centre.rebuild()
    assert greet_again(centre, device) == [Result.WELCOMED]
    device.reflash()
    centre.meet(device)
    centre.deliver(device, device.train())
    assert alarms(centre) == []


def test_while_there_are_two_no_number_is_noted_as_lost(centre: Centre, two: tuple[ScriptedDevice, ScriptedDevice]) -> None:
    first, second = two
    centre.deliver(first, first.train())
    centre.deliver(second, second.train(), second.train())
    centre.said()
    second.answer = b""
    asked = {numbers.NONCE: bytes(16), **numbers.said(numbers.DROPPED, [Span(1, 3, 4)])}
    centre.take(second.hello(version=4, more=asked))
    (welcome,) = (w for w in centre.said() if isinstance(w, Welcome))
    assert numbers.read(welcome.more, numbers.MISSING) == []
    lineage = centre.store.lineages.get("pi-7", "digits")
    assert lineage is not None and centre.store.losses.of(lineage.id) == []
    four = first.train()
    assert four.version == 4 and centre.deliver(first, four)[0].result is Result.STORED
