"""Attacks on the registry's file, restores, claims, keys and the operator's screen, thought out without a look at the other tests."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgecloud import keys
from edgecloud.audit import entries, tampering
from edgecloud.audit.admissions import Admissions
from edgecloud.audit.signing import require_signed
from edgecloud.registry import SignedEnd, SqliteStore, open_registry
from edgecloud.registry import backup as backup_module
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.wire import records
from modelwire.wire.records import Act, Command, Trust, encode
from modelwire.wire.signing import PrivateKey
from tests.edgecloud import conftest as fixtures
from tests.edgecloud.audit.edits import relinked, rows
from tests.edgecloud.centre import Centre, admit, damage, revoke, sign
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import FLEET, Base, ScriptedDevice, key_of
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, RECEIPT, ROOT

base, store, centre, device = fixtures.base, fixtures.store, fixtures.centre, fixtures.device
grown, desk = fixtures.grown, fixtures.desk


def closed(centre: Centre) -> Path:
    """Return a registry that nobody has open, all in its own file."""
    path = centre.store.database.path
    centre.store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    centre.store.close()
    return path


def edited(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        rows(*statements)(database)


def test_an_old_log_of_a_lost_registry_is_not_played_into_the_restored_one(desk: Desk, grown: Centre, device: ScriptedDevice) -> None:
    path = grown.store.database.path
    desk.ok("backup", "monday.db")
    grown.store.database.run("PRAGMA wal_autocheckpoint = 0")
    grown.deliver(device, *(device.train() for _ in range(3)))
    wal = Path(f"{path}-wal").read_bytes()
    grown.store.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(wal)
    desk.ok("restore", "monday.db")
    said = desk.json("verify", "--all")
    assert (said["checked"], said["exact"], said["tampered"]) == (12, 12, [])
    assert desk.json("audit")["entries"][0]["what"] == "restore"  # type: ignore[index]


def test_a_hot_journal_beside_the_target_is_not_played_into_the_restored_registry(desk: Desk, grown: Centre) -> None:
    path = closed(grown)
    desk.ok("backup", "monday.db")
    # A journal of a writer that was killed: pages of another file.
    with closing(sqlite3.connect(desk.folder / "other.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("PRAGMA cache_size = 5")
        other.execute("CREATE TABLE t (x)")
        other.execute("INSERT INTO t VALUES (zeroblob(200000))")
        other.execute("BEGIN")
        other.execute("PRAGMA cache_spill = 1")
        other.execute("UPDATE t SET x = randomblob(300000)")
        journal = (desk.folder / "other.db-journal").read_bytes()
    assert len(journal) > 4096
    for at in (path, desk.folder / "new.db"):
        Path(f"{at}-journal").write_bytes(journal)
        desk.ok("restore", "monday.db", "--db", at.name, "--force")
        assert desk.json("verify", "--all", "--db", at.name)["exact"] == 12


def test_an_old_log_is_not_played_into_a_new_registry_or_backup(desk: Desk, grown: Centre, device: ScriptedDevice) -> None:
    path = grown.store.database.path
    grown.store.database.run("PRAGMA wal_autocheckpoint = 0")
    grown.deliver(device, *(device.train() for _ in range(3)))
    wal = Path(f"{path}-wal").read_bytes()
    for name in ("monday.db", "fresh.db"):
        (desk.folder / f"{name}-wal").write_bytes(wal)
        words = ("backup", name) if name == "monday.db" else ("init", "--fleet", "other", "--db", name)
        assert "left of another file" in str(desk.error(*words)["message"])
        assert not (desk.folder / name).exists() and not (desk.folder / "root.key").exists()
        (desk.folder / f"{name}-wal").unlink()
        desk.ok(*words)
        assert desk.json("verify", "--db", name)["tampered"] == []
    (desk.folder / "monday.db-wal").write_bytes(wal)
    desk.ok("backup", "monday.db", "--force")
    assert desk.json("verify", "--db", "monday.db")["tampered"] == []


def test_a_trigger_that_hides_behind_an_older_schema_number_is_found(desk: Desk, grown: Centre) -> None:
    path = closed(grown)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TRIGGER helpful AFTER UPDATE ON lineage BEGIN DELETE FROM witness; END")
        database.execute("PRAGMA user_version = 9")
    shutil.copy(path, desk.folder / "copy.db")
    with pytest.raises(ModelWireError, match="helpful"):
        open_registry(path)
    assert desk.run("backup", "other.db", "--db", "copy.db")[0] != 0 or desk.run("restore", "other.db", "--db", "third.db")[0] == 56


@pytest.mark.parametrize("name", ["sqlite_stat1", "_sqlite_migrations", "idx__sqlite_migrations_evil", "sqlite_autoindex_x"])
def test_a_trigger_under_the_name_of_something_harmless_is_found(desk: Desk, grown: Centre, name: str) -> None:
    path = closed(grown)
    evil = "CREATE TRIGGER helpful AFTER UPDATE ON lineage BEGIN DELETE FROM log_end; END"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        kind = "index" if "idx" in name or "auto" in name else "table"
        database.execute("INSERT INTO sqlite_master VALUES (?, ?, 'lineage', 0, ?)", (kind, name, evil))
    with pytest.raises(ModelWireError):
        open_registry(path)


def test_an_index_that_mutes_rows_is_found_whatever_its_name(desk: Desk, grown: Centre) -> None:
    path = closed(grown)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE UNIQUE INDEX idx__sqlite_migrations_w ON witness ((1))")
    with pytest.raises(ModelWireError, match="idx__"):
        open_registry(path)


THIEF = PrivateKey(b"\x66" * 32)  # had the command key in his hands, until it was changed
NEW = PrivateKey(b"\x77" * 32)


def change_command_key(store: SqliteStore, *, overlap: int, at: int, new: PrivateKey = NEW, number: int = 2) -> None:
    """Do as `edgecloud trust rotate command`."""
    names = (ROOT.public, RECEIPT.public, new.public, DIRECTOR.public)
    record = Trust(FLEET, "all", "all", at, number, at if overlap else 0, 0, overlap, *names)
    store.log.append(entries.TRUST, record=encode(record, ROOT, FLEET_ID), at=at)
    damage(store, "INSERT INTO trust VALUES (?, ?)", number, encode(record, ROOT, FLEET_ID))


def act(device: str, verb: str, key: bytes, number: int, sealer: PrivateKey, at: int = 5) -> bytes:
    return encode(Act(FLEET, device, "all", at, number, verb, key), sealer, FLEET_ID)


@pytest.mark.parametrize("at", [0, -5, 900, 1001])
def test_a_thief_of_the_command_key_can_not_set_his_entry_back_to_when_it_was_good(centre: Centre, base: Base, at: int) -> None:
    store = centre.store
    change_command_key(store, overlap=100 if at > 0 else 0, at=950)
    centre.now = 2000
    store.log.append(entries.COMMAND, record=sealed_command(NEW), at=2000)  # the fleet's life goes on past the overlap
    centre.ingest.catch_up()
    sign(store)
    mallory = ScriptedDevice(base, name="pi-66")
    store.log.append(entries.ACT, record=act("pi-66", "admit", mallory.key.public, 1, COMMAND), at=at)
    store.devices.add("pi-66", mallory.key.public, 5)
    with pytest.raises(RegistryDamaged, match="command key"):
        centre.take(mallory.hello())
    assert any("not the operator's" in one for one in tampering.look(store))


def sealed_command(sealer: PrivateKey, number: int = 1, device: str = "pi-7") -> bytes:
    said = Command(FLEET, device, "digits", 5, number, 1 << 40, bytes(16), 1, b"", "snapshot", {})
    return encode(said, sealer, FLEET_ID)


@pytest.mark.parametrize("at", [0, 1])
def test_a_thief_of_the_receipt_key_can_not_sign_entries_that_say_they_are_old(centre: Centre, at: int) -> None:
    store = centre.store
    other = PrivateKey(b"\x55" * 32)
    record = encode(Trust(FLEET, "all", "all", 950, 2, 0, 0, 0, ROOT.public, other.public, COMMAND.public, DIRECTOR.public), ROOT, FLEET_ID)
    store.log.append(entries.TRUST, record=record, at=950)
    damage(store, "INSERT INTO trust VALUES (2, ?)", record)
    store.log.append(entries.VERDICT, bytes(32), commit=bytes(32), ok=True, reason="", at=at)
    end = store.log.end()
    assert end is not None
    store.log.sign(SignedEnd(end.number, end.digest, end.sign(RECEIPT, FLEET_ID)))
    centre.ingest.catch_up()
    with pytest.raises(RegistryDamaged, match="signed by no receipt key"):
        require_signed(store, centre.ingest.admissions, "it")
    assert any("signed by no receipt key" in one for one in tampering.look(store))


def test_a_trust_record_cut_from_its_table_does_not_bring_a_stolen_key_back(centre: Centre, device: ScriptedDevice) -> None:
    store = centre.store
    change_command_key(store, overlap=0, at=950)
    centre.take(device.presence(True, 1))
    damage(store, "DELETE FROM trust WHERE number = 2")
    with pytest.raises(RegistryDamaged, match="trust records"):
        centre.take(device.hello())


@pytest.fixture
def signed_desk(desk: Desk) -> Desk:
    """A desk whose registry has the keys of the tests beside it."""
    for name, number in ((keys.ROOT, 0xF1), (keys.RECEIPT, 0xF2), (keys.COMMAND, 0xF3)):
        path = desk.folder / name
        path.write_text(keys.key_text(keys.SECRET[name], bytes([number]) * 32))
        path.chmod(0o600)
    return desk


def test_a_forged_number_does_not_make_the_next_act_the_last_one(signed_desk: Desk, grown: Centre) -> None:
    top = (1 << 63) - 2
    damage(grown.store, "INSERT INTO act VALUES (?, 'pi-1', 'admit', ?, x'00')", top, bytes(32))
    signed_desk.ok("devices", "revoke", "pi-7")
    log = [entries.parse(row) for row in grown.store.log.after(0)]
    record = records.parse(next(one for one in reversed(log) if one.kind == entries.ACT).bytes("record")).record
    assert isinstance(record, Act) and record.number < 1 << 50


def test_a_forged_number_does_not_burn_the_numbers_of_a_boards_commands(signed_desk: Desk, grown: Centre) -> None:
    sql = "INSERT INTO command (lineage, number, verb, record, expiry, created_at) VALUES (1, ?, 'forget', x'00', 1, 1)"
    damage(grown.store, sql, (1 << 63) - 2)
    signed_desk.ok("snapshot", "request", "pi-7")
    log = [entries.parse(row) for row in grown.store.log.after(0)]
    record = records.parse(next(one for one in reversed(log) if one.kind == entries.COMMAND).bytes("record")).record
    assert isinstance(record, Command) and record.number < 1 << 50


def cut_off_restore(desk: Desk, monkeypatch: pytest.MonkeyPatch, step: int) -> bool:
    """Restore, and die at the step-th change of a name; return whether it got that far."""
    count = 0

    class Killed(BaseException):
        pass

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            return real(*args, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "put_in_place", dying(backup_module.put_in_place))
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(Path, "replace", dying(Path.replace))
        patch.setattr(os, "link", dying(os.link))
        try:
            desk.run("restore", "monday.db", "--force")
        except Killed:
            return True
    return False


def test_a_restore_that_is_killed_anywhere_and_done_again_undoes_no_revocation(
    desk: Desk, grown: Centre, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = grown.store.database.path
    desk.ok("backup", "monday.db")
    grown.store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    grown.store.database.run("PRAGMA wal_autocheckpoint = 0")
    revoke(grown.store, "pi-7", 90)
    files = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal")}
    grown.store.close()
    step, more = 0, True
    while more:
        for old in desk.folder.glob("fleet.db*"):
            old.unlink()
        for end, data in files.items():
            Path(f"{path}{end}").write_bytes(data)
        more = cut_off_restore(desk, monkeypatch, step)
        for stray in desk.folder.glob("*.restored"):
            stray.unlink()
        if more:
            desk.ok("restore", "monday.db", "--force")
        with closing(open_registry(path, readonly=True)) as store:
            held = Admissions(store.identity)
            held.catch_up(store.log, path)
            assert held.by_key[device.key.public].revoked, step
        step += 1
    assert step > 6


def test_a_registry_in_the_enemys_hands_does_not_hide_a_revocation_that_an_anchor_holds(
    desk: Desk, grown: Centre, device: ScriptedDevice
) -> None:
    desk.ok("backup", "monday.db")
    revoke(grown.store, "pi-7", 90)
    admit(grown.store, "pi-9", key_of("pi-9").public, 91)
    desk.ok("anchor", "away.anchors")
    path = closed(grown)
    # The log without the revocation, with the later act: seals hold, links are made anew.
    with closing(sqlite3.connect(path)) as database, database:
        relinked("DELETE FROM log WHERE instr(entry, 'revoke') > 0")(database)
    said = desk.json("restore", "monday.db", "--force", "--anchor", "away.anchors")
    assert said["carried"] == {"trust": 0, "admitted": ["pi-9"], "revoked": ["pi-7"], "claims": 0}


def test_a_thief_of_the_command_key_lets_nobody_in_by_a_restore_of_a_backup_from_before_it_was_changed(
    desk: Desk, grown: Centre
) -> None:
    desk.ok("backup", "monday.db")
    store = grown.store
    revoke(store, "pi-7", 90)
    last = store.acts.last()
    store.log.append(entries.ACT, record=act("pi-66", "admit", THIEF.public, last + 1, COMMAND))  # before the record, in a log of his own
    change_command_key(store, overlap=0, at=950)
    store.close()
    said = desk.json("restore", "monday.db", "--force")
    assert said["carried"] == {"trust": 1, "admitted": [], "revoked": ["pi-7"], "claims": 0} and said["left_out"] == ["pi-66"]
    assert desk.json("verify")["tampered"] == []
