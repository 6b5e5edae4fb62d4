"""What the nightly unit runs: a copy that is proven before older ones go, and encrypted where a public key is named."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore
from tests.edgecloud.audit.edits import Edit, edit, rows
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import ScriptedDevice
from tests.house.pages import ROOT

pytestmark = pytest.mark.slow("starts the program several times", seconds=4)


@pytest.fixture
def place(tmp_path: Path, store: SqliteStore, centre: Centre, device: ScriptedDevice) -> Path:
    """A folder with a registry of one proven version, and both programs side by side as in /opt/edgecloud/bin."""
    centre.take(device.update(device.train()))
    assert [one.ok for one in centre.rebuild()] == [True]
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "deploy" / "edgecloud-backup", tmp_path / "bin")
    (tmp_path / "bin" / "edgecloud").symlink_to(Path(sys.executable).parent / "edgecloud")
    return tmp_path


def back_up(place: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "EDGECLOUD_DB": str(place / "fleet.db"), **settings}
    command = [str(place / "bin" / "edgecloud-backup"), str(place / "backups")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def copies(place: Path) -> list[str]:
    return sorted(os.listdir(place / "backups"))


def old_ones(place: Path, count: int) -> list[str]:
    (place / "backups").mkdir()
    names = [f"fleet-2020-01-{day:02}T00-00-00Z.{'age' if day % 2 else 'db'}" for day in range(1, count + 1)]
    for name in [*names, "notes.txt", "fleet-old.db"]:
        (place / "backups" / name).write_bytes(b"")
    return names


def test_a_copy_is_proven_the_newest_stay_and_what_is_no_copy_of_ours_is_left_alone(place: Path) -> None:
    names = old_ones(place, 5)
    done = back_up(place, EDGECLOUD_BACKUPS_KEEP="3")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 versions exact" in done.stdout
    left = copies(place)
    assert set(names[-2:]) | {"notes.txt", "fleet-old.db"} < set(left) and len(left) == 5
    (new,) = set(left) - set(names) - {"notes.txt", "fleet-old.db"}
    assert new.endswith("Z.db") and (place / "backups" / new).stat().st_mode & 0o777 == 0o600
    assert sqlite3.connect(place / "backups" / new).execute("SELECT count(*) FROM version").fetchone() == (1,)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_registry_that_is_not_exact_gives_no_backup_and_sends_none_away(place: Path, store: SqliteStore, encrypted: bool) -> None:
    names = old_ones(place, 3)
    store.close()
    edit(place / "fleet.db", Edit("", rows("UPDATE version SET root = zeroblob(32)"), ""))
    to = {"EDGECLOUD_BACKUP_TO": _recipient(place)} if encrypted else {}
    done = back_up(place, EDGECLOUD_BACKUPS_KEEP="1", **to)
    assert done.returncode == 56, done.stdout + done.stderr
    left = set(copies(place)) - {"notes.txt", "fleet-old.db"}
    assert set(names) <= left
    if encrypted:
        assert left == set(names)
        return
    for _ in range(2):  # what came of it is there to be looked at, of one night
        assert [name.rpartition("Z.")[2] for name in left - set(names) if not name.endswith(("-wal", "-shm"))] == ["unproven"]
        assert back_up(place).returncode == 56
        left = set(copies(place)) - {"notes.txt", "fleet-old.db"}


def test_an_encrypted_copy_opens_with_its_key_alone(place: Path) -> None:
    recipient = _recipient(place)
    assert back_up(place, EDGECLOUD_BACKUP_TO=recipient).returncode == 0
    (name,) = copies(place)
    assert name.endswith("Z.age") and b"SQLite" not in (place / "backups" / name).read_bytes()
    program, copy = str(place / "bin" / "edgecloud"), str(place / "backups" / name)
    (place / "new").mkdir()
    command = [program, "restore", copy, "--backup-key", str(place / "backup.key"), "--db", str(place / "new" / "fleet.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("keep", ["0", "-1", "many", "1.5", "03"])
def test_a_number_of_copies_that_is_none_is_refused_before_anything_is_done(place: Path, keep: str) -> None:
    done = back_up(place, EDGECLOUD_BACKUPS_KEEP=keep)
    assert done.returncode == 2 and "write how many backups stay" in done.stderr
    assert not (place / "backups").exists()


def _recipient(place: Path) -> str:
    """Return the public key of a new pair, whose private one lies in backup.key."""
    pytest.importorskip("pyrage", reason="no wheel of pyrage for this machine")
    command = [str(place / "bin" / "edgecloud"), "keys", "backup", "-o", str(place / "backup.key")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(word for word in said.split() if word.startswith("age1"))
