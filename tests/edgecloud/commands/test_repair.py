"""What a registry has lost is named, and a lost head comes back from what is left and the few leaves that its board gives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgecloud.registry import SqliteStore
from edgecloud.versions import materialise, states
from modelwire import identity, storage
from modelwire.merkle import LEAF_BYTES, leaf
from modelwire.wire.commands import LEAVES_MAX, PIECE_MAX, Leaf, Leaves, task_of
from modelwire.wire.records import NOT_UNDERSTOOD, Command
from tests.edgecloud.centre import damage
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import Base, ScriptedDevice
from tests.stock import ROOT

from .test_commands_of_devices import opened, sent

DIGITS = ROOT / "tests" / "models" / "digits.tflite"
KIB = 1024


@pytest.fixture
def learnt(desk: Desk) -> tuple[Desk, ScriptedDevice]:
    """A board with five verified versions of a model of 200 KiB."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(DIGITS), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    with opened(desk) as centre:
        device = centre.meet(ScriptedDevice(Base.of(DIGITS)))
        for _ in range(5):
            centre.deliver(device, device.train(density=0.001))
        centre.rebuild()
    return desk, device


def lose(desk: Desk, *numbers: int) -> None:
    """Damage the updates of these versions."""
    with opened(desk) as centre:
        for number in numbers:
            damage(centre.store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", _row(centre.store, number).blob)


def _row(store: SqliteStore, number: int) -> Any:
    lineage = store.lineages.get("pi-7", "digits")
    assert lineage is not None
    return store.versions.numbered(lineage.id, number)


def answered(desk: Desk, device: ScriptedDevice, *, spoil: bool = False) -> int:
    """Let the board answer all that it is asked, and return the bytes of both ways. spoil: it gives other bytes."""
    travelled = 0
    with opened(desk) as centre:
        for command, data in sent(centre):
            topic, answer = device.response(command.number, True, "", _body(device, command, spoil))
            travelled += len(data) + len(answer) + len(topic) + 64
            centre.take((topic, answer))
    return travelled


def _body(device: ScriptedDevice, command: Command, spoil: bool) -> dict[str, Any]:
    task = task_of(command)
    assert isinstance(task, (Leaf, Leaves))
    spec, held = device.base.manifest.schema.tensors[task.tensor], device.state.weights[task.tensor]
    if isinstance(task, Leaves):
        digests = identity.tensor_leaves(spec, held)
        return {"leaves": b"".join(digests[task.first : task.first + LEAVES_MAX]), "of": len(digests)}
    data = storage.to_bytes(spec.dtype, held)[task.leaf * LEAF_BYTES :][:LEAF_BYTES]
    assert leaf(data) == task.digest
    piece = data[task.start : task.start + PIECE_MAX]
    return {"bytes": bytes(len(piece)) if spoil else piece, "of": len(data)}


def repair(desk: Desk) -> dict[str, Any]:
    """Run it and return its document, whatever its exit code."""
    _, out, _ = desk.run("repair", "--json")
    return dict(json.loads(out))


def test_nothing_is_lost_of_a_whole_registry(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = learnt
    assert desk.json("repair") == {"exact": 5, "thinned": 0, "lost": [], "states": [], "heads": [], "counters": 0}


def test_one_lost_update_comes_back_by_a_head_that_is_mended_with_few_bytes(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learnt
    lose(desk, 2)
    said = repair(desk)
    assert [(one["name"], one["recoverable"]) for one in said["lost"]] == [(f"pi-7/digits@{n}", False) for n in (2, 3, 4, 5)]
    (head,) = said["heads"]
    assert (head["near"], head["mended"], head["next"]) == ("pi-7/digits@1", False, "edgecloud leaves request pi-7/digits --all")
    assert "has not told the digests" in str(desk.error("leaves", "fetch", "pi-7")["message"])
    assert desk.json("leaves", "request", "pi-7", "--all")["leaves"] == 7
    travelled = answered(desk, device)
    (head,) = repair(desk)["heads"]
    assert head["leaves"] >= 1 and head["next"] == "edgecloud leaves fetch pi-7/digits"
    assert desk.json("leaves", "fetch", "pi-7")["leaves"] == head["leaves"]
    travelled += answered(desk, device)
    assert travelled <= 100 * KIB * head["leaves"], "a repaired leaf costs more than 100 KiB"
    said = desk.json("repair")
    assert said["heads"][0]["mended"]  # type: ignore[index]
    assert [(one["name"], one["bytes"], one["recoverable"]) for one in said["lost"]] == [("pi-7/digits@2", False, True)]  # type: ignore[attr-defined]
    desk.ok("materialise", "pi-7", "-o", "model.tflite")
    assert (desk.folder / "model.tflite").read_bytes() == device.served()
    with opened(desk) as centre:
        bases = materialise.LoadedBases(centre.store)
        for number in range(1, 6):
            row = _row(centre.store, number)
            assert materialise.rebuild(centre.store, row, bases).root == device.made[number].root
    assert desk.json("repair")["heads"] == []
    _, out, _ = desk.run("verify", "pi-7", "--json")
    verdict = json.loads(out)
    assert verdict["exact"] == 4 and [one["name"] for one in verdict["wrong"]] == ["pi-7/digits@2"], "its update is lost, and it alone"


def test_what_no_board_holds_and_no_way_leads_to_stays_lost_by_name(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learnt
    lose(desk, 2, 5)
    desk.ok("leaves", "request", "pi-7", "--all")
    answered(desk, device)
    desk.ok("leaves", "fetch", "pi-7")
    answered(desk, device)
    code, out, err = desk.run("repair")
    assert code == 56 and "MENDED pi-7/digits@5" in out and "the weights of 3 versions are lost" in err
    for number in (2, 3, 4):
        assert f"LOST pi-7/digits@{number}: its weights can't be rebuilt" in out
    assert "LOST pi-7/digits@5: its update is lost, its weights come back by another way" in out


def test_bytes_that_are_not_the_leaf_are_never_used(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learnt
    lose(desk, 3)
    desk.ok("leaves", "request", "pi-7", "--all")
    answered(desk, device)
    desk.ok("leaves", "fetch", "pi-7")
    answered(desk, device, spoil=True)
    (head,) = repair(desk)["heads"]
    assert not head["mended"] and "a leaf that its board gave has another digest" in head["why_not"]
    assert head["next"] == "edgecloud snapshot request pi-7/digits"


def test_leaves_of_another_model_are_not_taken_for_the_versions(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learnt
    lose(desk, 3)
    desk.ok("leaves", "request", "pi-7", "--all")
    device.state.weights[0][0] += 1
    answered(desk, device)
    (head,) = repair(desk)["heads"]
    assert "are not the leaves of this version" in head["why_not"]


def test_a_board_of_an_earlier_release_is_told_and_asked_for_a_snapshot(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learnt
    lose(desk, 3)
    desk.ok("leaves", "request", "pi-7", "--all")
    answered(desk, device)
    desk.ok("leaves", "fetch", "pi-7")
    with opened(desk) as centre:
        for command, _ in sent(centre):
            centre.take(device.response(command.number, False, NOT_UNDERSTOOD))
    (head,) = repair(desk)["heads"]
    assert "of an earlier release" in head["why_not"] and head["next"] == "edgecloud snapshot request pi-7/digits"
    assert "of an earlier release" in str(desk.error("leaves", "fetch", "pi-7")["message"])


def test_a_damaged_kept_state_is_made_again(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = learnt
    with opened(desk) as centre:
        row = _row(centre.store, 4)
        lineage = centre.store.lineages.by_id(row.lineage)
        state = materialise.rebuild(centre.store, row, materialise.LoadedBases(centre.store))
        with centre.store.transaction():
            centre.store.states.put(row.id, lineage.id, states.encode(state, lineage, row), 5)
        damage(centre.store, "UPDATE state SET bytes = zeroblob(length(bytes))")
    assert desk.json("repair")["states"] == ["pi-7/digits@4"]
    assert desk.json("repair")["states"] == []


def test_one_version_is_not_repaired_alone(learnt: tuple[Desk, ScriptedDevice]) -> None:
    desk, _ = learnt
    assert "a model is repaired as a whole" in str(desk.error("repair", "pi-7@2")["message"])
    assert desk.error("repair", "pi-9")["error"] == "UnknownVersion"
