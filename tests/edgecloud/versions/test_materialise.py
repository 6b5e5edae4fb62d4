"""Any version, exact and proven, or an error by name."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

import edgecloud
from edgecloud.registry import open_registry
from edgecloud.versions import materialise
from modelwire.errors import AmbiguousName, BadSignature, MissingFile, NotServed, RegistryDamaged, RootMismatch, UnknownVersion
from tests.edgecloud.centre import Centre, add_base, admit, damage, fleet_of, make_registry, revoke
from tests.edgecloud.device import Base, ScriptedDevice, key_of


def test_every_served_version_is_the_file_that_the_device_served(grown: Centre, device: ScriptedDevice) -> None:
    with fleet_of(grown.store) as fleet:
        versions = fleet.device("pi-7").versions()
        assert [v.number for v in versions] == list(range(1, 14))
        for v in versions:
            if v.number == 9:
                continue
            assert hashlib.sha256(v.file()).digest() == device.made[v.number].file_sha256
            assert v.state().root == v.root == device.made[v.number].root
            assert v.state().fingerprint == v.header.fingerprint


def test_a_refused_version_is_listed_and_never_served(grown: Centre) -> None:
    with fleet_of(grown.store) as fleet:
        v = fleet.device("pi-7").version(9)
        assert v.status == "refused" and "another fingerprint" in v.reason
        for use in (v.weights, v.file, v.state, lambda: v.diff(v)):
            with pytest.raises(NotServed, match="pi-7/digits@9"):
                use()
        assert v.header.version == 9  # what it said may be looked at


def test_a_version_on_a_refused_one_can_not_be_materialised_by_the_back_door(grown: Centre) -> None:
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    row = store.versions.numbered(lineage.id, 9)
    with pytest.raises(NotServed):
        materialise.rebuild(store, row, materialise.LoadedBases(store))


def test_unknown_names_are_errors_by_name(grown: Centre, centre: Centre, base: Base) -> None:
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


def test_verify_proves_every_served_version_one_step_each(grown: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = materialise.step
    monkeypatch.setattr(materialise, "step", lambda *a: (steps.append(1), step(*a)))
    lineage = grown.store.lineages.get("pi-7", "digits")
    found = list(materialise.check_lineage(grown.store, lineage, materialise.LoadedBases(grown.store)))
    assert [c.version.version for c in found if c.error is None] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13]
    assert len(steps) == 12


def test_a_damaged_container_is_found_and_what_follows_the_next_snapshot_is_still_exact(grown: Centre) -> None:
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
def test_a_row_that_does_not_agree_with_its_container_is_damage(grown: Centre, column: str, value: str | int | bytes) -> None:
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    row = store.versions.numbered(lineage.id, 8)
    damage(store, f"UPDATE version SET {column} = ? WHERE id = ?", value, row.id)
    changed = store.versions.by_id(row.id)
    checked = materialise.check_version(store, changed, materialise.LoadedBases(store))
    assert isinstance(checked.error, RegistryDamaged)


def test_another_base_file_in_the_place_of_the_base_is_damage(grown: Centre, base: Base) -> None:
    store = grown.store
    other = base.file[:-1] + bytes([base.file[-1] ^ 1])
    digest = store.blobs.put(other)
    damage(store, "UPDATE base SET file = ?", digest)
    with pytest.raises(RegistryDamaged, match="has changed"), fleet_of(store) as fleet:
        fleet.device("pi-7").version(3).weights()


def test_a_container_that_no_key_of_its_device_sealed_is_found(grown: Centre, base: Base) -> None:
    store = grown.store
    lineage = store.lineages.get("pi-7", "digits")
    damage(store, "UPDATE device_key SET key = ?", key_of("mallory").public)
    found = list(materialise.check_lineage(store, lineage, materialise.LoadedBases(store)))
    assert all(isinstance(c.error, (BadSignature, RegistryDamaged)) for c in found)
    assert isinstance(found[0].error, BadSignature)


def test_a_revoked_key_still_proves_what_it_sealed(grown: Centre) -> None:
    store = grown.store
    revoke(store, "pi-7", 99)
    admit(store, "pi-7", key_of("pi-7", 1).public, 99)
    lineage = store.lineages.get("pi-7", "digits")
    assert all(c.error is None for c in materialise.check_lineage(store, lineage, materialise.LoadedBases(store)))


def test_versions_of_all_epochs_are_proven_and_found_by_number(grown: Centre, device: ScriptedDevice) -> None:
    device.reflash()
    grown.meet(device)
    grown.deliver(device, device.train(), device.train())
    grown.rebuild()
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        assert [(v.number, v.epoch) for v in (pi.version(12), pi.version(14), pi.version())] == [(12, 1), (14, 2), (15, 2)]
        assert pi.version(14).parent == pi.version("base").commit
        for n in (12, 14, 15):
            assert hashlib.sha256(pi.version(n).file()).digest() == device.made[n].file_sha256


def test_a_mismatch_names_the_version_and_what_differs(centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, device.train(root=bytes(32)))
    lineage = centre.store.lineages.get("pi-7", "digits")
    row = centre.store.versions.numbered(lineage.id, 1)
    with pytest.raises(RootMismatch, match="pi-7/digits@1: the rebuilt weights have another root"):
        materialise.rebuild(centre.store, row, materialise.LoadedBases(centre.store))


def test_large_bases_and_updates_lie_beside_the_registry_and_come_back(tmp_path: Path, base: Base) -> None:
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


def test_the_fingerprint_in_a_row_is_two_little_endian_lanes(grown: Centre, device: ScriptedDevice) -> None:
    lineage = grown.store.lineages.get("pi-7", "digits")
    row = grown.store.versions.numbered(lineage.id, 13)
    assert struct.unpack("<QQ", row.fingerprint) == device.state.fingerprint
