"""`edgecloud probes` and `edgecloud compare` as an operator types them: what they say, and what they refuse by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.registry import SqliteStore
from tests.edgecloud.centre import Centre, add_base
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice
from tests.stock import ROOT, runtime

RNG = np.random.default_rng(3)
LIGHT = np.array(["night", "day"])[np.arange(600) % 2]


@pytest.fixture
def two(store: SqliteStore, centre: Centre, device: ScriptedDevice, base: Base, tmp_path: Path, desk: Desk) -> Desk:
    """A desk beside a registry of two devices with two versions each, and a file of 600 probes."""
    other = centre.meet(ScriptedDevice(base, name="pi-8", seed=1))
    for one in (device, other):
        for _ in range(2):
            centre.deliver(one, one.train(density=0.5))
    centre.rebuild()
    np.savez(tmp_path / "p.npz", x=RNG.random((600, 4)), y=np.arange(600) % 3, **{"tag.light": LIGHT})
    tmp_path.chmod(0o700)
    return desk


def test_probes_are_added_listed_shown_and_removed(two: Desk, tmp_path: Path) -> None:
    added = two.json("probes", "add", "night", "p.npz", "--model", "digits")
    assert (added["rows"], added["shape"], added["kind"], added["tags"]) == (600, [4], "labels", {"light": {"day": 300, "night": 300}})
    assert two.json("probes", "show", "night") == added == two.json("probes", "add", "night", "p.npz", "--model", "digits")
    listed: Any = two.json("probes", "list")["probes"]
    assert [(one["name"], one["digest"]) for one in listed] == [("night", added["digest"])]
    assert "night" in two.ok("probes") and "tag light  night 300, day 300" in two.ok("probes", "show", "night")
    assert two.error("probes", "add", "night", "p.npz")["error"] == "BadArgument"  # for all models: another set of this name
    assert two.error("probes", "add", "door", "p.npz", "--model", "door")["message"] == "no device has a model 'door'"
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 5)))
    assert two.error("probes", "add", "wide", "wide.npz")["error"] == "ShapeMismatch"
    np.savez(tmp_path / "nan.npz", x=np.full((3, 4), np.nan))
    assert two.error("probes", "add", "nan", "nan.npz")["error"] == "NonFinite"
    two.ok("probes", "add", "twin", "p.npz")
    assert "still held as twin" in two.ok("probes", "remove", "night")
    assert two.ok("probes", "remove", "twin").startswith("removed twin: its rows and what versions made of them are gone")
    assert two.json("probes", "list")["probes"] == [] and "night" in two.ok("probes", "list", "--removed")
    assert two.error("probes", "show", "night")["message"] == "there is no probe set 'night'"
    verified: Any = two.json("verify", "--all")
    assert verified["tampered"] == []


def test_two_versions_are_compared_by_weights_and_leaves(two: Desk) -> None:
    found: Any = two.json("compare", "pi-7@1", "pi-8@2")
    weights, diff = found["weights"], two.json("diff", "pi-7@1", "pi-8@2")
    assert weights["changed"] == diff["changed"] > 0 and weights["tensors"] == diff["tensors"] and found["same_base"]
    assert 0 < weights["leaves_changed"] <= weights["leaves"] == 6
    for tensor in weights["tensors"]:
        assert (tensor["leaves_changed"] > 0) == (tensor["changed"] > 0) and tensor["relative"] >= 0
    same: Any = two.json("compare", "pi-7@2", "pi-7@latest")
    assert same["weights"]["changed"] == same["weights"]["leaves_changed"] == 0
    assert "0 of 39 weights differ, in 0 of 6 leaves" in two.ok("compare", "pi-7@2", "pi-7@2")


def test_two_versions_are_compared_on_probes_and_layer_by_layer(two: Desk, store: SqliteStore) -> None:
    runtime()
    two.ok("probes", "add", "p", "p.npz")
    found: Any = two.json("compare", "pi-7@2", "pi-8@2", "--on", "p", "--layers")["on"]
    rows = {row["of"]: row for row in found["accuracies"]}
    assert found["rows"] == rows["all"]["rows"] == 600 and {"class 0", "light=day", "light=night"} <= set(rows)
    assert rows["light=day"]["right_first"] + rows["light=night"]["right_first"] == rows["all"]["right_first"]
    assert rows["all"]["right_first"] - rows["all"]["only_first"] == rows["all"]["right_second"] - rows["all"]["only_second"]
    assert found["read"] == [False, False] and found["kept"] == [True, True] and len(found["layers"]) >= 6
    text = two.ok("compare", "pi-7@2", "pi-8@2", "--on", "p", "--layers")
    assert "McNemar" in text and "+- is what keeping values in 8 bits may have changed" in text and max(map(len, text.split("\n"))) <= 120
    again: Any = two.json("compare", "pi-7@2", "pi-8@2", "--on", "p", "--layers", "--context", "light=day")["on"]
    assert again["read"] == [True, True] and again["rows"] == 300
    exact: Any = two.json("compare", "pi-7@2", "pi-8@2", "--on", "p", "--layers", "--exact")["on"]
    assert exact["read"] == [False, False] and exact["accuracies"] == found["accuracies"]
    for a, b in zip(exact["layers"], again["layers"], strict=True):
        assert a["uncertain"] == 0 and abs(a["relative"] - b["relative"]) <= b["uncertain"] + 1e-9
    same: Any = two.json("compare", "pi-7@2", "pi-7@2", "--on", "p", "--layers")["on"]
    assert same["same"] == 600 and same["parts_at"] is None and all(one["equal"] for one in same["layers"])


def test_what_can_not_be_compared_is_refused_by_name(two: Desk, store: SqliteStore, centre: Centre, device: ScriptedDevice) -> None:
    runtime()
    two.ok("probes", "add", "p", "p.npz")
    assert two.error("compare", "pi-7@2", "pi-8@2", "--on", "none")["hint"] == "there are p"
    unknown = two.error("compare", "pi-7@2", "pi-8@2", "--on", "p", "--context", "light=fog")
    assert unknown["message"] == "no row of the probe set has light=fog" and "light=day, light=night" in str(unknown["hint"])
    for words in (("--layers",), ("--on", "p", "--threshold", "0.1"), ("--on", "p", "--layers", "--threshold", "nan")):
        assert two.run("compare", "pi-7@2", "pi-8@2", *words)[0] == 2, words
    assert two.error("compare", "pi-7@2", "pi-9@2")["error"] == "UnknownVersion"
    centre.deliver(door := centre.meet(ScriptedDevice(device.base, name="pi-6", model="door")), door.train())
    centre.rebuild()
    two.ok("probes", "add", "doors", "p.npz", "--model", "door")
    assert "is for models 'door'" in str(two.error("compare", "pi-7@2", "pi-8@2", "--on", "doors")["message"])
    digits = Base((ROOT / "tests" / "models" / "digits.tflite").read_bytes())
    add_base(store, digits, "other")
    centre.deliver(far := centre.meet(ScriptedDevice(digits, name="pi-9")), far.train())
    centre.rebuild()
    assert two.json("compare", "pi-7@2", "pi-9@1")["weights"] is None
    assert "other tensors" in two.ok("compare", "pi-7@2", "pi-9@1")
    assert two.error("compare", "pi-7@2", "pi-9@1", "--on", "p")["error"] == "ShapeMismatch"
