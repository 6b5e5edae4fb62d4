"""A device goes back to any version that it had, as a new one: by the smaller update, sealed, once; what can't be is named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.feasibility import fitness
from edgecloud.registry import open_registry
from edgecloud.versions import last_models
from modelwire.lattice.rebuild import apply, prove_root
from modelwire.lattice.snap import no_residual
from modelwire.tflite.file import write_weights
from modelwire.update.adopting import read_adopted, read_taken
from modelwire.wire.commands import Adopt, task_of
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.commands.test_resume import commands, greet, learn, lose, registry, the_command
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice

Met = tuple[Desk, Centre, ScriptedDevice]


@pytest.fixture
def met(desk: Desk, base: Base) -> Any:
    centre = registry(desk)
    yield desk, centre, centre.meet(ScriptedDevice(base, trust=1))
    centre.store.close()


def carry_out(centre: Centre, device: ScriptedDevice) -> int:
    """Do what the open command asks, as a device does, and return the number of the new version."""
    command = the_command(centre)
    task = task_of(command)
    update = read_adopted(task.update, command) if isinstance(task, Adopt) else read_taken(centre.store.blobs.get(task.id), command)  # type: ignore[union-attr]
    assert command.parent == device.head and update.header.parent == device.head
    apply(device.state, update)
    prove_root(device.state, update)
    device.residual = no_residual(device.base.manifest)
    centre.take(device.response(command.number, True, "done"))
    sent = device.seal(update.header.kind, update.sections(device.base.manifest.schema))
    centre.deliver(device, sent)
    assert all(judged.ok for judged in centre.rebuild())
    centre.said()
    return sent.version


def test_any_earlier_version_comes_back_as_a_new_one_with_its_very_root(met: Met) -> None:
    desk, centre, device = met
    roots = {version: learn(centre, device, 1) for version in range(1, 7)}
    for wanted in (2, 5, 1):
        said = desk.json("rollback", f"pi-7@{wanted}")
        assert said["root"] == roots[wanted].hex() and said["already"] is False and said["version"] is None
        assert desk.json("rollback", f"pi-7/digits@{wanted}") == said, "asked once"
        new = carry_out(centre, device)
        assert device.state.root == roots[wanted]
        again = desk.json("rollback", f"pi-7@{wanted}")
        assert (again["already"], again["version"], again["bytes"], again["number"]) == (True, new, 0, None)
        assert commands(centre) == []
        row = centre.store.versions.numbered(1, new)
        assert row is not None and row.root == roots[wanted] and row.status.value == "verified"
    assert "nothing to do" in desk.ok("rollback", "pi-7@1")


def test_the_base_comes_back_too(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    assert desk.json("rollback", "pi-7@base")["root"] == device.base.manifest.root.hex()
    carry_out(centre, device)
    assert device.state.root == device.base.manifest.root


def test_bytes_are_told_against_the_file(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    said = desk.json("rollback", "pi-7@2")
    assert said["file_bytes"] == len(device.base.file) and 0 < int(str(said["bytes"])) < 800 and said["verb"] == "adopt"
    text = desk.ok("rollback", "pi-7@2")
    assert f"{said['bytes']} bytes" in text and "% of" in text and f"number {said['number']}" in text


def test_the_smaller_of_delta_and_snapshot_goes(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    monkeypatch.setattr(last_models, "RECORD_HOLDS", 0)
    centre.deliver(device, device.train(density=0.001))
    for _ in range(12):
        centre.deliver(device, device.train(density=0.9))
    centre.rebuild()
    said = desk.json("rollback", "pi-7@1")
    assert (said["kind"], said["verb"]) == ("snapshot", "take"), "the way to the head is longer than all of the first version"
    carry_out(centre, device)
    centre.deliver(device, device.train(density=0.001))
    centre.rebuild()
    assert desk.json("rollback", "pi-7@1")["kind"] == "delta"


def test_a_version_of_an_older_epoch_comes_back(met: Met) -> None:
    desk, centre, device = met
    root = learn(centre, device)
    anew = lose(centre, device, seed=9)
    learn(centre, anew, 2)
    assert desk.json("rollback", "pi-7@2")["name"] == "pi-7/digits@2"
    carry_out(centre, anew)
    desk.ok("rollback", "pi-7@3")
    carry_out(centre, anew)
    assert anew.state.root == root


def test_a_device_that_lost_its_card_gets_its_last_head_still(met: Met) -> None:
    """Whatever it went back to before: what it had last is what it gets, and from there it may go back again."""
    desk, centre, device = met
    first = learn(centre, device, 1)
    learn(centre, device, 3)
    desk.ok("rollback", "pi-7@1")
    head = carry_out(centre, device)
    anew = lose(centre, device)
    assert greet(centre, anew).resume_version == head
    desk.ok("devices", "resume", "pi-7")
    carry_out(centre, anew)
    assert anew.state.root == first


def test_what_goes_over_another_base_is_refused_by_name(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device)
    centre.deliver(device, device.rebase(_other(desk, device.base)))
    assert all(judged.ok for judged in centre.rebuild())
    said = desk.error("rollback", "pi-7@2")
    assert said["error"] == "BadArgument" and "is on the base 'digits'" in str(said["message"]) and "rollout" in str(said["hint"])
    assert "'digits'" in str(desk.error("rollback", "pi-7@base")["message"])


def _other(desk: Desk, base: Base) -> Base:
    """Register another base of the same tensors, and return it."""
    named = {spec.name: (w * 1.5).reshape(spec.shape) for spec, w in zip(base.manifest.schema.tensors, base.weights, strict=True)}
    path = desk.folder / "other.tflite"
    path.write_bytes(write_weights(base.parsed, named))
    desk.ok("bases", "add", str(path), "--name", "other", "--no-rehearse")
    return Base(path.read_bytes())


@pytest.mark.parametrize(("name", "error"), [
    ("pi-7", "BadArgument"), ("pi-7@latest", "BadArgument"), ("pi-7@99", "UnknownVersion"), ("pi-8@1", "UnknownVersion"),
    ("pi-7/other@1", "UnknownVersion"), ("pi-7@x", "Malformed"), ("@1", "Malformed"),
])  # fmt: skip
def test_what_names_no_version_is_refused(met: Met, name: str, error: str) -> None:
    desk, centre, device = met
    learn(centre, device, 1)
    assert desk.error("rollback", name)["error"] == error and commands(centre) == []


def test_a_refused_a_thinned_an_unproven_and_a_forged_version_are_refused_by_name(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    learn(centre, device, 2)
    centre.deliver(device, device.train(fingerprint=(1, 2)))
    centre.rebuild()
    for record in centre.said():
        if (answer := device.hear(record)) is not None:
            centre.deliver(device, answer)
    centre.rebuild()
    learn(centre, device, 3)
    assert desk.error("rollback", "pi-7@3")["error"] == "NotServed"
    desk.ok("policy", "--keep", "last 2")
    desk.ok("thin")
    assert desk.error("rollback", "pi-7@1")["error"] == "Thinned"
    newest, unfit = device.version, fitness.UnfitVersion(**dict.fromkeys((f.name for f in fields(fitness.UnfitVersion)), 1))
    monkeypatch.setattr(fitness, "unfit", lambda store, ids, among=None: dict.fromkeys(ids, unfit))
    said = desk.error("rollback", f"pi-7@{newest - 1}")
    assert said["error"] == "Unfit" and "--unfit" in str(said["hint"])
    assert desk.json("rollback", f"pi-7@{newest - 1}", "--unfit")["verb"] == "adopt"
    centre.take(device.response(the_command(centre).number, False, "no"))
    centre.deliver(device, device.train())
    monkeypatch.undo()
    monkeypatch.chdir(desk.folder)
    desk.ok("devices", "revoke", "pi-7")
    damage(centre.store, "UPDATE device_key SET key = zeroblob(32)")
    assert desk.error("rollback", f"pi-7@{newest - 1}")["error"] == "BadSignature"
    assert commands(centre) == []


def test_another_model_that_is_on_its_way_is_named(met: Met) -> None:
    desk, centre, device = met
    learn(centre, device, 3)
    number = desk.json("rollback", "pi-7@1")["number"]
    assert f"number {number}" in str(desk.error("rollback", "pi-7@2")["message"])
    learn(centre, device, 1)  # it went on: what was asked of the head before is refused there
    assert desk.json("rollback", "pi-7@2")["number"] != number
    assert len(commands(centre)) == 2


def waited(desk: Desk, centre: Centre, then: Callable[[Centre], object], *words: str) -> tuple[int, str, str]:
    """Run a command that waits; once it has asked, let something happen at the centre."""
    path, ended = centre.store.database.path, threading.Event()

    def happen() -> None:
        look = open_registry(path, synchronous="OFF")
        one = Centre(look, now=centre.now)
        while not commands(one) and not ended.wait(0.01):
            pass
        if not ended.is_set():
            then(one)
        look.close()

    beside = threading.Thread(target=happen)
    beside.start()
    try:
        return desk.run(*words)
    finally:
        ended.set()
        beside.join()


def test_it_waits_until_the_new_version_is_proven(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    monkeypatch.setattr("edgecloud.commands.fleet.rollback.LOOK", 0.01)
    root = learn(centre, device, 1)
    learn(centre, device, 2)
    code, out, err = waited(desk, centre, lambda one: carry_out(one, device), "rollback", "pi-7@1", "--wait", "60s")
    assert (code, err) == (0, "") and "pi-7/digits@4 has this root, proven" in out and root.hex() in out


def test_a_device_that_could_not_and_a_wait_that_is_over_are_named(met: Met, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, centre, device = met
    monkeypatch.setattr("edgecloud.commands.fleet.rollback.LOOK", 0.01)
    learn(centre, device, 3)
    assert "within 1 s" in str(desk.error("rollback", "pi-7@1", "--wait", "1s")["message"])

    def refuse(one: Centre) -> None:
        one.take(device.response(the_command(one).number, False, "the head has moved on to @9; ask again"))

    refuse(centre)
    code, _, err = waited(desk, centre, refuse, "rollback", "pi-7@1", "--wait", "60s")
    assert code and "the head has moved on to @9" in err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8, deadline=None)
@given(ways=st.lists(st.integers(1, 30), min_size=1, max_size=4), density=st.sampled_from([0.001, 0.05, 0.9]))
def test_there_and_back_in_any_order(met: Met, ways: list[int], density: float) -> None:
    desk, centre, device = met
    centre.deliver(device, device.train(density=density))
    centre.rebuild()
    for wanted in ways:
        version = 1 + wanted % device.version
        desk.ok("rollback", f"pi-7@{version}")
        row = centre.store.versions.numbered(1, version)
        assert row is not None
        if commands(centre):
            carry_out(centre, device)
        assert device.state.root == row.root
