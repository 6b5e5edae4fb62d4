"""An older registry is brought to this release's schema with everything that it holds."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgecloud.cli import main
from edgecloud.registry import Request, create_registry, open_registry
from edgecloud.registry.schema import SCHEMA
from modelwire.errors import LineageError
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.device import Base, ScriptedDevice

OLD, NEW = "kind IN ('snapshot', 'delta')", "kind IN ('snapshot', 'delta', 'exact', 'recipe')"
SECOND = "kind IN ('snapshot', 'delta', 'exact')"


def make_older(path: Path, schema: int = 1) -> None:
    """Take a registry back to schema 1, as release 0.1 made it, or to 2."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE name = 'version'", (NEW, OLD if schema == 1 else SECOND))
    database.execute("PRAGMA writable_schema = RESET")
    database.execute("DROP TRIGGER command_content_write_once")
    database.execute("ALTER TABLE command DROP COLUMN content")
    gone = ["m002_exact_updates", "m003_recipe_updates", "m004_commands_with_content"][schema - 1 :]
    for name in gone:
        assert database.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (name,)).rowcount == 1
    database.execute(f"PRAGMA user_version = {schema}")
    database.close()


def text_of(path: Path) -> str:
    database = sqlite3.connect(path)
    (text,) = database.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'version'").fetchone()
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    return str(text)


def test_a_registry_of_the_first_schema_takes_exact_updates_after_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    base = Base.of()
    store = make_registry(path, base)
    device, centre = ScriptedDevice(base), Centre(store)
    centre.meet(device)
    centre.deliver(device, device.train())
    centre.rebuild()
    before = store.database.all('SELECT version, kind, "commit", status FROM version')
    assert len(before) == 1
    store.close()
    make_older(path)
    assert OLD in text_of(path)
    old = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        old.execute('INSERT INTO version SELECT 99, lineage, epoch, 99, \'exact\', randomblob(32), parent, parent_id, base, root, '
                    "fingerprint, blob, size, received_at, extension, status, reason FROM version")  # fmt: skip
    old.close()

    store = open_registry(path)
    assert store.database.number("PRAGMA user_version") == SCHEMA
    assert store.database.all('SELECT version, kind, "commit", status FROM version') == before
    assert NEW in text_of(path)
    centre = Centre(store)
    centre.deliver(device, device.train())
    centre.rebuild()
    assert [row[3] for row in store.database.all('SELECT version, kind, "commit", status FROM version')] == ["verified"] * 2
    store.close()


@pytest.mark.parametrize("schema", [1, 2])
def test_a_registry_of_an_earlier_schema_takes_recipes_after_it_was_opened(tmp_path: Path, schema: int) -> None:
    path = tmp_path / "fleet.db"
    base = Base.of()
    store = make_registry(path, base)
    device, centre = ScriptedDevice(base), Centre(store)
    centre.meet(device)
    centre.deliver(device, device.train())
    lineage = store.lineages.get("pi-7", "digits")
    assert lineage is not None
    store.requests.add(Request(7, lineage.id, "snapshot", 1, None, None, ""))
    store.close()
    make_older(path, schema)
    assert NEW not in text_of(path)

    store = open_registry(path)
    centre = Centre(store)
    centre.deliver(device, device.learn(range(9)))
    centre.rebuild()
    assert [(v.kind, v.status.value) for v in store.versions.of(lineage.id)] == [("delta", "verified"), ("recipe", "verified")]
    assert store.requests.of(lineage.id) == [Request(7, lineage.id, "snapshot", 1, None, None, "", b"")]
    with pytest.raises(LineageError, match="write-once"):
        store.database.run("UPDATE command SET content = x'00'")
    store.close()


def older(path: Path) -> None:
    """Make a registry of schema 2 with one update in it."""
    base = Base.of()
    store = make_registry(path, base)
    device, centre = ScriptedDevice(base), Centre(store)
    centre.meet(device)
    centre.deliver(device, device.train())
    centre.rebuild()
    store.close()
    make_older(path, 2)


@pytest.mark.slow("starts many processes at once")
def test_many_processes_that_open_an_older_registry_at_once_all_get_it(tmp_path: Path) -> None:
    older(tmp_path / "fleet.db")
    code = "import sys, pathlib; from edgecloud.registry import open_registry; open_registry(pathlib.Path(sys.argv[1])).close()"
    opening = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "fleet.db")], stderr=subprocess.PIPE) for _ in range(6)]
    for process in opening:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said.decode()
    assert NEW in text_of(tmp_path / "fleet.db")


def test_a_copy_of_an_older_registry_is_restored_and_brought_to_this_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older(tmp_path / "fleet.db")
    assert main(["backup", str(tmp_path / "copy.db"), "--db", str(tmp_path / "fleet.db")]) == 0
    assert NEW not in text_of(tmp_path / "copy.db")
    assert main(["restore", str(tmp_path / "copy.db"), "--db", str(tmp_path / "new.db")]) == 0
    assert NEW in text_of(tmp_path / "new.db")
    assert main(["verify", "--db", str(tmp_path / "new.db")]) == 0
    assert "1 of 1 versions exact" in capsys.readouterr().out


def test_a_new_registry_has_the_same_text(tmp_path: Path) -> None:
    create_registry(tmp_path / "new.db", fleet="demo", public_key=bytes(32), now=1)
    assert NEW in text_of(tmp_path / "new.db")
    store = open_registry(tmp_path / "new.db")
    add_base(store, Base.of())
    store.close()
