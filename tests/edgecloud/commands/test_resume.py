"""A board set up anew asks, the operator allows, and the last model goes down in the bytes that the command names, to nobody else."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.intake import decision
from edgecloud.intake.decision import Result
from edgecloud.registry import Request, Store, open_registry
from edgecloud.versions import last_models
from modelwire.errors import DigestMismatch
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.snap import snap
from modelwire.lattice.state import ModelState
from modelwire.update.adopting import read_adopted, read_taken
from modelwire.update.container import Container
from modelwire.update.sections import Kind
from modelwire.wire import parts, records
from modelwire.wire.commands import Adopt, Take, task_of
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.parts import PART_MAX, WANTED_AT_ONCE
from modelwire.wire.records import Command, Transfer, Wanted, Welcome
from modelwire.wire.signing import UPDATE
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

MODELS = TINY.parent
Met = tuple[Desk, Centre, ScriptedDevice]


def registry(desk: Desk, file: Path = TINY) -> Centre:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(file), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    return Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=int(time.time()))


def learn(centre: Centre, device: ScriptedDevice, rounds: int = 3) -> bytes:
    """Let it make some versions, and return the root of the last one."""
    for _ in range(rounds):
        centre.deliver(device, device.train())
    centre.rebuild()
    centre.said()
    return device.state.root


def lose(centre: Centre, device: ScriptedDevice, **other: Any) -> ScriptedDevice:
    """Let it lose its disk, be set up anew, and ask for its last model. other: fields of the new one."""
    anew = replace(device, life=device.life + 1, answer=b"", **other)
    anew.key = device.key
    anew.reset()
    greet(centre, anew)
    return anew


def greet(centre: Centre, device: ScriptedDevice, **other: Any) -> Welcome:
    """Say hello, asking for the last model, until it is not challenged; return the last welcome."""
    device.fleet_id = centre.store.identity.id
    for _ in range(2):
        centre.take(device.hello(**{"resume": True, **other}))
        said = [r for r in centre.said() if isinstance(r, Welcome)]
        for record in said:
            device.hear(record)
        if said and said[-1].status != "challenge":
            return said[-1]
    raise AssertionError("no welcome")


@pytest.fixture
def met(desk: Desk, base: Base) -> Any:
    centre = registry(desk)
    yield desk, centre, centre.meet(ScriptedDevice(base, trust=1))
    centre.store.close()


def commands(centre: Centre) -> list[tuple[Request, Command]]:
    return [(r, records.expect(records.parse(r.record), Command)) for r in centre.ingest.commands(now=centre.now)]


def the_command(centre: Centre) -> Command:
    ((_, command),) = commands(centre)
    return command


def applied(store: Store, update: Container) -> ModelState:
    """Return what the update makes of the board's base, proven."""
    row = store.bases.named("digits")
    assert row is not None
    base = Base(store.blobs.get(row.file))
    state = ModelState.of_base(base.manifest, base.weights)
    apply(state, update)
    prove_root(state, update)
    return state


def fetched(centre: Centre, device: ScriptedDevice, transfer: Transfer) -> bytes:
    """Ask for all parts as a device does, and return the whole."""
    have: dict[int, bytes] = {}
    count = parts.count(transfer)
    while len(have) < count:
        before = len(have)
        centre.replies.clear()
        centre.now += 1
        centre.take(wanted(device, transfer.id, set(have), count))
        assert len(centre.replies) <= WANTED_AT_ONCE
        assert {r.topic for r in centre.replies} == {f"e1/orchard/{device.name}/{device.model}/dn/part"}
        for reply in centre.replies:
            part = parts.parse(reply.encode(key_of("nobody"), bytes(16)))
            parts.check(transfer, part)
            have[part.index] = part.data
        assert len(have) > before
    return parts.join(transfer, have)


def wanted(device: ScriptedDevice, id: bytes, have: set[int], count: int) -> tuple[str, bytes]:
    return device.say("part", Wanted(device.fleet, device.name, device.model, 1, id, parts.bitmap(have, count)))


