"""Opening a registry: one under whatever name, never another program's file, and with its own errors."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

import edgecloud
from edgecloud import cli
from edgecloud.registry import open_registry
from edgecloud.registry.lock import lock_registry
from modelwire.errors import BadArgument, StateBusy
from tests.edgecloud.centre import make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import Base


def test_a_registry_under_two_names_is_one_registry(tmp_path: Path, base: Base) -> None:
    (tmp_path / "disk").mkdir()
    path, link = tmp_path / "disk" / "fleet.db", tmp_path / "fleet.db"
    make_registry(path, base, files_from=100).close()
    link.symlink_to(path)
    with lock_registry(path), pytest.raises(StateBusy), lock_registry(link):
        pass
    with closing(open_registry(link, readonly=True)) as store:
        assert hashlib.sha256(store.blobs.get(store.bases.all()[0].file)).digest() == hashlib.sha256(base.file).digest()


def test_another_programs_database_is_not_changed_by_looking_at_it(tmp_path: Path, desk: Desk) -> None:
    other, empty, notes = tmp_path / "other.db", tmp_path / "empty.db", tmp_path / "model.tflite"
    notes.write_bytes(b"no database at all" * 100)
    with closing(sqlite3.connect(other)) as made:
        made.execute("CREATE TABLE t (x)")
    empty.touch()
    other.chmod(0o600)
    empty.chmod(0o600)
    before = other.read_bytes()
    for path in (other, empty):
        assert cli.main(["devices", "revoke", "pi-7", "--db", str(path)]) == 56
    for path in (other, notes):
        said = desk.error("devices", "--db", str(path))
        assert said["code"] == 56 and "it is not a registry" in str(said["message"])
        assert str(said["hint"]).startswith("name the registry's file"), "nothing is restored over a file that was named by mistake"
    assert other.read_bytes() == before and empty.read_bytes() == b""


def test_a_registry_used_on_another_thread_or_after_its_end_is_not_called_damaged(tmp_path: Path, base: Base) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    fleet = edgecloud.open(tmp_path / "fleet.db")
    found: list[BaseException] = []

    def elsewhere() -> None:
        try:
            fleet.devices()
        except BaseException as error:  # noqa: BLE001 - looked at below
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    fleet.close()
    with pytest.raises(BadArgument, match="closed"):
        fleet.devices()
    assert isinstance(found[0], BadArgument) and "thread" in str(found[0])
