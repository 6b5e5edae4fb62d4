"""A full disk is said to be full: no message is blamed, nothing is called damaged, nothing is left half written."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore
from modelwire.errors import DiskUnwritable, RegistryDamaged
from modelwire.wire.records import Level
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice


def test_a_full_disk_beside_the_registry_is_no_fault_of_the_message_and_leaves_nothing_half_written(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_registry(tmp_path / "fleet.db", base, files_from=100)
    centre = Centre(store)
    device = centre.meet(ScriptedDevice(base))
    sent = device.train()
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgecloud.registry.blobs.os.fsync", full)
    with pytest.raises(DiskUnwritable, match="No space left"):
        centre.deliver(device, sent)
    monkeypatch.setattr("edgecloud.registry.blobs.os.fsync", real)
    assert store.refusals.count() == 0
    assert list(tmp_path.glob("**/*.partial")) == []
    centre.deliver(device, sent)
    assert centre.receipts()[-1] == (1, Level.STORED)
    store.close()


def test_a_full_database_says_to_make_room_and_not_to_restore(store: SqliteStore, base: Base) -> None:
    pages = store.database.number("PRAGMA page_count")
    store.database.number(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskUnwritable, match="No space left") as caught:
        store.blobs.put(bytes(1 << 20))
    assert "make room" in caught.value.next_step


def test_a_disk_too_full_for_the_index_of_the_log_is_not_called_damage(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        with store.database.named():
            raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(RegistryDamaged):
        fails()
    monkeypatch.setattr("edgecommon.sqlite._free", lambda _path: 4096)
    with pytest.raises(DiskUnwritable, match="No space left") as caught:
        fails()
    assert "restore" not in caught.value.next_step
