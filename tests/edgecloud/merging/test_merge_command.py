"""`edgecloud merge`: what it makes, how it is judged, what it refuses by name, and that lineage shows all parents."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.merging import judging, parents
from edgecloud.registry import open_registry
from edgecloud.versions import naming
from edgecloud.versions.materialise import LoadedBases, rebuild
from modelwire.cards.card import card_of
from modelwire.errors import BadArgument
from modelwire.tflite.file import read_weights
from modelwire.wire.keys import KeyKind, write_key
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of
from tests.edgecloud.searching.fleet import other_base

NAMES = ("pi-1", "pi-2", "pi-3", "pi-4")
Fleet = tuple[Desk, Callable[[], Centre], list[ScriptedDevice]]


@pytest.fixture
def fleet(desk: Desk, base: Base) -> Fleet:
    """Four devices with two verified versions each on one base."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    for name in NAMES:
        desk.ok("devices", "add", name, write_key(KeyKind.DEVICE, key_of(name).public))

    def opened() -> Centre:
        return Centre(open_registry(desk.folder / "fleet.db", synchronous="OFF"), now=1_700_000_000)

    centre = opened()
    devices = [centre.meet(ScriptedDevice(base, name=name)) for name in NAMES]
    for device in devices:
        centre.deliver(device, device.train(density=0.5), device.train(density=0.5))
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    return desk, opened, devices


def merge(desk: Desk, *words: str, out: str = "merged.tflite") -> dict[str, Any]:
    return desk.json("merge", *words, "-o", out)


def test_a_merge_is_the_integer_mean_in_any_order_and_a_base_as_any_other(fleet: Fleet) -> None:
    desk = fleet[0]
    said = merge(desk, "--devices", "pi-1,pi-2@1,pi-3,pi-4@2", "--rule", "mean")
    assert [one["name"] for one in said["parents"]] == ["pi-1/digits@2", "pi-2/digits@1", "pi-3/digits@2", "pi-4/digits@2"]
    made = (desk.folder / "merged.tflite").read_bytes()
    names = ["pi-1", "pi-2@1", "pi-3", "pi-4@2"]
    random.Random(3).shuffle(names)
    assert merge(desk, "--devices", ",".join(names), "--rule", "mean", out="again.tflite")["sha256"] == said["sha256"]
    store = open_registry(desk.folder / "fleet.db", readonly=True)
    of = parents.chosen(store, names)
    states = [rebuild(store, one.version, LoadedBases(store)) for one in of]
    store.close()
    state = states[0]
    for t, spec in enumerate(state.manifest.schema.tensors):
        q = [round(Fraction(sum(int(s.integers[t][i]) for s in states), 4)) for i in range(spec.size)]
        unit = np.float32(2.0 ** state.manifest.exponents[t])
        assert state.manifest.lattice(t) and all(s.exponents == list(state.manifest.exponents) for s in states)
        assert (read_weights(made)[spec.name].reshape(-1) == state.base[t] + np.array(q, np.float32) * unit).all()
    desk.ok("bases", "add", "merged.tflite", "--no-rehearse")
    shown = desk.json("bases", "show", "merged")
    assert shown["merged_from"]["parents"] == said["parents"] and shown["merged_from"]["rule"] == "mean"
    text = desk.ok("bases", "show", "merged")
    assert "the mean of 4 versions of digits" in text and all(one["name"] in text for one in said["parents"])
    assert "merged into" in desk.ok("bases", "show", "digits") and "with 3 others into merged" in desk.ok("show", "pi-2@1")
    assert desk.json("show", "pi-2@2")["merged_into"] == []
    desk.ok("backup", "copy.db")
    desk.ok("restore", "copy.db", "--db", "again.db")
    assert desk.json("bases", "show", "merged", "--db", "again.db") == shown


def test_the_lineage_of_a_device_on_a_merged_base_says_what_that_was_made_of(fleet: Fleet) -> None:
    desk, opened, _ = fleet
    merge(desk, "--devices", "pi-1,pi-2", "--rule", "mean")
    desk.ok("bases", "add", "merged.tflite", "--no-rehearse")
    desk.ok("devices", "add", "pi-9", write_key(KeyKind.DEVICE, key_of("pi-9").public))
    centre = opened()
    device = centre.meet(ScriptedDevice(Base((desk.folder / "merged.tflite").read_bytes()), name="pi-9"))
    centre.deliver(device, device.train())
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    for text in (desk.ok("log", "pi-9"), desk.ok("show", "pi-9@base")):
        assert "its base merged is the mean of 2 versions of digits" in text.replace("\n", " ")
    assert desk.error("merge", "--devices", "pi-9,pi-1", "--rule", "mean", "-o", "x.tflite")["error"] == "WrongBase"


