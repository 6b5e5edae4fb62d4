"""What comes up is a device's word in this fleet, or is refused by name; what a later release says is answered so."""

from __future__ import annotations

from typing import Any

import pytest

from edgecloud.intake.decision import Result
from modelwire.errors import Malformed
from modelwire.wire import cbor, records, topics
from modelwire.wire.records import (
    _HEAD,
    MAGIC,
    Act,
    Command,
    Desired,
    Enrol,
    Level,
    Presence,
    Receipt,
    Report,
    Response,
    Transfer,
    Trust,
    Unknown,
    Wait,
    Wanted,
    Welcome,
    encode,
)  # fmt: skip
from modelwire.wire.signing import PrivateKey, Role
from tests.edgecloud.centre import Centre, revoke
from tests.edgecloud.device import FLEET, PART, Base, ScriptedDevice, key_of
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, RECEIPT, ROOT, trust

NAMES = (FLEET, "pi-7", "digits", 1)


def errors(centre: Centre) -> list[str]:
    return [r.error for r in centre.store.refusals.last(9)]


def raw(signer: PrivateKey, role: Role = Role.DEVICE, fleet_id: bytes = FLEET_ID, **values: Any) -> bytes:
    """Return a record with any content."""
    content = cbor.encode({"fleet": FLEET, "device": "pi-7", "model": "digits", "at": 1, **values})
    body = _HEAD.pack(MAGIC, 1, role, len(content), fleet_id) + content
    return body + signer.sign(role.domain, fleet_id, body)


DOWNWARD = {
    "welcome": (Welcome(*NAMES, bytes(16), "ok", 1, 0, bytes(32), 0, 0, 1, b"", 0, b"", b"", 0, ()), RECEIPT, Role.RECEIPT),
    "wait": (Wait(*NAMES, 5, "why"), RECEIPT, Role.RECEIPT),
    "receipt": (Receipt(*NAMES, 1, 1, bytes(32), Level.VERIFIED, "", b"", 0, 0), RECEIPT, Role.RECEIPT),
    "command": (Command(*NAMES, 1, 9, bytes(16), 1, b"", "snapshot", {}), COMMAND, Role.COMMAND),
    "desired": (Desired(*NAMES, 1, 9, bytes(32), 1, 0), DIRECTOR, Role.DIRECTOR),
    "act": (Act(FLEET, "pi-7", "all", 1, 1, "admit", bytes(32)), COMMAND, Role.ACT),
    "response": (Response(*NAMES, 1, True, "", {}), RECEIPT, Role.RECEIPT),
    "transfer": (Transfer(*NAMES, bytes(32), 9, 1024, "update", bytes(32), b""), RECEIPT, Role.RECEIPT),
    "wanted": (Wanted(*NAMES, bytes(32), b""), RECEIPT, Role.RECEIPT),
}


@pytest.mark.parametrize("kind", DOWNWARD)
@pytest.mark.parametrize("leaf", ["hello", "state", "rsp", "part", "report"])
def test_what_the_centre_says_is_refused_when_it_comes_up(centre: Centre, device: ScriptedDevice, kind: str, leaf: str) -> None:
    record, key, role = DOWNWARD[kind]
    for signer in (key, device.key):  # nor may a device say it in a role that is not its own
        data = encode(record, signer, FLEET_ID, role=role)
        assert centre.take((device.topic(leaf), data)).result is Result.DROPPED
    assert set(errors(centre)) == {"WrongRole"} and centre.said() == []


def test_a_trust_record_is_refused_when_it_comes_up(centre: Centre, device: ScriptedDevice) -> None:
    record: Trust = trust(FLEET, number=9)
    topic = topics.up(FLEET, "pi-7", "all", "enrol")
    assert centre.take((topic, encode(record, ROOT, FLEET_ID))).result is Result.DROPPED
    assert errors(centre) == ["WrongRole"] and centre.store.trusts.newest().number == 1


def test_a_namesake_fleets_word_is_refused_by_name(centre: Centre, device: ScriptedDevice) -> None:
    device.fleet_id = bytes(16)
    (reply,) = centre.take(device.hello()).replies  # who speaks here: a board with another fleet's fleet.pub hears nothing else of it
    sent = records.parse(reply.encode(RECEIPT, FLEET_ID))
    assert reply.topic == f"e1/{FLEET}/pi-7/all/dn/trust" and sent.fleet == FLEET_ID and isinstance(sent.record, Trust)
    centre.said()
    for message in (device.presence(True, 9), device.response(1), device.transfer(device.train(), PART)[1]):
        assert centre.take(message).result is Result.DROPPED
    assert errors(centre) == ["WrongFleet"] * 4 and centre.said() == []
    assert centre.take(device.update(device.made[1])).result is Result.QUARANTINED  # whose key signs for another fleet, is unknown
    assert centre.statuses(device) == {}