def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no record hold an update, and parts be small."""
    monkeypatch.setattr(last_models, "RECORD_HOLDS", 0)
    monkeypatch.setattr("edgecloud.intake.handing.PART", 1024)


def test_the_welcome_offers_the_last_head_and_devices_shows_who_asks(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    assert greet(centre, device).resume == b"", "it has what it asks for"
    anew = lose(centre, device)
    welcome = greet(centre, anew)
    assert (welcome.epoch, welcome.version, welcome.resume, welcome.resume_version) == (2, 3, device.head, 3)
    assert "pi-7/digits would like its last model @3 back" in desk.ok("devices")
    listed: Any = desk.json("devices")["devices"]
    assert listed[0]["models"][0]["would_resume"] == 3
    assert greet(centre, anew, resume=False).resume == b""
    assert "would like" not in desk.ok("devices")


def test_the_operator_seals_the_way_back_and_the_device_comes_to_the_very_root(met: Met) -> None:
    desk, centre, device = met
    root = learn(centre, device)
    anew = lose(centre, device)
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    command = the_command(centre)
    assert (command.verb, command.number, command.epoch, command.state) == ("adopt", said[0]["number"], 2, anew.state_id)
    assert command.parent == anew.base.manifest.commit and said[0]["root"] == root.hex() and said[0]["version"] == 3
    task = task_of(command)
    assert isinstance(task, Adopt)
    state = applied(centre.store, read_adopted(task.update, command))
    assert state.root == root and all(np.array_equal(a, b) for a, b in zip(state.weights, device.state.weights, strict=True))
    assert desk.json("devices", "resume", "pi-7/digits")["resumed"] == said, "asked once"
    centre.take(anew.response(command.number, True, "@4 took its last model back"))
    centre.said()
    anew.state = state
    centre.deliver(anew, anew.seal(Kind.DELTA, read_adopted(task.update, command).sections(state.manifest.schema)))
    assert [j.ok for j in centre.rebuild()] == [True]
    assert "moved on to @4" in str(desk.error("devices", "resume", "pi-7/digits")["message"])
    assert "no model of pi-7 asks" in str(desk.error("devices", "resume", "pi-7")["message"])
    assert greet(centre, anew).resume == b""


def test_the_operator_may_decline_and_the_board_is_offered_nothing_more(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    assert "asks for no last version" in str(desk.error("devices", "resume", "pi-7/digits", "--decline")["message"])
    anew = lose(centre, device)
    assert desk.json("devices", "resume", "pi-7", "--decline") == {"resumed": [], "declined": ["pi-7/digits"]}
    assert "would like" not in desk.ok("devices") and commands(centre) == []
    for _ in range(2):
        welcome = greet(centre, anew)
        assert (welcome.resume, welcome.resume_version) == (b"", 0)
    assert greet(centre, lose(centre, anew)).resume_version == 3, "another folder asks anew"


def test_a_large_one_goes_in_parts_to_the_device_that_asks(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    root = learn(centre, device)
    anew = lose(centre, device)
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    ((request, command),) = commands(centre)
    task = task_of(command)
    assert isinstance(task, Take) and (task.size, said[0]["verb"]) == (said[0]["bytes"], "take")
    sealed, described = centre.ingest.said(request, centre.now)
    assert sealed.sealed == request.record and isinstance(described.record, Transfer)
    centre.take(anew.hello(resume=True))
    assert [type(r) for r in centre.said()] == [Welcome, Command, Transfer], "with each welcome, too"
    data = fetched(centre, anew, described.record)
    assert applied(centre.store, read_taken(data, command)).root == root
    assert desk.json("devices", "resume", "pi-7")["resumed"] == said, "asked once"


def test_nobody_else_is_handed_a_part_and_nothing_else_is(met: Met, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    learn(centre, device)
    anew = lose(centre, device)
    other = centre.meet(ScriptedDevice(base, name="pi-8", trust=1))
    desk.ok("devices", "resume", "pi-7")
    task = task_of(the_command(centre))
    assert isinstance(task, Take)
    count = -(-task.size // 1024)

    def handed(message: tuple[str, bytes], result: Result = Result.DROPPED) -> int:
        centre.replies.clear()
        assert centre.take(message).result is result
        return len(centre.replies)

    assert handed(wanted(anew, task.id, set(), count), Result.NOTED) == min(count, WANTED_AT_ONCE)
    assert handed(wanted(other, task.id, set(), count)) == 0, "another enrolled device"
    row = centre.store.bases.named("digits")
    assert row is not None
    for digest in (row.file, bytes(32), centre.store.versions.of(1)[0].blob):
        assert handed(wanted(anew, digest, set(), 1)) == 0, "bytes that no command names"
    stranger = replace(anew)
    stranger.key = key_of("mallory")
    assert handed(wanted(stranger, task.id, set(), count)) == 0
    assert handed((anew.topic("part"), wanted(other, task.id, set(), count)[1])) == 0, "another's word on its topic"
    assert handed(wanted(anew, task.id, set(range(count)), count), Result.NOTED) == 0
    for have in (b"", bytes(-(-count // 8) + 1), b"\xff" * -(-count // 8)):
        assert handed(anew.say("part", Wanted("orchard", "pi-7", "digits", 1, task.id, have))) == 0
    lost = lose(centre, anew)
    assert handed(wanted(lost, task.id, set(), count)) == 0, "a third folder: the command is for the second"
    centre.now += 31 * 24 * 3600
    assert handed(wanted(anew, task.id, set(), count)) == 0, "it has expired"


@pytest.mark.parametrize("ok", [True, False])
def test_after_its_answer_nothing_more_goes_down(met: Met, monkeypatch: pytest.MonkeyPatch, ok: bool) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    learn(centre, device)
    anew = lose(centre, device)
    desk.ok("devices", "resume", "pi-7")
    command = the_command(centre)
    task = task_of(command)
    assert isinstance(task, Take)
    centre.take(anew.response(command.number, ok, "done"))
    centre.replies.clear()
    assert centre.take(wanted(anew, task.id, set(), -(-task.size // 1024))).result is Result.DROPPED and centre.replies == []
    assert commands(centre) == []


def test_a_revoked_key_is_handed_nothing_and_a_new_one_on_new_hardware_all(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    root = learn(centre, device)
    new = replace(device, life=1, answer=b"")
    new.key = key_of("pi-7", 2)
    new.reset()
    desk.ok("devices", "revoke", "pi-7")
    assert greet(centre, new).status == "quarantine"
    desk.ok("devices", "add", "pi-7", write_key(KeyKind.DEVICE, new.key.public), "--replace")
    centre.tick()
    centre.said()
    assert greet(centre, new).resume_version == 3
    desk.ok("devices", "resume", "pi-7")
    ((request, command),) = commands(centre)
    transfer = centre.ingest.said(request, centre.now)[1].record
    assert isinstance(transfer, Transfer)
    centre.replies.clear()
    assert centre.take(wanted(device, transfer.id, set(), parts.count(transfer))).result is Result.DROPPED and centre.replies == []
    assert applied(centre.store, read_taken(fetched(centre, new, transfer), command)).root == root


def test_a_device_that_asks_for_too_much_at_once_waits(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    monkeypatch.setattr(decision, "A_SECOND", 5)
    learn(centre, device)
    anew = lose(centre, device)
    desk.ok("devices", "resume", "pi-7")
    task = task_of(the_command(centre))
    assert isinstance(task, Take)
    count = -(-task.size // 1024)
    for _ in range(50):
        centre.take(wanted(anew, task.id, set(), count))
    assert len(centre.replies) == 5
    centre.now += 1
    centre.take(wanted(anew, task.id, set(), count))
    assert len(centre.replies) > 5


def test_bytes_that_were_changed_in_the_registry_do_not_go_down_and_stop_nobody(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    learn(centre, device)
    anew = lose(centre, device)
    desk.ok("devices", "resume", "pi-7")
    ((request, command),) = commands(centre)
    task = task_of(command)
    assert isinstance(task, Take)
    count = -(-task.size // 1024)
    assert len(centre.ingest.said(request, centre.now)) == 2
    damage(centre.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", task.id)
    centre.replies.clear()
    assert "have changed" in centre.take(wanted(anew, task.id, set(), count)).reason and centre.replies == []
    again = Centre(centre.store, now=centre.now)
    assert len(again.ingest.said(request, centre.now)) == 1, "the command alone"
    damage(centre.store, "DELETE FROM blob WHERE sha256 = ?", task.id)
    assert again.take(wanted(anew, task.id, set(), count)).result is Result.DROPPED and again.replies == []
    assert again.take(anew.hello(resume=True)).result is Result.WELCOMED


def test_units_that_grew_come_back_as_a_snapshot(met: Met) -> None:
    desk, centre, device = met
    trained = [w + np.float32(0.01) for w in device.state.weights]
    wider = snap(device.state, trained, device.residual, density=0.2, max_bytes=1 << 20, widen=[0])
    device.state, device.residual = wider.state, wider.residual
    centre.deliver(device, device.seal(wider.kind, wider.sections))
    root = learn(centre, device, 1)
    lose(centre, device)
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    assert (said[0]["kind"], said[0]["verb"]) == ("snapshot", "take")
    command = the_command(centre)
    task = task_of(command)
    assert isinstance(task, Take)
    assert applied(centre.store, read_taken(centre.store.blobs.get(task.id), command)).root == root


@pytest.mark.parametrize("file", ["mixed", "motion"])
def test_models_of_every_type_come_back(desk: Desk, file: str) -> None:
    centre = registry(desk, MODELS / f"{file}.tflite")
    base = Base.of(MODELS / f"{file}.tflite")
    device = centre.meet(ScriptedDevice(base, trust=1))
    sent = device.snapshot()
    centre.deliver(device, sent)
    centre.rebuild()
    centre.said()
    rng = np.random.default_rng(1)
    for t, spec in enumerate(base.manifest.schema.tensors):
        if base.manifest.lattice(t):
            device.state.integers[t][:] = rng.integers(-9, 9, spec.size)
    moved = device.state.snapshot()
    device.state = device.state.at_base()
    device.state.apply(Kind.SNAPSHOT, moved)
    centre.deliver(device, device.snapshot())
    assert [j.ok for j in centre.rebuild()] == [True]
    centre.said()
    lose(centre, device)
    desk.ok("devices", "resume", "pi-7")
    command = the_command(centre)
    task = task_of(command)
    update = (
        read_adopted(task.update, command) if isinstance(task, Adopt)
        else read_taken(centre.store.blobs.get(task.id), command) if isinstance(task, Take) else None
    )  # fmt: skip
    assert update is not None and applied(centre.store, update).root == device.state.root
    centre.store.close()


def test_a_board_with_another_base_is_told_which_one_it_needs(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    desk.ok("bases", "add", str(MODELS / "motion.tflite"), "--name", "other", "--no-rehearse")
    anew = lose(centre, device, base=Base.of(MODELS / "motion.tflite"))
    assert greet(centre, anew).resume == b"" and "would like" not in desk.ok("devices")
    error = desk.error("devices", "resume", "pi-7/digits")
    assert "is on the base 'digits', and the board was set up with 'other'" in str(error["message"])
    assert "edgeagent init --resume --model digits=FILE" in str(error["hint"]) and commands(centre) == []


def test_what_never_learned_or_was_never_heard_of_is_said(met: Met) -> None:
    desk, centre, device = met
    assert "no older epoch of pi-7/digits has a verified version" in str(desk.error("devices", "resume", "pi-7/digits")["message"])
    assert desk.error("devices", "resume", "pi-9")["error"] == "UnknownDevice"
    assert desk.error("devices", "resume", "pi-7/other")["error"] == "UnknownVersion"
    assert "leave it out" in str(desk.error("devices", "resume", "pi-7@3")["hint"])
    centre.deliver(device, device.snapshot())
    centre.rebuild()
    lose(centre, device)
    assert "is the base, bit for bit" in str(desk.error("devices", "resume", "pi-7/digits")["message"])


def test_what_was_refused_or_is_not_judged_yet_does_not_come_back(met: Met) -> None:
    desk, centre, device = met
    root = learn(centre, device, 2)
    centre.deliver(device, device.train(fingerprint=(1, 2)))
    centre.rebuild()
    anew = lose(centre, device)
    assert greet(centre, anew).resume_version == 2
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    assert said[0]["root"] == root.hex()


def test_the_newest_epoch_that_came_to_something_counts(met: Met) -> None:
    desk, centre, device = met
    root = learn(centre, device)
    empty = lose(centre, device)
    third = lose(centre, empty)
    assert greet(centre, third).resume_version == 3
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    assert (said[0]["of_epoch"], said[0]["epoch"], said[0]["root"]) == (1, 3, root.hex())


def test_all_models_that_ask_are_given_back_by_the_name_of_the_board(met: Met, base: Base) -> None:
    desk, centre, device = met
    second = centre.meet(ScriptedDevice(base, model="second", trust=1, seed=5))
    roots = {f"pi-7/{d.model}": learn(centre, d).hex() for d in (device, second)}
    for one in (device, second):
        lose(centre, one)
    said: Any = desk.json("devices", "resume", "pi-7")["resumed"]
    assert {one["model"]: one["root"] for one in said} == roots


def test_another_key_than_the_command_key_gives_nothing_back(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    lose(centre, device)
    assert desk.run("devices", "resume", "pi-7", "--key", "receipt.key")[0] != 0 and commands(centre) == []


def test_a_last_model_that_no_key_of_the_board_has_signed_is_not_sealed(met: Met) -> None:
    desk, centre, device = met
    sent = device.train()
    centre.deliver(device, sent)
    centre.rebuild()
    lose(centre, device)
    forged = sent.data[:-64] + key_of("mallory").sign(UPDATE, device.fleet_id, sent.commit)
    damage(centre.store, "UPDATE version SET blob = ?", centre.store.blobs.put(forged))
    assert desk.error("devices", "resume", "pi-7")["error"] == "BadSignature" and commands(centre) == []


@pytest.mark.parametrize("moment", ["put", "add"])
def test_a_kill_of_the_operators_command_leaves_nothing_asked_for_and_the_next_one_asks(
    met: Met, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    desk, centre, device = met
    in_parts(monkeypatch)
    learn(centre, device)
    lose(centre, device)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    of = "registry.blobs.TieredBlobs" if moment == "put" else "registry.sqlite.inbox.SqliteRequests"
    with monkeypatch.context() as patched:
        patched.setattr(f"edgecloud.{of}.{moment}", killed)
        assert desk.run("devices", "resume", "pi-7")[0] != 0
    assert commands(centre) == []
    desk.ok("devices", "resume", "pi-7")
    task = task_of(the_command(centre))
    assert isinstance(task, Take) and centre.store.blobs.has(task.id)


def test_a_key_that_somebody_wrote_into_the_registry_signs_no_last_model(met: Met) -> None:
    desk, centre, device = met
    sent = device.train()
    centre.deliver(device, sent)
    centre.rebuild()
    lose(centre, device)
    mallory = key_of("mallory")
    forged = sent.data[:-64] + mallory.sign(UPDATE, device.fleet_id, sent.commit)
    centre.store.database.run("INSERT INTO device_key (device, key, added_at) VALUES ('pi-7', ?, 1)", mallory.public)
    damage(centre.store, "UPDATE version SET blob = ?", centre.store.blobs.put(forged))
    assert desk.error("devices", "resume", "pi-7")["error"] == "BadSignature" and commands(centre) == []


def test_a_row_that_holds_no_command_stops_nobody(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    anew = lose(centre, device)
    desk.ok("devices", "resume", "pi-7")
    damage(centre.store, "UPDATE command SET record = x'00'")
    assert [centre.ingest.said(r, centre.now) for r in centre.ingest.commands(now=centre.now)] == [()]
    centre.replies.clear()
    assert centre.take(anew.hello(resume=True)).result is Result.WELCOMED
    assert centre.take(wanted(anew, bytes(32), set(), 1)).result is Result.DROPPED


def test_a_joined_file_that_is_another_is_none(met: Met) -> None:
    out = parts.describe(b"x" * 5000, fleet="orchard", device="pi-7", model="digits", at=1, part=PART_MAX + 492)
    with pytest.raises(DigestMismatch):
        parts.join(replace(out.transfer, id=bytes(32)), {0: b"x" * 5000})
