"""Any version, exact and proven, or an error by name; the rebuild thread's decisions; the Python API."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest

import edgecloud
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.versions import comparing, materialise
from modelwire.errors import AmbiguousName, BadSignature, MissingFile, NotServed, RegistryDamaged, RootMismatch, UnknownVersion, WrongBase
from modelwire.lattice.exact import exact_sections
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from modelwire.wire.records import Level
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.device import TINY, Base, ScriptedDevice, key_of

MOTION = TINY.parent / "motion.tflite"


@pytest.fixture
def grown(centre: Centre, device: ScriptedDevice) -> Centre:
    """Twelve verified versions, a snapshot at 5, and a refused 9."""
    for n in range(1, 13):
        if n == 5:
            sent = device.snapshot()
        elif n == 9:
            sent = device.train(fingerprint=(1, 2))
        else:
            sent = device.train()
        centre.deliver(device, sent)
        if n == 9:
            centre.rebuild()
            good = centre.said()[-1].good
            centre.deliver(device, device.snapshot(good))
    centre.rebuild()
    return centre


def fleet_of(store: SqliteStore) -> edgecloud.Fleet:
    return edgecloud.open(store.database.path)


def damage(store: SqliteStore, sql: str, *values: object) -> None:
    """Change a row behind the registry's back."""
    for (name,) in store.database.all("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        store.database.run(f"DROP TRIGGER {name}")
    store.database.run("PRAGMA ignore_check_constraints = ON")
    store.database.run(sql, *values)


def test_every_served_version_is_the_file_that_the_device_served(grown, device):
    with fleet_of(grown.store) as fleet:
        versions = fleet.device("pi-7").versions()
        assert [v.number for v in versions] == list(range(1, 14))
        for v in versions:
            if v.number == 9:
                continue
            assert hashlib.sha256(v.file()).digest() == device.made[v.number].file_sha256
            assert v.state().root == v.root == device.made[v.number].root
            assert v.state().fingerprint == v.header.fingerprint


def test_a_refused_version_is_listed_and_never_served(grown):
    with fleet_of(grown.store) as fleet:
        v = fleet.device("pi-7").version(9)
        assert v.status == "refused" and "another fingerprint" in v.reason
        for use in (v.weights, v.file, v.state, lambda: v.diff(v)):
            with pytest.raises(NotServed, match="pi-7/digits@9"):
                use()
        assert v.header.version == 9  # what it said may be looked at


def test_a_version_on_a_refused_one_can_not_be_materialised_by_the_back_door(grown):
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    row = store.versions.numbered(lineage.id, 9)
    with pytest.raises(NotServed):
        materialise.rebuild(store, row, materialise.LoadedBases(store))


def test_the_api_names_what_the_design_names(grown, device, base):
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        assert fleet.name == "orchard" and [d.name for d in fleet.devices()] == ["pi-7"]
        assert [m.name for m in pi.models()] == ["digits"]
        assert pi.version().number == pi.model().latest.number == fleet.find("pi-7").number == fleet.find("pi-7/digits@latest").number == 13
        assert pi.version("base").file() == fleet.find("pi-7@base").file() == pi.model("digits").base.file() == base.file
        three = pi.version(3)
        assert (three.kind, three.status, three.epoch, three.name) == ("delta", "verified", 1, "pi-7/digits@3")
        assert three.parent == pi.version(2).commit == device.made[2].commit
        assert three.metrics["loss_after"] == 0.5 and three.size == len(device.made[3].data)
        assert (pi.version(0).number, pi.version(0).header, pi.version(0).parent, pi.version(0).kind) == (0, None, None, "base")
        assert sorted(three.weights()) == [t.name for t in base.manifest.schema.tensors]
        assert all(w.dtype == np.float32 for w in three.weights().values())


def test_what_the_api_gives_may_be_changed_without_changing_the_next_answer(grown):
    with fleet_of(grown.store) as fleet:
        for version in (3, "base"):
            first = fleet.device("pi-7").version(version).weights()
            kept = {name: w.copy() for name, w in first.items()}
            for w in first.values():
                w[:] = 9
            again = fleet.device("pi-7").version(version).weights()
            assert all(np.array_equal(kept[n].view(np.uint32), again[n].view(np.uint32)) for n in kept)


def test_unknown_names_are_errors_by_name(grown, centre, base):
    centre.meet(ScriptedDevice(base, model="motion"))
    with fleet_of(grown.store) as fleet:
        for name in ("pi-9", "pi-9@3", "pi-7/other", "pi-7/digits@99"):
            with pytest.raises(UnknownVersion):
                fleet.find(name)
        with pytest.raises(UnknownVersion):
            fleet.device("pi-9")
        with pytest.raises(AmbiguousName, match="digits, motion"):
            fleet.device("pi-7").version(3)
        assert fleet.device("pi-7").model("digits").version(3).number == 3
    with pytest.raises(MissingFile):
        edgecloud.open("nowhere.db")


def test_the_api_can_not_write(grown):
    with fleet_of(grown.store) as fleet, pytest.raises(Exception, match="readonly"):
        fleet._store.devices.add("pi-9", b"k" * 32, 1)


def test_the_distance_of_two_versions_is_exact_in_lattice_units(grown, device, base):
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        a, b = pi.version(3), pi.version(8)
        found = a.diff(b)
        for t, tensor in enumerate(found.tensors):
            qa, qb = a.state().integers[t].astype(np.int64), b.state().integers[t].astype(np.int64)
            assert tensor.units == int(np.abs(qa - qb).sum())
            assert tensor.changed == np.count_nonzero(a.state().weights[t] != b.state().weights[t])
            w = a.state().weights[t].astype(np.float64) - b.state().weights[t]
            assert tensor.largest == np.abs(w).max() and tensor.l2 == np.linalg.norm(w)
        assert found.changed > 0 and found.same_base
        same = a.diff(a)
        assert (same.changed, same.largest, same.l2) == (0, 0.0, 0.0)
        assert [t.units for t in b.diff(a).tensors] == [t.units for t in found.tensors]


def test_units_that_were_widened_are_measured_on_the_finer_lattice(base):
    one, other = materialise.ModelState.of_base(base.manifest, base.weights), materialise.ModelState.of_base(base.manifest, base.weights)
    one.integers[0][:] = [1, 2, -3]
    other.integers[0][:] = [1, 0, 4_000_000]
    other.exponents[0] += 60
    (first, *_) = comparing.distance(one, other).tensors
    assert first.units == abs(1 - 2**60) + 2 + 3 + 4_000_000 * 2**60


def test_versions_of_another_schema_can_not_be_compared(grown, base, tmp_path):
    motion = Base.of(MOTION)
    one, other = (materialise.LoadedBase(b.manifest, b.weights, b.file).state() for b in (base, motion))
    with pytest.raises(WrongBase):
        comparing.distance(one, other)


def test_verify_proves_every_served_version_one_step_each(grown, monkeypatch):
    steps = []
    step = materialise.step
    monkeypatch.setattr(materialise, "step", lambda *a: (steps.append(1), step(*a)))
    lineage = grown.store.lineages.get("pi-7", "digits")
    found = list(materialise.check_lineage(grown.store, lineage, materialise.LoadedBases(grown.store)))
    assert [c.version.version for c in found if c.error is None] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]
    assert len(steps) == 12


