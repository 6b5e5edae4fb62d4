"""`--plot` of each command draws what its answer says, and refuses before it works where nothing could be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edgecloud.registry import ThinnedRow, open_registry
from edgecloud.versions import changes, materialise, naming
from tests.edgecloud.desk import Desk
from tests.planted import WORLDS, Plan, fleet, probes

pytest.importorskip("matplotlib", reason="the charts need matplotlib")
SMALL = Plan(seed=5, per_world=2, rounds=2, steps=10)


@pytest.fixture
def cars(desk: Desk) -> Iterator[Desk]:
    """Twelve cars in six worlds, and a probe set with tags."""
    fleet(desk.folder, SMALL)
    rows = [probes(world, 12) for world in WORLDS]
    tags = {f"tag.{name}": np.concatenate([of.tags[name] for of in rows]) for name in ("light", "weather")}
    np.savez(desk.folder / "city.npz", x=np.concatenate([of.x for of in rows]), y=np.concatenate([of.y for of in rows]), **tags)
    desk.ok("probes", "add", "city", "city.npz")
    yield desk


def words(path: Path) -> str:
    return " ".join(ElementTree.fromstring(path.read_bytes()).itertext())


@pytest.mark.slow("runs models of a fleet, and trains it the first time", seconds=12)
def test_commands_draw_what_they_say(cars: Desk) -> None:
    folder = cars.folder
    said = cars.json("matrix", "--update", "--plot", "matrix.svg")
    drawn = words(folder / "matrix.svg")
    assert "accuracy" in drawn and all(name in drawn for name in ("car-000@2", "car-011@2", "light=night (", "all rows (72)"))
    assert len(said["models"]) == 12  # type: ignore[arg-type]
    found = cars.json("cards", "--biased", "--plot", "biased.svg")
    first = found["findings"][0]  # type: ignore[index]
    assert f"{first['device']}" in words(folder / "biased.svg") and first["field"] in words(folder / "biased.svg")
    cars.ok("card", "car-000", "--against", "fleet", "--plot", "card.svg")
    assert "car-000/digits against" in words(folder / "card.svg") and "tags.light" in words(folder / "card.svg")
    cars.ok("compare", "car-000", "car-001", "--on", "city", "--layers", "--plot", "layers.png")
    assert (folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    cohorts = cars.json("cluster", "--plot", "cohorts.svg")["cohorts"]
    assert all(f"{one['cohort']}: {len(one['devices'])} devices" in words(folder / "cohorts.svg") for one in cohorts)  # type: ignore[attr-defined]
    cars.ok("drift", "car-000", "--plot", "drift.svg")
    assert all(name in words(folder / "drift.svg") for name in ("car-000/digits", "@1", "@2", "hidden1_kernel", "output_bias"))


def test_a_chart_that_cannot_be_is_refused_before_the_work(cars: Desk) -> None:
    for line in (["matrix", "--update"], ["cards", "--biased"], ["card", "car-000", "--against", "fleet"],
                 ["compare", "car-000", "car-001", "--on", "city", "--layers"]):  # fmt: skip
        assert "names no format" in str(cars.error(*line, "--plot", "chart.gif")["message"])
    assert "scored_now" in cars.json("matrix") and cars.json("matrix")["missing"] == 12  # nothing was scored
    for line in (["cards"], ["card", "car-000"], ["compare", "car-000", "car-001", "--on", "city"]):
        code, _, told = cars.run(*line, "--plot", "chart.svg")
        assert code and "--plot does nothing without" in told
    assert not list(cars.folder.glob("chart.*"))


def test_changes_are_the_norms_of_each_step_and_what_is_gone_is_a_gap(cars: Desk) -> None:
    with closing(open_registry(cars.folder / "fleet.db", readonly=True)) as store:
        place = naming.find(store, naming.parse("car-000@2"))
        bases = materialise.LoadedBases(store)
        rows = store.versions.of(place.lineage.id)
        states = [bases[place.base].state(), *(materialise.rebuild(store, row, bases) for row in rows)]
        found = changes.changes(store, changes.newest(store, place.lineage, 10))
        assert found is not None and found.versions == (1, 2)
        for v, (before, after) in enumerate(pairwise(states)):
            for t in range(len(found.tensors)):
                a, b = before.weights[t].astype(np.float64), after.weights[t].astype(np.float64)
                assert found.relative[t, v] == pytest.approx(np.linalg.norm(b - a) / (np.linalg.norm(a) or 1))
    with closing(open_registry(cars.folder / "fleet.db", synchronous="OFF")) as store:
        store.thinnings.drop(ThinnedRow(rows[1].id, True, 1, b""))
        found = changes.changes(store, changes.newest(store, place.lineage, 10))
        assert found is not None and np.isnan(found.relative).all(0).tolist() == [False, True]