def test_weights_are_given_or_those_of_the_cards(fleet: Fleet) -> None:
    desk, opened, devices = fleet
    assert desk.error("merge", "--devices", "pi-1,pi-2", "--rule", "weighted", "-o", "x.tflite")["error"] == "BadArgument"
    given = merge(desk, "--devices", "pi-2,pi-1", "--rule", "weighted", "--weights", "3,1")
    assert [(one["name"], one["weight"]) for one in given["parents"]] == [("pi-1/digits@2", 1), ("pi-2/digits@2", 3)]
    centre = opened()
    for device, samples in zip(devices, (10, 30), strict=False):
        card = card_of(samples)
        centre.deliver(device, device.train(extension={"card": card.encode()}))
    assert all(one.ok for one in centre.rebuild())
    centre.store.close()
    by_cards = merge(desk, "--devices", "pi-1,pi-2", "--rule", "weighted", out="cards.tflite")
    assert [one["weight"] for one in by_cards["parents"]] == [10, 30]
    same = merge(desk, "--devices", "pi-1,pi-2", "--rule", "weighted", "--weights", "1,3", out="same.tflite")
    assert same["sha256"] == by_cards["sha256"]
    (desk.folder / "cohort.txt").write_text("# night\npi-1@2\n\npi-2@2\n")
    assert merge(desk, "--cohort", "cohort.txt", "--rule", "mean")["versions"] == 2


def test_samples_on_another_base_do_not_count(tmp_path: Path) -> None:
    other = other_base()
    store = make_registry(tmp_path / "fleet.db", Base.of())
    add_base(store, other, "tall")
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(Base.of()))

    def told(samples: int) -> dict[str, object]:
        return {"card": card_of(samples).encode()}

    def weight(name: str) -> int:
        place = naming.find(store, naming.parse(name))
        assert place.version is not None
        (one,) = parents.weighted_by_samples(store, [parents.MergeParent(place.lineage, place.version)])
        return one.weight

    centre.deliver(device, device.train(extension=told(10)), device.train(extension=told(20)))
    assert all(one.ok for one in centre.rebuild())
    centre.deliver(device, device.rebase(other))
    assert all(one.ok for one in centre.rebuild())
    assert (weight("pi-7@1"), weight("pi-7@2")) == (10, 30)
    with pytest.raises(BadArgument, match="no data card"):
        weight("pi-7@3")
    centre.deliver(device, device.train(extension=told(7)))
    assert all(one.ok for one in centre.rebuild())
    assert weight("pi-7@4") == 7 and weight("pi-7@2") == 30
    store.close()


@pytest.mark.slow("runs models in processes of their own", seconds=4)
def test_a_merge_is_judged_before_it_is_written(fleet: Fleet) -> None:
    desk = fleet[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)).astype(np.float32)
    np.savez(desk.folder / "rows.npz", x=x, y=rng.integers(0, 3, 40))
    desk.ok("probes", "add", "rows", "rows.npz")
    said = merge(desk, "--devices", "pi-1,pi-2,pi-3", "--rule", "mean")
    (judged,) = said["judged"]
    assert (judged["probes"], judged["rows"], judged["failed"]) == ("rows", 40, {})
    assert judged["worst"]["score"] <= judged["parents"] <= judged["best"]["score"] <= 1
    low, high = judged["interval"]
    assert 0 <= low <= judged["merged"] <= high <= 1
    assert judged["gained"] - judged["lost"] == round(40 * (judged["merged"] - judged["base"]))
    text = desk.ok("merge", "--devices", "pi-1,pi-2", "--rule", "mean", "--on", "rows", "-o", "merged.tflite")
    assert "rows, 40 rows: accuracy" in text and "on average" in text
    assert max(map(len, text.splitlines())) <= 80
    desk.ok("probes", "add", "again", "rows.npz")
    text = desk.ok("merge", "--devices", "pi-1,pi-2", "--rule", "mean", "-o", "merged.tflite")
    assert "again, 40 rows" in text and "rows, 40 rows" in text and "each p is corrected for 2 probe sets (Holm)" in text
    assert desk.error("merge", "--devices", "pi-1,pi-2", "--rule", "mean", "--on", "none", "-o", "y.tflite")["error"] == "BadArgument"
    assert not (desk.folder / "y.tflite").exists()