def test_a_damaged_container_is_found_and_what_follows_the_next_snapshot_is_still_exact(grown):
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    row = store.versions.numbered(lineage.id, 3)
    damage(store, "UPDATE blob SET bytes = zeroblob(length(bytes)) WHERE sha256 = ?", row.blob)
    found = {c.version.version: c.error for c in materialise.check_lineage(store, lineage, materialise.LoadedBases(store))}
    assert [v for v, error in found.items() if error] == [3, 4]
    assert all(isinstance(e, RegistryDamaged) for e in found.values() if e)
    with fleet_of(store) as fleet:
        with pytest.raises(RegistryDamaged, match="changed"):
            fleet.device("pi-7").version(4).weights()
        assert fleet.device("pi-7").version(6).weights()


@pytest.mark.parametrize(
    ("column", "value"),
    [("root", bytes(32)), ("fingerprint", bytes(16)), ("kind", "snapshot"), ("version", 77), ('"commit"', bytes(32))],
    ids=["root", "fingerprint", "kind", "version", "commit"],
)
def test_a_row_that_does_not_agree_with_its_container_is_damage(grown, column, value):
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    row = store.versions.numbered(lineage.id, 8)
    damage(store, f"UPDATE version SET {column} = ? WHERE id = ?", value, row.id)
    changed = store.versions.by_id(row.id)
    checked = materialise.check_version(store, changed, materialise.LoadedBases(store))
    assert isinstance(checked.error, RegistryDamaged)


def test_another_base_file_in_the_place_of_the_base_is_damage(grown, base):
    store = grown.store
    other = base.file[:-1] + bytes([base.file[-1] ^ 1])
    digest = store.blobs.put(other)
    damage(store, "UPDATE base SET file = ?", digest)
    with pytest.raises(RegistryDamaged, match="has changed"), fleet_of(store) as fleet:
        fleet.device("pi-7").version(3).weights()


def test_a_container_that_no_key_of_its_device_sealed_is_found(grown, base):
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    damage(store, "UPDATE device_key SET key = ?", key_of("mallory").public)
    found = list(materialise.check_lineage(store, lineage, materialise.LoadedBases(store)))
    assert all(isinstance(c.error, (BadSignature, RegistryDamaged)) for c in found)
    assert isinstance(found[0].error, BadSignature)


