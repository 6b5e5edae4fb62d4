"""The cheapest way: exact from every kept state to every version, forward and back, over all classes of tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecloud.registry import SqliteStore, VersionRow
from edgecloud.versions import materialise, route, states
from modelwire import storage
from modelwire.errors import RegistryDamaged
from modelwire.lattice.between import exact_sections
from modelwire.lattice.replay import kind_of
from modelwire.lattice.snap import snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype
from modelwire.update.manifest import manifest_of
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice, Sent

MODELS = Path(__file__).parents[2] / "models"
RATES = route.Rates(weight=0, state=0, state_byte=1, update=0, update_byte=1, multiply=0)  # bytes alone


class MixedDevice(ScriptedDevice):
    """Moves tensors of every type and class, wherever to: of an int8 head, to what no file could hold."""

    def served(self) -> bytes:
        return self.base.file

    def train(self, *, density: float = 0.01, **header: object) -> Sent:
        trained: list[Any] = []
        for t, (spec, w) in enumerate(zip(self.base.manifest.schema.tensors, self.state.weights, strict=True)):
            noise = self.rng.standard_normal(spec.size).astype(np.float32)
            if spec.dtype is Dtype.INT32:
                trained.append(w + self.rng.integers(-500, 500, spec.size).astype(np.int32))
            elif spec.dtype is Dtype.INT8:
                trained.append(np.clip(w + noise * np.float32(2), -127, 127))
            elif self.base.manifest.lattice(t):
                trained.append(w * (1 + np.clip(noise, -2, 2) * np.float32(0.02)))
            else:
                trained.append(storage.rounded(spec.dtype, w * (1 + np.clip(noise, -2, 2) * np.float32(0.02))))
        round = snap(self.state, trained, self.residual, density=density, max_bytes=1 << 20)
        self.state, self.residual = round.state, round.residual
        return self.seal(round.kind, round.sections)


class ExactDevice(ScriptedDevice):
    """Trains all tensors freely, as a base of exact ones lets it."""

    def train(self, *, density: float = 0.01, **header: object) -> Sent:
        after: list[Any] = []
        for spec, w in zip(self.base.manifest.schema.tensors, self.state.weights, strict=True):
            moved = w.copy()
            some = self.rng.random(spec.size) < density
            moved[some] = (w[some] * np.float32(1.01)).astype(w.dtype)
            after.append(moved)
        sections = exact_sections(self.state, after)
        self.state.apply(kind_of(self.state), sections)
        return self.seal(kind_of(self.state), sections)


def exact_base() -> Base:
    base = Base((MODELS / "tiny.tflite").read_bytes())
    base.manifest = manifest_of(base.file, exact=True)
    return base


KINDS = {
    "lattice": (lambda: Base.of(), ScriptedDevice),
    "mixed": (lambda: Base.of(MODELS / "mixed.tflite"), MixedDevice),
    "int8": (lambda: Base.of(MODELS / "own" / "digits_int8.tflite"), MixedDevice),
    "exact": (exact_base, ExactDevice),
}


@pytest.fixture(params=sorted(KINDS))
def chain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SqliteStore, list[VersionRow], list[ModelState]]]:
    """Eight verified versions of one class of model, and their states as the device had them."""
    make, kind = KINDS[request.param]
    base = make()
    store = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(store)
    device = centre.meet(kind(base))
    held = []
    for _ in range(8):
        centre.deliver(device, device.train(density=0.3))
        held.append(device.state.copy())
    assert all(one.ok for one in centre.rebuild())
    yield store, store.versions.of(store.lineages.all()[0].id), held
    store.close()


def keep(store: SqliteStore, row: VersionRow, state: ModelState) -> None:
    with store.transaction():
        store.states.put(row.id, row.lineage, states.encode(state, store.lineages.by_id(row.lineage), row), 1)


def test_every_version_comes_back_from_every_state_forward_and_back(
    chain: tuple[SqliteStore, list[VersionRow], list[ModelState]],
) -> None:
    store, rows, held = chain
    bases = materialise.LoadedBases(store)
    line = store.lineages.by_id(rows[0].lineage)
    for start in range(len(rows)):
        keep(store, rows[start], held[start])
        for end in range(len(rows)):
            # All ways but the one from this state are shut.
            shut = {("forward", rows[i].id) for i in range(len(rows)) if i <= start}
            told: list[route.Route] = []
            state = materialise.rebuild(store, rows[end], bases, avoid=set(shut), told=told)
            assert state == held[end] and state.fingerprint == held[end].fingerprint
            way = told[0]
            assert way.start == rows[start].id and len(way.hops) == abs(end - start) and all(h.back is (end < start) for h in way.hops)
        read = states.read(store, line, rows[start], bases[rows[start].base].state())
        assert read == held[start]
        store.states.drop([rows[start].id])
        assert states.read(store, line, rows[start], bases[rows[start].base].state()) is None


def test_the_cheaper_of_two_ways_is_taken(chain: tuple[SqliteStore, list[VersionRow], list[ModelState]]) -> None:
    store, rows, held = chain
    sizes = [row.size for row in rows]
    for kept in ((), (3,), (1, 6), (7,), (0, 4, 7)):
        for i in kept:
            keep(store, rows[i], held[i])
        state_size = {i: row.size for i in kept if (row := store.states.row(rows[i].id)) is not None}
        for end in range(len(rows)):
            costs = [sum(sizes[: end + 1])]  # from the base
            costs += [state_size[i] + (sum(sizes[i + 1 : end + 1]) if i <= end else sum(sizes[end + 1 : i + 1])) for i in kept]
            way = route.find(store, rows[end], RATES)
            assert way is not None and way.size == min(costs) == way.seconds
        store.states.drop([row.id for row in rows])


def test_no_way_at_all_is_damage_that_says_what_is_lost(chain: tuple[SqliteStore, list[VersionRow], list[ModelState]]) -> None:
    store, rows, held = chain
    bases = materialise.LoadedBases(store)
    store.database.run("DROP TRIGGER blob_no_delete")
    store.database.run("DELETE FROM blob WHERE sha256 = ?", rows[4].blob)
    for row in rows[:4]:
        assert materialise.rebuild(store, row, bases).root == row.root
    for row in rows[4:]:
        with pytest.raises(RegistryDamaged, match="are gone"):
            materialise.rebuild(store, row, bases)
    keep(store, rows[6], held[6])  # nothing but that container is lost now
    for row in rows:
        assert materialise.rebuild(store, row, bases).root == row.root
    store.states.drop([rows[6].id])


def test_a_way_crosses_neither_a_snapshot_nor_a_refused_version_backward(grown: Centre) -> None:
    store = grown.store
    lineage = store.lineages.of("pi-7")[0]
    rows = {row.version: row for row in store.versions.of(lineage.id)}
    bases = materialise.LoadedBases(store)
    states_of = {n: materialise.rebuild(store, row, bases) for n, row in rows.items() if row.status.value == "verified"}
    keep(store, rows[6], states_of[6])
    for n, state in states_of.items():
        told: list[route.Route] = []
        assert materialise.rebuild(store, rows[n], bases, told=told) == state
        if n < 5:
            assert all(not hop.back for hop in told[0].hops)  # 5 is a snapshot
    shut = {("forward", rows[n].id) for n in range(1, 6)}
    assert route.find(store, rows[4], RATES, shut) is None
    back = route.find(store, rows[5], RATES, shut)
    assert back is not None and [(hop.back, hop.link.id) for hop in back.hops] == [(True, rows[6].id)]