def test_what_cannot_be_merged_is_refused_by_name_and_nothing_is_written(fleet: Fleet) -> None:
    desk, opened, devices = fleet
    centre = opened()
    centre.deliver(devices[3], devices[3].train())  # not judged yet
    centre.store.close()
    (desk.folder / "bytes").write_bytes(b"\xff\xfe")
    for words, error, told in (
        (["--devices", "pi-1"], "BadArgument", "a cohort of 1: pi-1/digits@2 alone"),
        (["--devices", ","], "BadArgument", "a cohort of 0"),
        (["--devices", "pi-1,pi-1@2"], "BadArgument", "there twice"),
        (["--devices", "pi-1,pi-2@base"], "BadArgument", "no version"),
        (["--devices", "pi-1,pi-4"], "BadArgument", "not verified yet"),
        (["--devices", "pi-1,pi-8"], "UnknownVersion", "pi-8"),
        (["--devices", "pi-1,pi 2"], "Malformed", "DEVICE"),
        (["--devices", "pi-1,pi-2", "--model", "doors"], "UnknownVersion", "doors"),
        (["--cohort", "none.txt"], "MissingFile", "none.txt"),
        (["--cohort", "bytes"], "BadArgument", "no list of devices"),
        (["--devices", "pi-1,pi-2", "--weights", "1,2"], "BadArgument", "whole numbers"),
    ):
        said = desk.error("merge", *words, "--rule", "mean", "-o", "x.tflite")
        assert said["error"] == error and told in str(said["message"]), said
        assert said["hint"] or error == "Malformed"
    for weights in ("1", "0,1", "1,2,3", "1.5,2", f"{(1 << 30) - 1},1", "9" * 30 + ",1"):
        said = desk.error("merge", "--devices", "pi-1,pi-2", "--rule", "weighted", "--weights", weights, "-o", "x.tflite")
        assert said["error"] == "BadArgument", weights
    assert desk.error("merge", "--devices", "pi-1,pi-2", "--rule", "mean", "-o", "x.npz")["error"] == "BadArgument"
    assert not list(desk.folder.glob("x.*"))


def test_an_unfit_version_is_refused_by_name(fleet: Fleet) -> None:
    desk = fleet[0]
    store = open_registry(desk.folder / "fleet.db", readonly=True)
    of = parents.chosen(store, ["pi-1", "pi-2"])
    with pytest.raises(BadArgument, match=r"pi-2/digits@2 is unfit: it says 0\.99"):
        parents.require_mergeable(store, of, {of[1].version.id: "unfit: it says 0.99"})
    assert parents.require_mergeable(store, of, {}).name == "digits"
    store.close()


def test_an_erased_parent_leaves_no_row_and_is_counted(fleet: Fleet) -> None:
    desk = fleet[0]
    merge(desk, "--devices", "pi-1,pi-2,pi-3", "--rule", "mean")
    desk.ok("bases", "add", "merged.tflite", "--no-rehearse")
    desk.ok("erase", "pi-2", "--yes")
    shown = desk.json("bases", "show", "merged")["merged_from"]
    assert (shown["versions"], shown["erased"]) == (3, 1)
    assert [one["name"] for one in shown["parents"]] == ["pi-1/digits@2", "pi-3/digits@2"]
    assert "1 of them of devices that were erased" in desk.ok("bases", "show", "merged")
    assert desk.json("verify", "--all")["tampered"] == []
    desk.ok("erase", "pi-1", "--yes")
    desk.ok("erase", "pi-3", "--yes")
    text = desk.ok("bases", "show", "merged")
    assert "3 versions of digits" in text and "all of them of devices that were erased" in text and not {"parent", "none"} & {*text.split()}


def test_the_sign_test_is_the_binomial_sum_and_wilson_holds_the_share() -> None:
    def exact(more: int, less: int) -> float:
        n, few = more + less, min(more, less)
        total, term = 0, 1
        for k in range(few + 1):
            total, term = total + term, term * (n - k) // (k + 1)
        return min(1.0, float(Fraction(2 * total, 2**n)))

    for more, less in ((0, 0), (1, 0), (5, 5), (3, 9), (100, 60), (0, 40)):
        assert judging.sign_test(more, less) == pytest.approx(exact(more, less), rel=1e-9)
    assert judging.wilson(0, 10)[0] == 0 and judging.wilson(10, 10)[1] == pytest.approx(1)
    assert judging.wilson(81, 100) == pytest.approx((0.7222, 0.8749), abs=1e-4)  # as tables have it


def test_a_merge_that_is_judged_on_many_sets_is_not_better_by_many_looks() -> None:
    rng, found = np.random.default_rng(5), 0
    none = np.zeros(60, np.float32)
    for _ in range(150):  # no merge is better than its base: each is right on half of the rows, whatever they are
        sets = {str(k): [judging.RowScores(rng.random(60) < 0.5, none) for _ in range(2)] for k in range(8)}
        judged = judging.together({name: judging.judge(one, base, {"pi-1": one}, {}) for name, (one, base) in sets.items()})
        alone = {name: judging.judge(one, base, {"pi-1": one}, {}) for name, (one, base) in sets.items()}
        assert all(judged[name].p >= alone[name].p for name in sets)
        found += any("no better" not in one.verdict for one in judged.values())
    assert found <= 15  # 0.05 of 150 is 7.5; binomial, more than 15 once in 200 such tests
    assert judging.together({}) == {}
