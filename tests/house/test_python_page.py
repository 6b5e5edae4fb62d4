"""The page of the Python API: it names every public name, and a notebook that types it gets the answers that stand there."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeagent
import edgecloud
import modelwire
from edgeagent.samples.spool import Spool
from edgecloud import api
from edgecloud.comparisons import Comparisons
from edgecloud.feasibility import evaluating
from edgecloud.merging import parents
from edgecloud.probes import sets
from edgecloud.registry import open_registry
from edgecloud.versions import listing
from edgecloud.versions.materialise import LoadedBases, file_of
from tests.edgecloud import rollouts
from tests.edgecloud.centre import Centre, add_base, admit, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.house.pages import DOCS, ROOT
from tests.planted import WORLDS, Plan, fleet, probes

PAGE = DOCS / "python-api.md"
DIGITS = ROOT / "tests" / "models" / "digits.tflite"
NOON = 1_795_867_200  # 2026-11-28T12:00:00Z


def blocks() -> str:
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```", PAGE.read_text(), re.M | re.S))


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a registry, a device's folder and a base, as the page has them."""
    base = Base.of(DIGITS)
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store, now=NOON)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, *[device.train() for _ in range(3)])
    centre.rebuild()
    admit(store, "pi-8", key_of("pi-8").public, NOON + 60)
    said = rollouts.plan(variant=base.manifest.commit)
    row = store.rollouts.add(rollouts.sealed_plan(said), said, NOON)
    store.rollouts.assign(row.id, [one.id for one in store.lineages.all()], 0, NOON)
    store.close()
    open_registry(tmp_path / "fleet.db").close()
    _cars(tmp_path)
    shutil.copy(DIGITS, tmp_path / "digits.tflite")
    state = tmp_path / "agent"
    state.mkdir()
    Spool.create(state)
    with Spool(state) as spool:
        spool.register("digits", (64,), (10,), max_samples=100, max_bytes=1 << 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _cars(folder: Path) -> None:
    """Make cars.db: twelve cars in six worlds, a probe set on which they are scored, and a base that two of them were merged into."""
    planted = fleet(folder / "planted", Plan(seed=5, per_world=2, rounds=2, steps=10))
    planted.path.rename(folder / "cars.db")
    store = open_registry(folder / "cars.db", synchronous="OFF")
    rows = [probes(world, 20) for world in WORLDS]
    tags = {name: np.concatenate([of.tags[name] for of in rows]) for name in ("light", "weather")}
    held = sets.probe_set(np.concatenate([of.x for of in rows]), np.concatenate([of.y for of in rows]), tags)
    city, bases = sets.add(store, "city", held, now=NOON), LoadedBases(store)
    evaluating.evaluate(store, city, [version for _, version in evaluating.heads(store, "digits")], now=lambda: NOON)
    of = parents.chosen(store, ["car-000", "car-001"])
    made = Base(file_of(parents.averaged(store, of, bases), bases[of[0].version.base]))
    parents.keep(store, made.manifest.file_sha256, of[0].version.base, parents.MEAN, of, NOON)
    add_base(store, made, "both")
    store.close()


@pytest.mark.slow("runs models, and trains a small fleet the first time", seconds=12)
def test_what_the_page_shows_is_what_a_notebook_gets(notebook: Path) -> None:
    test = doctest.DocTestParser().get_doctest(blocks(), {}, PAGE.name, str(PAGE), 0)
    assert len(test.examples) > 60
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_the_page_names_every_public_name() -> None:
    shown = blocks()
    missing = [f"{package.__name__}.{name}" for package in (edgecloud, edgeagent, modelwire) for name in package.__all__
               if not re.search(rf"\b{name}\b", PAGE.read_text())]  # fmt: skip
    for kind in (Comparisons, api.Registry, api.Device, api.Model, api.Version):
        missing += [f"{kind.__name__}.{name}" for name in vars(kind) if not name.startswith("_") and not re.search(rf"\.{name}\b", shown)]
    of_spool = ("append", "extend", "drop", "count", "classes", "shape", "close")
    missing += [f"Spool.{name}" for name in of_spool if f"spool.{name}" not in shown]
    assert missing == []


def test_the_page_says_how_many_rows_a_notebook_shows() -> None:
    assert listing.SHOWN == 20 and "the first twenty" in PAGE.read_text()