def test_a_kind_that_is_not_known_is_answered_so_once_its_signature_holds(centre: Centre, device: ScriptedDevice) -> None:
    for leaf in ("hello", "state", "rsp", "part", "report"):
        outcome = centre.take((device.topic(leaf), raw(device.key, kind="dream", number=7, depth=[1])))
        assert outcome.result is Result.UNKNOWN
        (reply,) = outcome.replies
        sent = records.parse(reply.encode(RECEIPT, FLEET_ID))
        assert reply.topic == f"e1/{FLEET}/pi-7/digits/dn/cmd" and sent.role is Role.RECEIPT
        sent.verify(RECEIPT.public, FLEET_ID, "the centre", Role.RECEIPT)
        assert sent.record == Response(FLEET, "pi-7", "digits", centre.now, 7, False, "not understood", {})
    (reply,) = centre.take((device.topic("rsp"), raw(device.key, kind="dream", number="x"))).replies
    assert isinstance(reply.record, Response) and reply.record.number == 0
    assert centre.store.refusals.count() == 0


def test_a_strangers_unknown_kind_gets_no_answer(centre: Centre, device: ScriptedDevice) -> None:
    stranger = key_of("mallory")
    assert centre.take((device.topic("rsp"), raw(stranger, kind="dream"))).result is Result.DROPPED
    revoke(centre.store, "pi-7", 5)
    assert centre.take((device.topic("rsp"), raw(device.key, kind="dream"))).result is Result.DROPPED
    assert errors(centre) == ["UnknownDevice"] * 2 and centre.said() == []


def test_an_unknown_kind_in_another_role_fleet_or_place_is_refused(centre: Centre, device: ScriptedDevice) -> None:
    for data in (
        raw(device.key, Role.RECEIPT, kind="dream"), raw(device.key, fleet_id=bytes(16), kind="dream"),
        raw(device.key, kind="dream", model="x"),
    ):  # fmt: skip
        assert centre.take((device.topic("rsp"), data)).result is Result.DROPPED
    assert errors(centre)[::-1] == ["WrongRole", "WrongFleet", "Malformed"]


def test_a_critical_key_that_is_not_known_refuses_the_whole_and_another_does_not(centre: Centre, device: ScriptedDevice) -> None:
    boot = Presence(FLEET, "pi-7", "digits", 1, 9, True, more={"colour": "blue"})
    assert centre.take(device.say("state", boot)).result is Result.NOTED
    data = raw(device.key, kind="presence", boot=10, online=False, more={"!must": 1})
    assert centre.take((device.topic("state"), data)).result is Result.DROPPED
    assert errors(centre) == ["NotUnderstood"]
    presence = centre.store.lineages.presence(1)
    assert presence is not None and presence.boot == 9


def test_a_report_on_what_was_never_told_is_noted_and_nothing_more(centre: Centre, device: ScriptedDevice) -> None:
    said = Report(FLEET, "pi-7", "digits", 1, 3, bytes(32), "fetching", 2, "passive", 100, None, 0.5, "slow link")
    outcome = centre.take(device.say("report", said))
    assert outcome.result is Result.NOTED and outcome.reason == (
        "report on 3: fetching, phase 2, which it was not told by this registry: slow link"
    ) and outcome.replies == ()
    device.key = key_of("mallory")
    assert centre.take(device.say("report", said)).result is Result.DROPPED and errors(centre) == ["UnknownDevice"]


def test_a_device_that_asks_to_be_let_in_signs_it_and_has_a_claim(centre: Centre) -> None:
    key = key_of("pi-9")
    said = Enrol(FLEET, "pi-9", "all", 1, key.public, b"claim", "serial", "0.1.0")
    topic = topics.up(FLEET, "pi-9", "all", "enrol")
    assert centre.take((topic, encode(said, key, FLEET_ID))).result is Result.DROPPED
    assert centre.take((topic, encode(said, key_of("mallory"), FLEET_ID))).result is Result.DROPPED
    assert errors(centre)[::-1] == ["Malformed", "BadSignature"] and centre.store.devices.names() == []


def test_no_device_and_no_model_is_called_all(centre: Centre, device: ScriptedDevice, base: Base) -> None:
    with pytest.raises(Malformed):
        ScriptedDevice(base, name="all").hello()
    for values in ({"device": "all"}, {"model": "all"}):
        hello = records.parse(device.hello()[1]).record
        content = {f: getattr(hello, f) for f in ("key", "state", "base", "epoch", "version", "commit", "runtime", "agent", "trust")}
        data = raw(device.key, kind="hello", **content, answer=b"", claim=b"", resume=False, trainers=[1], **values)
        for topic in (device.topic("hello"), device.topic("hello").replace("digits", "all"), device.topic("hello").replace("pi-7", "all")):
            assert centre.take((topic, data)).result is Result.DROPPED
    assert set(errors(centre)) == {"Malformed"} and len(centre.store.lineages.all()) == 1


@pytest.mark.parametrize("leaf", ["hello", "state", "rsp", "part", "report"])
def test_a_known_kind_on_another_leaf_is_refused(centre: Centre, device: ScriptedDevice, leaf: str) -> None:
    said = {
        "hello": Presence(*NAMES, 1, True), "state": Response(*NAMES, 1, True, "", {}), "rsp": Presence(*NAMES, 1, True),
        "part": Presence(*NAMES, 1, True), "report": Response(*NAMES, 1, True, "", {}),
    }[leaf]  # fmt: skip
    assert centre.take(device.say(leaf, said)).result is Result.DROPPED and errors(centre) == ["Malformed"]
    assert not isinstance(said, Unknown)
