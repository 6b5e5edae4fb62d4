"""What the operator asks devices for: sealed by the command key, numbered for ever, passed on as it is, and not when it has expired."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from edgecloud import keys
from edgecloud.commands import sealing
from edgecloud.registry import SqliteStore, open_registry
from modelwire import identity
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import Act, Command, Welcome
from modelwire.wire.signing import Role
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import KEY, LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

DAY = 24 * 3600


@pytest.fixture
def met(desk: Desk, base: Base) -> tuple[Desk, ScriptedDevice]:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    with opened(desk) as centre:
        device = centre.meet(ScriptedDevice(base))
        centre.deliver(device, device.train())
        centre.rebuild()
    return desk, device


class opened:
    """A centre over the desk's registry, at the present time."""

    def __init__(self, desk: Desk) -> None:
        self._store = open_registry(desk.folder / "fleet.db", synchronous="OFF")

    def __enter__(self) -> Centre:
        return Centre(self._store, now=int(time.time()))

    def __exit__(self, *_: object) -> None:
        self._store.close()


def sent(centre: Centre) -> list[tuple[Command, bytes]]:
    """Return the commands that go down now, with their bytes."""
    replies = [r for one in centre.ingest.commands(now=centre.now) for r in centre.ingest.said(one, centre.now)]
    return [(r.record, r.encode(key_of("nobody"), bytes(16))) for r in replies]  # type: ignore[misc]


