"""Cohorts of the planted fleet are its worlds, each with the reason that was planted; and what can't be compared is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from edgecloud.registry import SqliteStore
from edgecloud.searching import cluster
from edgecloud.searching.cluster import Clustered
from modelwire.cards.card import card_of
from modelwire.errors import AmbiguousName, BadArgument
from tests.edgecloud.centre import Centre, add_base, damage, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base, ScriptedDevice
from tests.planted import WORLDS, Plan, PlantedFleet, fleet, rand_index
from tests.worlds import MODELS


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedFleet:
    return fleet(tmp_path_factory.mktemp("planted"), Plan())


@pytest.fixture
def store(planted: PlantedFleet) -> Iterator[SqliteStore]:
    with closing(planted.open()) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(planted: PlantedFleet) -> Clustered:
    with closing(planted.open()) as store:
        return cluster.cluster(store)


def agreement(found: Clustered, planted: PlantedFleet) -> float:
    pairs = [(cohort.number, planted.worlds[lineage.device]) for cohort in found.cohorts for lineage, _ in cohort.members]
    assert len(pairs) == len(planted.worlds)
    return rand_index([number for number, _ in pairs], [world for _, world in pairs])


def test_the_cohorts_are_the_worlds_by_weights_and_by_sketches(store: SqliteStore, planted: PlantedFleet, found: Clustered) -> None:
    assert agreement(found, planted) >= 0.95 and found.whole
    with mock.patch.object(cluster, "WHOLE", 0):
        by_sketches = cluster.cluster(store)
    assert agreement(by_sketches, planted) >= 0.95 and not by_sketches.whole


def test_each_cohort_says_what_was_planted_and_of_the_mirror_that_no_field_tells(planted: PlantedFleet, found: Clustered) -> None:
    for cohort in found.cohorts:
        world = WORLDS[planted.worlds[cohort.members[0][0].device]]
        told = [reason.field for reason in cohort.reasons]
        assert set(world.biases) - set(told) <= {"channels.contrast"}, (world.name, told)
        if world.biases:
            assert told[0] == world.biases[0], (world.name, told)
        if world.name == "mirror":
            assert cohort.why == "no field of the cards tells it from the rest"
        assert all(reason.psi > max(0.1, reason.chance) for reason in cohort.reasons)


def test_a_fleet_without_bias_is_one_cohort(tmp_path: Path) -> None:
    with closing(fleet(tmp_path, Plan(per_world=3, rounds=2, steps=10, biased=())).open()) as store:
        (cohort,) = cluster.cluster(store).cohorts
        assert cohort.why == "the only cohort of its base: nothing to tell it from" and cohort.nearest is None


def test_devices_in_doubt_are_decided_by_whole_models(store: SqliteStore, planted: PlantedFleet) -> None:
    with mock.patch.object(cluster, "WHOLE", 0):
        (found,) = [cluster._find(store, b.commit, {r.id: r for r in store.lineages.all()}, cluster.LoadedBases(store), lambda a, b: None)
                    for b in store.bases.all()]  # fmt: skip
        labels = cluster.grouping.groups(cluster._squares(found.rows))
        right = labels.copy()
        plain = next(labels[i] for i, (row, _) in enumerate(found.members) if planted.worlds[row.device] == "plain")
        rain = next(labels[i] for i, (row, _) in enumerate(found.members) if planted.worlds[row.device] == "rain")
        labels[(labels == plain).argmax()] = rain  # one is put into the wrong cohort
        decided, moved = cluster._decide(store, found, labels, cluster.LoadedBases(store))
    assert decided >= 1 and moved >= 1 and (labels == right).all()


def test_the_command_shows_a_screen_and_gives_the_same_as_json(planted: PlantedFleet, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(planted.path.parent, capsys)
    text = desk.ok("--db", str(planted.path), "cluster")
    assert "digits: 6 cohorts of 60 devices" in text and "light night: 95 % (elsewhere" in text and "no field of the cards" in text
    document = desk.json("--db", str(planted.path), "cluster", "--cohorts", "2")
    assert [len(cohort["devices"]) for cohort in document["cohorts"]] == [50, 10]  # type: ignore[attr-defined]
    assert desk.error("--db", str(planted.path), "cluster", "--cohorts", "61")["error"] == "BadArgument"
    assert "auto or a number" in str(desk.error("--db", str(planted.path), "cluster", "--cohorts", "1e3")["message"])
    assert desk.error("--db", str(planted.path), "cluster", "--model", "cats")["error"] == "UnknownVersion"


def test_what_is_in_no_cohort_is_said(tmp_path: Path) -> None:
    """A tiny fleet: one silent, one back at its base, one whose newest version is damaged, and two that went their ways."""
    base = Base.of()
    store = make_registry(tmp_path / "fleet.db", base)
    with pytest.raises(BadArgument, match="no device has a model yet"):
        cluster.cluster(store)
    centre = Centre(store)
    names = ("silent", "back", "broken", "one", "other")
    devices = {name: centre.meet(ScriptedDevice(base, name=name)) for name in names}
    with pytest.raises(BadArgument, match="no device of the model"):
        cluster.cluster(store)
    for name in names[1:]:
        centre.deliver(devices[name], devices[name].train(density=0.5))
    back = devices["back"]
    back.state = back.state.at_base()
    centre.deliver(back, back.snapshot())
    centre.rebuild()
    blob = store.versions.of(store.lineages.get("broken", "digits").id)[0].blob  # type: ignore[union-attr]
    damage(store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", blob)
    found = cluster.cluster(store)
    assert (found.silent, found.at_base, found.left_out) == (("silent",), ("back",), ("broken",))
    assert sum(len(cohort.members) for cohort in found.cohorts) == 2
    assert all("no cards" in cohort.why or "only cohort" in cohort.why for cohort in found.cohorts)
    store.close()


def test_only_models_of_one_base_are_compared_and_of_one_name(tmp_path: Path) -> None:
    base, other = Base.of(), Base.of(MODELS / "digits.tflite")
    store = make_registry(tmp_path / "fleet.db", base)
    add_base(store, other, "larger")
    centre = Centre(store)
    for name, of in (("a", base), ("b", base), ("c", other), ("d", other)):
        device = centre.meet(ScriptedDevice(of, name=name))
        centre.deliver(device, device.train(density=0.5))
    centre.rebuild()
    found = cluster.cluster(store)
    assert {cohort.base for cohort in found.cohorts} == {base.manifest.commit, other.manifest.commit}
    for cohort in found.cohorts:
        assert len({version.base for _, version in cohort.members}) == 1
    lone = centre.meet(ScriptedDevice(base, name="e"))
    centre.deliver(lone, lone.train(density=0.5))
    centre.rebuild()
    parted = cluster.cluster(store, count=3).cohorts  # of the other base each device is one
    assert sorted(len(cohort.members) for cohort in parted) == [1] * 5
    with pytest.raises(BadArgument, match="3 devices, the most on one base, can't be parted into 4 cohorts"):
        cluster.cluster(store, count=4)
    device = centre.meet(ScriptedDevice(base, name="a", model="cats"))
    with pytest.raises(AmbiguousName):
        cluster.cluster(store)
    assert cluster.cluster(store, model="digits").model == "digits" and device.model == "cats"
    store.close()


def test_cards_that_lie_or_can_t_be_read_do_no_harm(tmp_path: Path) -> None:
    base = Base.of()
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    hostile: list[object] = [b"\xff" * 40, 7, card_of(3, tags={"light": ["\u2066x"[1:], "y", "z"]}).encode(), card_of(0).encode()]
    hostile += [card_of(64, tags={f"t{k}": [f"{number}-{k}-{i}" for i in range(64)] for k in range(4)}).encode() for number in range(12)]
    for number, card in enumerate(hostile):
        device = centre.meet(ScriptedDevice(base, name=f"d{number}"))
        centre.deliver(device, device.train(density=0.5, extension={"card": card}))
    centre.rebuild()
    assert sum(len(cohort.members) for cohort in cluster.cluster(store).cohorts) == 16
    store.close()


def test_a_device_that_widens_its_units_without_end_spoils_no_one_s_cohort(tmp_path: Path) -> None:
    base = Base.of()
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    devices = [centre.meet(ScriptedDevice(base, name=f"d{number}")) for number in range(6)]
    for device in devices[1:]:
        centre.deliver(device, device.train(density=0.5))
    wide = devices[0]
    wide.state.exponents[0] = 90
    wide.state.integers[0][:] = 1 << 20
    wide.state.weights[0][:] = wide.state.base[0] + np.float32(2.0**110)
    wide.state.fingerprint = wide.state.measure_fingerprint()
    centre.deliver(wide, wide.snapshot())
    centre.rebuild()
    found = cluster.cluster(store)
    assert sum(len(cohort.members) for cohort in found.cohorts) == len(devices), centre.statuses(wide)
    assert all(-1 <= cohort.alike <= 1.0001 or len(cohort.members) == 1 for cohort in found.cohorts)
    assert np.isfinite(cluster.coordinates(wide.state)).all()
    store.close()
