"""Many versions rebuilt at once: each is what it is alone, whatever lies between them and whatever is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.registry import SqliteStore, Store, VersionRow
from edgecloud.versions import materialise, several, states
from modelwire.errors import ModelWireError
from modelwire.lattice.state import ModelState
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import ScriptedDevice

from .test_route import KINDS


def grown(path: Path, kind: str, devices: int = 2) -> SqliteStore:
    """Return a registry with some versions of each device, a snapshot among them, and the states of some kept."""
    base_of, of = KINDS[kind]
    base = base_of()
    centre = Centre(make_registry(path, base))
    for n in range(devices):
        device = centre.meet(of(base, f"car-{n}"))
        sent = [device.train(), device.train(), device.snapshot() if kind == "lattice" else device.train(), device.train()]
        sent += [device.learn(range(20))] if of is ScriptedDevice else []
        centre.deliver(device, *sent, *(device.train() for _ in range(4)))
    assert all(one.ok for one in centre.rebuild())
    bases = materialise.LoadedBases(centre.store)
    for lineage in centre.store.lineages.all():
        for version in centre.store.versions.of(lineage.id):
            if version.version in (2, 5):
                state = materialise.rebuild(centre.store, version, bases)
                centre.store.states.put(version.id, lineage.id, states.encode(state, lineage, version), 0)
    return centre.store


def every(store: SqliteStore) -> list[int]:
    """Return the rows of all versions, in no order."""
    ids = [version.id for lineage in store.lineages.all() for version in store.versions.of(lineage.id)]
    return [int(id) for id in np.random.default_rng(1).permutation(ids)]


def compare(store: SqliteStore, ids: list[int]) -> dict[int, str]:
    """Return what keeps versions from being exact, by row, having compared all others with what each is alone."""
    bases, out, seen = materialise.LoadedBases(store), dict[int, str](), list[int]()
    rows = [row for id in ids if (row := store.versions.by_id(id)) is not None]
    for version, got in several.each(store, rows, bases):
        seen.append(version.id)
        if isinstance(got, ModelState):
            alone = materialise.rebuild(store, version, materialise.LoadedBases(store))
            assert got == alone and got.fingerprint == alone.fingerprint and got.root == version.root
        else:
            with pytest.raises(ModelWireError):
                materialise.rebuild(store, version, materialise.LoadedBases(store))
            out[version.id] = got.message
    assert sorted(seen) == sorted(ids)
    return out


def test_versions_of_one_model_share_a_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = grown(tmp_path / "fleet.db", "lattice")
    rows = [version for lineage in store.lineages.all() for version in store.versions.of(lineage.id) if version.version > 5]
    rebuild, alone = materialise.rebuild, list[int]()

    def counted(store: Store, version: VersionRow, *args: Any, **named: Any) -> ModelState:
        alone.append(version.version)
        return rebuild(store, version, *args, **named)

    monkeypatch.setattr(materialise, "rebuild", counted)
    assert len(list(several.each(store, rows, materialise.LoadedBases(store)))) == 8 and alone == [6, 6]


@pytest.mark.parametrize("kind", KINDS)
def test_each_version_is_what_it_is_alone(tmp_path: Path, kind: str) -> None:
    store = grown(tmp_path / "fleet.db", kind)
    ids = every(store)
    assert not compare(store, ids)
    assert not compare(store, ids[:1] * 2) and not compare(store, ids[::3]) and not compare(store, [])


def test_what_is_damaged_is_gone_around_or_named_alone(tmp_path: Path) -> None:
    store = grown(tmp_path / "fleet.db", "lattice")
    rows = {str(v.version): v for v in store.versions.of(store.lineages.all()[0].id)}
    for name, _ in (triggers := store.database.all("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")):
        store.database.run(f"DROP TRIGGER {name}")
    store.database.run("UPDATE state SET bytes = x'00' WHERE version_id = ?", rows["5"].id)
    store.database.run("UPDATE blob SET bytes = x'00' WHERE sha256 = ?", rows["7"].blob)
    for _, made in triggers:
        store.database.run(made)
    lost = compare(store, every(store))
    assert sorted(lost) == sorted(rows[n].id for n in ("7", "8", "9"))
    assert not compare(store, [rows["5"].id])


def test_a_walk_that_is_given_up_leaves_no_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = grown(tmp_path / "fleet.db", "lattice", devices=4)
    pools: list[several.ThreadPoolExecutor] = []

    def pool(*args: object, **named: object) -> several.ThreadPoolExecutor:
        pools.append(_POOL(*args, **named))  # type: ignore[arg-type]
        return pools[-1]

    monkeypatch.setattr(several, "ThreadPoolExecutor", pool)
    rows = [row for id in every(store) if (row := store.versions.by_id(id)) is not None]
    walk = several.each(store, rows, materialise.LoadedBases(store))
    next(walk)
    walk.close()
    assert len(pools) == 1
    with pytest.raises(RuntimeError):
        pools[0].submit(print)


_POOL = several.ThreadPoolExecutor