def test_a_command_is_sealed_by_the_command_key_for_the_present_state_and_passed_on_as_it_is(met: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = met
    before = time.time()
    said = desk.json("snapshot", "request", "pi-7")
    with opened(desk) as centre:
        ((command, data),) = sent(centre)
        public = keys.load_key(desk.folder / "command.key", KeyKind.COMMAND_PRIVATE).public
        signed = records.parse(data)
        assert signed.role is Role.COMMAND
        signed.verify(public, centre.store.identity.id, "the operator", Role.COMMAND)
        assert (command.number, command.verb, command.body, command.parent) == (said["number"], "snapshot", {}, b"")
        assert (command.state, command.epoch) == (device.state_id, 1)
        assert before * 1000 - 1 <= command.number <= time.time() * 1000
        assert abs(command.expiry - before - 30 * DAY) < 60 and said["expires_at"] == command.expiry
        centre.take(device.hello())
        assert [type(r) for r in centre.said()] == [Welcome, Command]
        centre.take(device.response(command.number, True, "snapshot 2 queued"))
        assert sent(centre) == []
    assert "snapshot done" in desk.ok("show", "pi-7") and "snapshot 2 queued" in desk.ok("show", "pi-7")


def test_an_expired_command_is_shown_and_not_sent_and_may_be_asked_again(
    met: tuple[Desk, ScriptedDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, device = met
    first = desk.json("snapshot", "request", "pi-7", "--expires", "90s")
    with opened(desk) as centre:
        assert len(sent(centre)) == 1
        centre.now += 91
        assert sent(centre) == []
        centre.take(device.hello())
        assert [type(r) for r in centre.said()] == [Welcome]
    later = time.time() + 91
    monkeypatch.setattr(time, "time", lambda: later)
    text = desk.ok("show", "pi-7")
    assert re.search("^expired +snapshot, ", text, re.MULTILINE) and "asked for" not in text
    shown: Any = desk.json("show", "pi-7")["models"]
    assert [(r["number"], r["expired"]) for r in shown[0]["requests"]] == [(first["number"], True)]
    again = desk.json("snapshot", "request", "pi-7")
    assert int(str(again["number"])) > int(str(first["number"]))


@pytest.mark.parametrize("text", ["", "0s", "5", "1w", "-1d", "3651d", "1.5h", "9999999999d"])
def test_an_expiry_is_a_time(met: tuple[Desk, ScriptedDevice], text: str) -> None:
    said = met[0].error("snapshot", "request", "pi-7", f"--expires={text}")
    assert said["code"] == 2 and str(said["message"]).startswith("--expires: ") and "90s, 30m, 12h or 30d" in str(said["message"])


def test_numbers_rise_also_within_one_millisecond_and_after_a_restore(
    met: tuple[Desk, ScriptedDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, _ = met
    desk.ok("backup", "before.db")
    monkeypatch.setattr(time, "time_ns", lambda: 5_000_000_000)
    assert sealing.next_number(0) == 5000 and sealing.next_number(5000) == 5001 and sealing.next_number(9000) == 9001
    given = int(str(desk.json("snapshot", "request", "pi-7")["number"]))
    desk.ok("restore", "before.db", "--force")
    monkeypatch.setattr(time, "time_ns", lambda: 5_001_000_000)  # the next millisecond
    assert int(str(desk.json("snapshot", "request", "pi-7")["number"])) > given == 5000


def test_a_command_for_a_state_that_is_lost_is_asked_anew(met: tuple[Desk, ScriptedDevice], base: Base) -> None:
    desk, _ = met
    first = desk.json("snapshot", "request", "pi-7")
    with opened(desk) as centre:
        lost = centre.meet(ScriptedDevice(base, life=1, trust=1))
    second = desk.json("snapshot", "request", "pi-7")
    assert second["number"] != first["number"] and desk.json("snapshot", "request", "pi-7")["number"] == second["number"]
    with opened(desk) as centre:
        assert {c.number: (c.state == lost.state_id, c.epoch) for c, _ in sent(centre)} == {
            first["number"]: (False, 1), second["number"]: (True, 2),
        }  # fmt: skip


def test_only_the_fleets_command_key_seals(met: tuple[Desk, ScriptedDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    desk, _ = met
    for wrong in ("root.key", "receipt.key", "director.key", "fleet.pub"):
        for words in (["snapshot", "request", "pi-7"], ["devices", "revoke", "pi-7"], ["devices", "add", "pi-8", other_line()]):
            said = desk.error(*words, "--key", wrong)
            assert said["error"] == "WrongKeyKind" and "the operator's private command key" in str(said["message"])
    (desk.folder / "other.key").write_text(write_key(KeyKind.COMMAND_PRIVATE, b"x" * 32))
    (desk.folder / "other.key").chmod(0o600)
    assert "none of the command keys" in str(desk.error("snapshot", "request", "pi-7", "--key", "other.key")["message"])
    (desk.folder / "command.key").rename(desk.folder / "mine.key")
    assert desk.error("snapshot", "request", "pi-7")["error"] == "MissingFile"
    with opened(desk) as centre:
        assert sent(centre) == [] and centre.store.devices.names() == ["pi-7"]
        assert centre.store.devices.keys("pi-7")[0].revoked_at is None
    monkeypatch.setenv("EDGECLOUD_COMMAND_KEY", "mine.key")
    desk.ok("snapshot", "request", "pi-7")


def other_line() -> str:
    return write_key(KeyKind.DEVICE, key_of("pi-8").public)


def acts(store: SqliteStore, device: str) -> list[tuple[str, str]]:
    """Return what was decided about a device, each proven to be the operator's word."""
    out, held = [], keys.trusted(store.identity, [row.record for row in store.trusts.all()])
    for row in store.acts.of(device):
        signed = records.parse(row.record)
        (key,) = held.keys(Role.ACT, int(time.time()))
        signed.verify(key, store.identity.id, "the operator", Role.ACT)
        said = records.expect(signed, Act)
        assert (said.number, said.device, said.verb, said.key) == (row.number, row.device, row.verb, row.key)
        out.append((row.verb, row.key.hex()))
    return out


def test_who_is_let_in_and_who_is_not_is_sealed(met: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = met
    new = key_of("pi-7", 1).public
    desk.ok("devices", "add", "pi-7", LINE)  # it speaks already: nothing is decided
    desk.ok("devices", "add", "pi-7", write_key(KeyKind.DEVICE, new), "--replace")
    desk.ok("devices", "revoke", "pi-7")
    desk.ok("devices", "revoke", "pi-7")
    with opened(desk) as centre:
        assert acts(centre.store, "pi-7") == [("admit", KEY), ("revoke", KEY), ("admit", new.hex()), ("revoke", new.hex())]
        numbers = [row.number for row in centre.store.acts.of("pi-7")]
        assert numbers == sorted(set(numbers))


def answer(device: ScriptedDevice, command: Command, leaves: list[bytes]) -> tuple[str, bytes]:
    return device.response(command.number, True, "", {"leaves": b"".join(leaves), "of": len(leaves)})


def test_leaves_that_a_device_gives_are_compared_with_the_head(met: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = met
    assert "has answered no request" in str(desk.error("leaves", "show", "pi-7")["message"])
    schema = device.base.manifest.schema
    name = schema.tensors[3].name
    desk.ok("leaves", "request", "pi-7", "--tensor", name)
    with opened(desk) as centre:
        ((command, _),) = sent(centre)
        assert command.body == {"tensor": 3, "first": 0} and command.verb == "leaves"
        centre.take(answer(device, command, identity.tensor_leaves(schema.tensors[3], device.state.weights[3])))
    said = desk.json("leaves", "show", "pi-7/digits")
    assert (said["tensor"], said["equal"], said["differ"], said["compared"], said["of"]) == (name, True, [], 1, 1)
    desk.ok("leaves", "request", "pi-7", "--tensor", name)
    with opened(desk) as centre:
        ((command, _),) = sent(centre)
        other = device.state.weights[3] + np.float32(1)
        centre.take(answer(device, command, identity.tensor_leaves(schema.tensors[3], other)))
    assert desk.json("leaves", "show", "pi-7")["differ"] == [0] and "differ" in desk.ok("leaves", "show", "pi-7")
    assert "no tensor" in str(desk.error("leaves", "request", "pi-7", "--tensor", "x")["message"])
    assert desk.error("leaves", "request", "pi-7", "--tensor", name, "--first=-1")["error"] == "Usage"


@pytest.mark.parametrize(
    "body", [{}, {"leaves": b"x" * 31, "of": 1}, {"leaves": bytes(32 * 513), "of": 600}, {"leaves": bytes(32)}, {"leaves": 5, "of": True}]
)
def test_an_answer_that_holds_no_leaves_is_said(met: tuple[Desk, ScriptedDevice], body: dict[str, Any]) -> None:
    desk, device = met
    desk.ok("leaves", "request", "pi-7", "--tensor", device.base.manifest.schema.tensors[0].name)
    with opened(desk) as centre:
        ((command, _),) = sent(centre)
        centre.take(device.response(command.number, True, "here", body))
    assert "gave no leaves" in str(desk.error("leaves", "show", "pi-7")["message"])


def test_a_bare_file_is_proven_by_its_weights_alone(met: tuple[Desk, ScriptedDevice], base: Base) -> None:
    desk, device = met
    (desk.folder / "model.tflite").write_bytes(device.served())
    said = desk.json("verify", "pi-7@1", "--file", "model.tflite")
    assert said["exact"] is True and said["weights_node"] == device.state.root_parts.weights.hex()
    assert "bit for bit" in desk.ok("verify", "pi-7@1", "--file", "model.tflite")
    (desk.folder / "base.tflite").write_bytes(base.file)
    desk.ok("verify", "pi-7@base", "--file", "base.tflite")
    assert desk.error("verify", "pi-7@1", "--file", "base.tflite")["error"] == "RootMismatch"
    (desk.folder / "motion.tflite").write_bytes((TINY.parent / "motion.tflite").read_bytes())
    assert desk.error("verify", "pi-7@1", "--file", "motion.tflite")["error"] == "WrongBase"
    assert desk.error("verify", "pi-7", "--file", "base.tflite")["error"] == "BadArgument"
    assert desk.error("verify", "pi-7@1", "--file", "none.tflite")["error"] == "MissingFile"

