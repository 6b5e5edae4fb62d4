"""A copy of one moment, taken while others write; and putting it back."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

import edgecloud
from edgecloud.keeping.compacting import Compactor
from edgecloud.registry import open_registry, state_folder
from edgecloud.registry.backup import backup, restore
from edgecloud.registry.lock import lock_registry
from edgecloud.registry.sqlite.database import open_database
from edgecloud.versions import materialise
from modelwire.errors import BadArgument, MissingFile, RegistryDamaged, StateBusy, UnsupportedWire
from tests.edgecloud.centre import Centre, add_base, damage, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.wide import WideDevice, enrol, grow, wide_base


def silent(_done: int, _total: int) -> None:
    pass


def exact(path: Path) -> int:
    """Return how many versions of a registry are proven; fail for one that is not."""
    store = open_registry(path, readonly=True)
    try:
        bases, count = materialise.LoadedBases(store), 0
        for lineage in store.lineages.all():
            for checked in materialise.check_lineage(store, lineage, bases):
                assert checked.error is None, str(checked.error)
                count += 1
        return count
    finally:
        store.close()


@pytest.mark.slow("copies a registry again and again while it is written")
def test_a_copy_taken_while_the_ingester_writes_is_whole_and_of_one_moment(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "fleet.db"
    store = make_registry(path, base)
    centre = Centre(store)
    devices = [centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in range(3)]
    for device in devices:
        centre.deliver(device, *(device.train() for _ in range(30)))
    centre.rebuild()
    stop, copies = threading.Event(), []

    def copy() -> None:
        while not stop.is_set():
            target = tmp_path / f"copy-{len(copies)}.db"
            backup(path, target, progress=silent)
            copies.append(target)

    thread = threading.Thread(target=copy)
    thread.start()
    for _ in range(25):
        for device in devices:
            centre.deliver(device, device.train())
        centre.rebuild()
    stop.set()
    thread.join()
    counts = [exact(c) for c in copies]
    assert len(copies) >= 3 and counts == sorted(counts) and counts[0] >= 90 and counts[-1] <= 165
    restore(copies[-1], tmp_path / "restored.db", progress=silent)
    assert exact(tmp_path / "restored.db") == counts[-1]
    with edgecloud.open(tmp_path / "restored.db") as fleet:
        v = fleet.device("pi-2").version()
        assert hashlib.sha256(v.file()).digest() == devices[2].made[v.number].file_sha256
    store.close()


def test_an_unchanged_registry_and_its_copy_hold_the_same_rows(tmp_path: Path, centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, *(device.train() for _ in range(5)))
    centre.rebuild()
    backup(centre.store.database.path, tmp_path / "copy.db", progress=silent)
    copy = open_database(tmp_path / "copy.db", readonly=True)
    tables = [name for (name,) in copy.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert "version" in tables
    for table in tables:
        assert copy.all(f"SELECT * FROM {table}") == centre.store.database.all(f"SELECT * FROM {table}")
    copy.close()


def test_a_copy_holds_what_lay_beside_the_registry(tmp_path: Path, base: Base) -> None:
    store = make_registry(tmp_path / "fleet.db", None, files_from=300)
    add_base(store, base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    backup(tmp_path / "fleet.db", tmp_path / "elsewhere.db", progress=silent)
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere.db").rename(tmp_path / "other" / "fleet.db")
    assert exact(tmp_path / "other" / "fleet.db") == 1
    assert sorted(p.name for p in (tmp_path / "other").iterdir() if "-" not in p.name) == ["fleet.db"]
    store.close()


def test_a_file_that_is_missing_beside_the_registry_fails_the_copy_and_leaves_none(tmp_path: Path, base: Base) -> None:
    store = make_registry(tmp_path / "fleet.db", None, files_from=300)
    add_base(store, base)
    for path in (tmp_path / "fleet.db.blobs").glob("*/*"):
        path.unlink()
    with pytest.raises(RegistryDamaged, match="gone"):
        backup(tmp_path / "fleet.db", tmp_path / "copy.db", progress=silent)
    assert [p.name for p in tmp_path.glob("copy*")] == []
    store.close()


def test_a_damaged_registry_gives_no_copy(tmp_path: Path, centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, *(device.train() for _ in range(5)))
    path = centre.store.database.path
    centre.store.database.run("PRAGMA foreign_keys = OFF")
    damage(centre.store, "DELETE FROM epoch")
    with pytest.raises(RegistryDamaged, match="names a missing epoch"):
        backup(path, tmp_path / "copy.db", progress=silent)
    assert not (tmp_path / "copy.db").exists()


def test_a_copy_never_overwrites_unless_it_is_told_to(tmp_path: Path, centre: Centre) -> None:
    path, target = centre.store.database.path, tmp_path / "copy.db"
    target.write_bytes(b"mine")
    with pytest.raises(BadArgument, match="there already"):
        backup(path, target, progress=silent)
    assert target.read_bytes() == b"mine"
    backup(path, target, progress=silent, replace=True)
    assert exact(target) == 0
    with pytest.raises(MissingFile):
        backup(tmp_path / "nowhere.db", tmp_path / "x.db", progress=silent)
    with pytest.raises(BadArgument, match="no folder"):
        backup(path, tmp_path / "no" / "x.db", progress=silent)


def test_restoring_moves_the_registry_before_it_aside_with_its_log(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "fleet.db"
    store = make_registry(path, base)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    centre.deliver(device, device.train())
    backup(path, tmp_path / "monday.db", progress=silent)
    centre.deliver(device, device.train())
    with pytest.raises(BadArgument, match="there already"):
        restore(tmp_path / "monday.db", path, progress=silent)
    aside = restore(tmp_path / "monday.db", path, progress=silent, replace=True)
    store.close()
    assert (exact(path), exact(aside)) == (1, 2)
    # The device goes on where its own head is: the centre asks it for a snapshot in the end.
    again = Centre(open_registry(path, synchronous="OFF"))
    orphan = device.train()
    again.deliver(device, orphan)
    for _ in range(2):
        again.now += 200
        again.deliver(device, orphan)
    snapshots = [s for s in (device.hear(r) for r in again.said()) if s]
    again.deliver(device, *snapshots)
    again.rebuild()
    assert again.head(device) == 4
    again.store.close()


def test_a_registry_in_use_by_an_ingester_is_not_replaced(tmp_path: Path, centre: Centre) -> None:
    path = centre.store.database.path
    backup(path, tmp_path / "copy.db", progress=silent)
    with lock_registry(path), pytest.raises(StateBusy):
        restore(tmp_path / "copy.db", path, progress=silent, replace=True)


@pytest.mark.parametrize("damage", ["truncated", "other file", "newer"])
def test_what_is_no_whole_copy_is_not_restored(tmp_path: Path, centre: Centre, device: ScriptedDevice, damage: str) -> None:
    centre.deliver(device, *(device.train() for _ in range(20)))
    copy = tmp_path / "copy.db"
    backup(centre.store.database.path, copy, progress=silent)
    if damage == "truncated":
        copy.write_bytes(copy.read_bytes()[:-8192])
    elif damage == "other file":
        copy.write_bytes(b"SQLite format 3\0" + bytes(5000))
    else:
        newer = open_database(copy)
        newer.run("PRAGMA user_version = 99")
        newer.close()
    with pytest.raises((RegistryDamaged, UnsupportedWire)):
        restore(copy, tmp_path / "restored.db", progress=silent)
    assert not (tmp_path / "restored.db").exists()


def test_progress_is_said_from_nothing_to_all(tmp_path: Path, centre: Centre, device: ScriptedDevice) -> None:
    centre.deliver(device, *(device.train() for _ in range(20)))
    said: list[tuple[int, int]] = []
    backup(centre.store.database.path, tmp_path / "copy.db", progress=lambda *p: said.append(p))
    assert said and said[-1][0] == said[-1][1] > 0


def test_a_copy_in_the_place_of_the_registry_itself_is_refused(tmp_path: Path, base: Base) -> None:
    path = tmp_path / "fleet.db"
    make_registry(path, base).close()
    (tmp_path / "other.db").symlink_to(path)
    inode = path.stat().st_ino
    for target in (path, tmp_path / "other.db", tmp_path / "." / "fleet.db"):
        with pytest.raises(BadArgument, match="the registry itself"):
            backup(path, target, progress=silent, replace=True)
    assert path.stat().st_ino == inode


def test_a_copy_does_not_replace_a_registry_that_an_ingester_works_on(tmp_path: Path, base: Base) -> None:
    for name in ("fleet.db", "other.db"):
        make_registry(tmp_path / name, base).close()
    with lock_registry(tmp_path / "other.db"), pytest.raises(StateBusy):
        backup(tmp_path / "fleet.db", tmp_path / "other.db", progress=silent, replace=True)


def test_the_registry_that_a_restore_moves_aside_is_whole_with_its_files(tmp_path: Path, base: Base) -> None:
    path, copy = tmp_path / "fleet.db", tmp_path / "copy.db"
    store = make_registry(path, base, files_from=100)
    device = Centre(store).meet(ScriptedDevice(base))
    Centre(store).deliver(device, device.train())
    store.close()
    backup(path, copy, progress=silent)
    aside = restore(copy, path, progress=silent, replace=True)
    assert aside is not None
    for name in (aside, path):
        with edgecloud.open(name) as fleet:
            assert hashlib.sha256(fleet.find("pi-7@1").file()).digest() == device.made[1].file_sha256


@pytest.mark.parametrize("files_from", [1, 1 << 22])
def test_a_backup_leaves_states_in_files_behind_and_they_are_made_again(tmp_path: Path, files_from: int) -> None:
    base, path = wide_base(1000, 100, 10), tmp_path / "fleet.db"
    store = make_registry(path, base, files_from=files_from)
    device = WideDevice(base)
    rows = grow(store, enrol(store, device), device, [0.1] * 30)
    while Compactor(store, settle=0, behind=1).run() is not None:
        pass
    before = store.states.totals()
    store.close()
    backup(path, tmp_path / "copy.db", progress=silent)
    restore(tmp_path / "copy.db", path, progress=silent, replace=True)
    assert not state_folder(path).exists()  # moved aside with the registry that it belongs to
    store = open_registry(path, synchronous="OFF")
    assert store.states.totals() == ((0, 0) if files_from == 1 else before) and store.problems() == []
    bases = materialise.LoadedBases(store)
    assert all(materialise.rebuild(store, row, bases).root == row.root for row in rows)
    while Compactor(store, settle=0, behind=1).run() is not None:
        pass
    assert store.states.row(rows[-1].id) is not None
    store.close()