def test_a_revoked_key_still_proves_what_it_sealed(grown):
    store = grown.store
    store.devices.revoke("pi-7", 99)
    store.devices.add("pi-7", key_of("pi-7", 1).public, 99)
    lineage = store.lineages.get("pi-7", "digits")
    assert all(c.error is None for c in materialise.check_lineage(store, lineage, materialise.LoadedBases(store)))


def test_versions_of_all_epochs_are_proven_and_found_by_number(grown, device):
    device.reflash()
    grown.take(device.hello())
    for record in grown.said():
        device.hear(record)
    grown.deliver(device, device.train(), device.train())
    grown.rebuild()
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        assert [(v.number, v.epoch) for v in (pi.version(12), pi.version(14), pi.version())] == [(12, 1), (14, 2), (15, 2)]
        assert pi.version(14).parent == pi.version("base").commit
        for n in (12, 14, 15):
            assert hashlib.sha256(pi.version(n).file()).digest() == device.made[n].file_sha256


def test_a_rebuild_works_without_any_state_in_memory(store, base):
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    rebuilder = Rebuilder(store, kept_bytes=0)
    for _ in range(3):
        centre.deliver(device, device.train())
        centre.deliver(other, other.train())
        assert [j.ok for j in rebuilder.run(5)] == [True, True]
    assert centre.statuses(device) == centre.statuses(other) == {1: "verified", 2: "verified", 3: "verified"}
    assert len(rebuilder._kept) == 1


def test_a_damaged_registry_is_not_the_devices_fault_and_others_go_on(centre, device, base):
    other = centre.meet(ScriptedDevice(base, name="pi-8"))
    centre.deliver(device, device.train(), device.train())
    centre.deliver(other, other.train())
    lineage = centre.store.lineages.get("pi-7", "digits")
    damage(centre.store, "DELETE FROM blob WHERE sha256 = ?", centre.store.versions.numbered(lineage.id, 1).blob)
    centre.said()
    centre.rebuild()
    assert centre.statuses(device) == {1: "stored", 2: "stored"}
    assert centre.statuses(other) == {1: "verified"}
    assert centre.receipts() == [(1, Level.VERIFIED)]


def test_a_version_stored_while_its_parent_is_being_refused_is_refused_too(centre, device, monkeypatch):
    lie, child = device.train(root=bytes(32)), device.train()
    centre.deliver(device, lie)
    step = materialise.step

    def slow(*args: object, **facts: object) -> None:
        centre.deliver(device, child)  # the ingester goes on while the rebuild computes
        step(*args, **facts)

    monkeypatch.setattr(materialise, "step", slow)
    centre.rebuild()
    assert centre.statuses(device) == {1: "refused", 2: "refused"}
    assert centre.head(device) == 0


def test_a_mismatch_names_the_version_and_what_differs(centre, device):
    centre.deliver(device, device.train(root=bytes(32)))
    lineage = centre.store.lineages.get("pi-7", "digits")
    row = centre.store.versions.numbered(lineage.id, 1)
    with pytest.raises(RootMismatch, match="pi-7/digits@1: the rebuilt weights have another root"):
        materialise.rebuild(centre.store, row, materialise.LoadedBases(centre.store))


def test_large_bases_and_updates_lie_beside_the_registry_and_come_back(tmp_path, base):
    store = make_registry(tmp_path / "fleet.db", None, files_from=300)
    add_base(store, base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train(), device.train())
    centre.rebuild()
    assert len(list((tmp_path / "fleet.db.blobs").glob("*/*"))) == 3
    store.close()
    again = open_registry(tmp_path / "fleet.db", readonly=True)
    lineage = again.lineages.get("pi-7", "digits")
    assert [c.error for c in materialise.check_lineage(again, lineage, materialise.LoadedBases(again))] == [None, None]
    again.close()


def test_the_fingerprint_in_a_row_is_two_little_endian_lanes(grown, device):
    lineage = grown.store.lineages.get("pi-7", "digits")
    row = grown.store.versions.numbered(lineage.id, 13)
    assert struct.unpack("<QQ", row.fingerprint) == device.state.fingerprint


def test_exact_tensors_differ_in_entries_and_not_in_units():
    manifest = manifest_of(TINY.read_bytes(), exact=True)
    flat = manifest.schema.flat(read_weights(TINY.read_bytes()))
    one, other = ModelState.of_base(manifest, flat), ModelState.of_base(manifest, flat)
    other.apply(Kind.EXACT, exact_sections(other, [w * np.float32(1.5) for w in flat]))
    found = comparing.distance(one, other)
    assert found.changed == sum(np.count_nonzero(w) for w in flat) and found.largest > 0
    assert [(t.units, t.exponent) for t in found.tensors] == [(None, None)] * len(flat)
