"""A hello opens an epoch only when it answers a challenge of its own, given a short while ago; one that was recorded opens none."""

from __future__ import annotations

import pytest

from edgecloud.intake.challenge import SLOT, answered, challenge
from edgecloud.intake.decision import Decision, Result
from edgecloud.intake.routing import Ingest
from edgecloud.registry import SqliteStore, TrustRow
from modelwire.output_head.recipe import TRAINERS
from modelwire.wire import records
from modelwire.wire.records import Hello, Trust, Welcome, encode
from tests.edgecloud.centre import SECRET, Centre, admit
from tests.edgecloud.device import FLEET, Base, ScriptedDevice, key_of
from tests.keys import FLEET_ID, ROOT, trust


def registered(centre: Centre, base: Base, **other: object) -> ScriptedDevice:
    """Return a device that is known and has never said hello."""
    device = ScriptedDevice(base, **other)  # type: ignore[arg-type]
    admit(centre.store, device.name, device.key.public, 1)
    return device


def hello_of(device: ScriptedDevice) -> Hello:
    return records.expect(records.parse(device.hello()[1]), Hello)


def welcome(centre: Centre) -> Welcome:
    (one,) = [r for r in centre.said() if isinstance(r, Welcome)]
    return one


def test_a_hello_that_would_open_an_epoch_is_challenged_and_changes_nothing(centre: Centre, base: Base) -> None:
    device = registered(centre, base)
    assert centre.take(device.hello()).result is Result.CHALLENGED
    said = welcome(centre)
    assert (said.status, said.epoch, len(said.challenge), said.time) == ("challenge", 0, 32, centre.now)
    assert centre.store.lineages.all() == []
    device.hear(said)
    assert centre.take(device.hello()).result is Result.WELCOMED
    said = welcome(centre)
    end = centre.store.log.end()
    assert end is not None
    assert (said.status, said.epoch, said.challenge, said.wait, said.log, said.resume) == ("ok", 1, b"", 0, end.encode(), b"")
    assert (said.resume_version, said.trainers) == (0, TRAINERS)


def test_an_old_hello_that_is_played_again_opens_no_epoch(centre: Centre, base: Base) -> None:
    """An epoch closes the one before: a recorded hello of a lost state could close the present one."""
    device = registered(centre, base)
    recorded = [device.hello()]
    centre.take(recorded[0])
    device.hear(welcome(centre))
    recorded.append(device.hello())  # with its answer
    centre.take(recorded[1])
    centre.said()
    for life, later in ((1, 2 * SLOT), (2, 10**8)):
        centre.now += later
        centre.meet(ScriptedDevice(base, life=life))
        before = centre.store.lineages.current(1)
        for message in recorded:
            centre.take(message)
            assert (welcome(centre).status, welcome_epoch(centre, message)) == ("ok", 1)  # its own, which is closed
        assert centre.store.lineages.current(1) == before


def welcome_epoch(centre: Centre, message: tuple[str, bytes]) -> int:
    centre.take(message)
    return welcome(centre).epoch


def test_a_recorded_answer_opens_no_epoch_in_a_registry_that_lost_its_device(centre: Centre, store: SqliteStore, base: Base) -> None:
    device = registered(centre, base)
    centre.take(device.hello())
    device.hear(welcome(centre))
    recorded = device.hello()
    centre.now += 2 * SLOT
    assert centre.take(recorded).result is Result.CHALLENGED and store.lineages.all() == []
    other = Centre(store)
    other.ingest = Ingest(store, secret=bytes(32))  # started anew, with another secret
    other.now = centre.now - 2 * SLOT
    assert other.take(recorded).result is Result.CHALLENGED and store.lineages.all() == []


@pytest.mark.parametrize(("later", "good"), [(0, True), (SLOT, True), (2 * SLOT, False), (-SLOT, False)])
def test_an_answer_is_good_in_its_slot_and_the_next(base: Base, later: int, good: bool) -> None:
    device = ScriptedDevice(base)
    device.answer = challenge(SECRET, hello_of(device), 10 * SLOT)
    assert answered(SECRET, hello_of(device), 10 * SLOT + later) is good
    assert not answered(bytes(32), hello_of(device), 10 * SLOT + later)


@pytest.mark.parametrize("what", ["device", "model", "key", "state", "nothing"])
def test_an_answer_is_good_for_its_device_model_key_and_state_alone(base: Base, what: str) -> None:
    device = ScriptedDevice(base)
    answer = challenge(SECRET, hello_of(device), 1000)
    other = {
        "device": ScriptedDevice(base, name="pi-8"), "model": ScriptedDevice(base, model="motion"), "key": ScriptedDevice(base),
        "state": ScriptedDevice(base, life=1), "nothing": ScriptedDevice(base),
    }[what]  # fmt: skip
    if what == "device":
        other.key = device.key
    if what == "key":
        other.key = key_of("mallory")
    state = other.state_id if what == "state" else device.state_id
    said = records.expect(records.parse(other.hello(answer=answer, state=state)[1]), Hello)
    assert answered(SECRET, said, 1000) is (what == "nothing")


def test_a_challenge_without_a_secret_is_a_fault(base: Base) -> None:
    with pytest.raises(ValueError, match="secret"):
        challenge(b"", hello_of(ScriptedDevice(base)), 1000)


def test_a_device_with_an_older_trust_record_gets_the_newest_before_its_welcome(centre: Centre, base: Base) -> None:
    device = registered(centre, base, trust=0)

    def heard(outcome: Decision) -> list[str]:
        return [r.topic.split("/", 2)[2] for r in outcome.replies]

    assert heard(centre.take(device.hello())) == ["pi-7/all/dn/trust", "pi-7/digits/dn/cmd"]
    sent = centre.replies[0]
    assert sent.encode(ROOT, FLEET_ID) == centre.store.trusts.newest().record and isinstance(sent.record, Trust)
    device.hear(centre.said()[-1])
    assert heard(centre.take(device.hello())) == ["pi-7/all/dn/trust", "pi-7/digits/dn/cmd"]
    device.trust = 1
    assert heard(centre.take(device.hello())) == ["pi-7/digits/dn/cmd"]
    stranger = ScriptedDevice(base, name="pi-9", trust=0)
    assert heard(centre.take(stranger.hello())) == ["pi-9/all/dn/trust", "pi-9/digits/dn/cmd"]
    centre.store.trusts.add(TrustRow(3, encode(trust(FLEET, number=3), ROOT, FLEET_ID)))
    (first, _) = centre.take(device.hello()).replies
    assert records.parse(first.sealed).record.number == 3
