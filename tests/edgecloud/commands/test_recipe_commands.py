"""edgecloud replay and forget, as an operator runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgecloud.registry import open_registry
from modelwire.output_head.forgotten import forgotten_of
from modelwire.tflite.file import read_weights
from modelwire.update.container import parse_unsigned
from modelwire.wire.records import Command
from tests.edgecloud.centre import Centre
from tests.edgecloud.desk import LINE, Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice
from tests.edgecloud.rounds import ROUNDS, never_seen


@pytest.fixture
def learned(desk: Desk, base: Base) -> tuple[Desk, ScriptedDevice]:
    """Four recipes of one device."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    device = centre.meet(ScriptedDevice(base))
    for ids, settings in ROUNDS:
        centre.deliver(device, device.learn(ids, **settings))
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    return desk, device


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.suffix == ".db"}


def test_a_replay_says_equal_with_rows_steps_and_losses_and_writes_nothing(learned: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learned
    before = contents(desk.folder)
    said = desk.json("replay", "pi-7@2")
    assert said["equal"] is True and said["root"] == said["replayed_root"] == device.made[2].root.hex()
    assert (said["rows"], said["features"], said["hidden"], said["loss_function"]) == (32, 4, [3, 3], "softmax")
    settings, loss = said["settings"], said["loss"]
    assert isinstance(settings, dict) and isinstance(loss, dict)
    assert (settings["steps"], settings["optimizer"], settings["rate"]) == (12, "momentum", float(np.float32(0.1)))
    assert loss["stored"] < loss["before"] and "what_if" not in said
    assert "equal, bit for bit" in desk.ok("replay", "pi-7@2")
    assert contents(desk.folder) == before


def test_a_what_if_says_how_far_it_is_and_is_written_where_asked(learned: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learned
    said = desk.json("replay", "pi-7@2", "--set", "lr=0.5", "--set", "steps=60", "--set", "optimizer=sgd", "-o", "other.tflite")
    found, loss = said["what_if"], said["loss"]
    assert isinstance(found, dict) and isinstance(loss, dict)
    assert found["set"] == {"rate": 0.5, "steps": 60, "optimizer": "sgd"}
    assert 0 < found["changed"] <= found["entries"] == 39 and found["largest_units"] > 0 and found["loss"] < loss["before"]
    weights = read_weights((desk.folder / "other.tflite").read_bytes())
    desk.ok("materialise", "pi-7@2", "-o", "stored.npz")
    stored = np.load(desk.folder / "stored.npz")
    differing = sum(int(np.count_nonzero(weights[n].view(np.uint32) != stored[n].view(np.uint32))) for n in weights)
    assert differing == found["changed"]
    assert max(float(np.abs(weights[n].astype(float) - stored[n].astype(float)).max()) for n in weights) == found["max_abs"]
    same = desk.json("replay", "pi-7@2", "--set", "seed=2", "-o", "same.safetensors")["what_if"]
    assert isinstance(same, dict) and (same["changed"], same["root"]) == (0, device.made[2].root.hex())
    assert all(np.array_equal(w, stored[n]) for n, w in load_file(desk.folder / "same.safetensors").items())
    assert "nothing: bit for bit the same" in desk.ok("replay", "pi-7@2", "--set", "seed=2")


def test_a_version_that_does_not_replay_says_so_by_its_exit_code(learned: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learned
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    seal = device.seal
    device.seal = lambda *args, **said: seal(*args, **{**said, "root": bytes(32)})  # type: ignore[method-assign]
    centre.deliver(device, device.learn(range(9)))
    centre.rebuild()
    centre.store.close()
    code, out, err = desk.run("replay", "pi-7@5", "--json")
    assert code == 59 and '"equal": false' in out and "ReplayMismatch" in err


def test_what_can_not_be_replayed_is_an_error_that_helps(learned: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learned
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    centre.deliver(device, device.train())
    centre.store.close()
    said = desk.error("replay", "pi-7@5")
    assert "pi-7/digits@5 is a delta" in str(said["message"]) and "pi-7/digits@4" in str(said["hint"])
    assert "is the base" in str(desk.error("replay", "pi-7@base")["message"])
    assert desk.error("replay", "pi-7@9")["error"] == "UnknownVersion"
    for given in ("rate", "hidden=3", "steps=x", "optimizer=best"):
        assert desk.error("replay", "pi-7@1", "--set", given)["error"] == "BadArgument"
    assert desk.error("replay", "pi-7@1", "--set", "rate=-1")["error"] == "Malformed"
    assert desk.error("replay", "pi-7@1", "--set", "steps=4294967295")["error"] == "TooLarge"
    assert desk.error("replay", "pi-7@1", "--set", "rate=3e38", "--set", "decay=3e38")["error"] == "TrainingDiverged"
    assert desk.error("replay", "pi-7@1", "-o", "x.onnx")["error"] == "BadArgument"


def test_forgetting_gives_the_model_that_never_saw_them(learned: tuple[Desk, ScriptedDevice], base: Base) -> None:
    desk, _ = learned
    before = contents(desk.folder)
    said = desk.json("forget", "pi-7@2", "--rows", "2,3,10-12", "-o", "without.tflite")
    gone = [110, 111, 118, 119, 120]
    expected = never_seen(base, ROUNDS, gone)
    assert said["samples"] == gone and said["root"] == expected.root.hex() and said["replayed"] == 4
    assert said["dropped"] == [
        {"version": 1, "rows": 4, "of": 20}, {"version": 2, "rows": 5, "of": 32}, {"version": 4, "rows": 5, "of": 35},
    ]  # fmt: skip
    assert said["before"] == []
    weights = read_weights((desk.folder / "without.tflite").read_bytes())
    assert all(np.array_equal(w, weights[n]) for n, w in expected.named().items())
    alone = desk.json("forget", "pi-7@2", "--rows", "2", "--at-version")
    assert alone["compared_with"] == "pi-7/digits@2" and alone["root"] != said["root"]
    assert "5 samples" in desk.ok("forget", "pi-7@2", "--rows", "2,3,10-12")
    assert contents(desk.folder) == before


def test_what_was_learned_before_the_recipes_is_named(desk: Desk, base: Base) -> None:
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("devices", "add", "pi-7", LINE)
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    for ids in (range(5), range(9)):
        centre.deliver(device, device.learn(ids))
    centre.rebuild()
    centre.store.close()
    assert desk.json("forget", "pi-7@2", "--rows", "1")["before"] == [1]
    assert "@1 in front of them" in desk.ok("forget", "pi-7@2", "--rows", "1")


def test_what_is_sent_is_asked_once_and_is_what_was_said(learned: tuple[Desk, ScriptedDevice]) -> None:
    desk, device = learned
    said = desk.json("forget", "pi-7@2", "--rows", "2,3", "--send")
    assert desk.json("forget", "pi-7@2", "--rows", "2,3", "--send")["number"] == said["number"]
    assert "not answered" in str(desk.error("forget", "pi-7@2", "--rows", "4", "--send")["message"])
    shown = desk.json("show", "pi-7")["models"]
    assert isinstance(shown, list) and [r["verb"] for r in shown[0]["requests"]] == ["adopt"]
    centre = Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)
    centre.take(device.hello())
    (asked,) = [r for r in centre.said() if isinstance(r, Command)]
    found = parse_unsigned(asked.body["update"])
    forgotten = forgotten_of(found.header.extension)
    assert (asked.number, asked.verb, asked.parent, asked.epoch) == (said["number"], "adopt", device.head, 1)
    assert found.header.parent == device.head and found.header.root.hex() == said["root"]
    assert forgotten is not None and list(forgotten.samples) == said["samples"]
    centre.take(device.response(asked.number, True, "@5 forgot 2 samples"))
    assert "adopt done, 2023-11-14 22:13:20Z: @5 forgot 2 samples" in desk.ok("show", "pi-7")
    centre.deliver(device, device.train(extension={"note": "forgot 2 samples"}))
    assert desk.ok("log", "pi-7").splitlines()[2].endswith("  forgot 2 samples")
    centre.take(device.hello())
    assert not [r for r in centre.said() if isinstance(r, Command)]
    centre.store.close()
    assert desk.error("forget", "pi-7@2", "--rows", "1", "--send", "--at-version")["error"] == "BadArgument"


@pytest.mark.parametrize("rows", ["", "x", "3-", "5-3", "-1", "0-99999999", "1,,2", "1.5"])
def test_rows_are_numbers_and_ranges(learned: tuple[Desk, ScriptedDevice], rows: str) -> None:
    desk, _ = learned
    assert desk.error("forget", "pi-7@2", f"--rows={rows}")["error"] == "BadArgument"
    assert "its rows are 0 to 31" in str(desk.error("forget", "pi-7@2", "--rows", "32")["hint"])
