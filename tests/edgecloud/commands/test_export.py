"""The registry's rows for other programs: each format is whole, exact, and runs nothing in a spreadsheet or a terminal."""

from __future__ import annotations

import csv
import io
import json
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore
from edgecloud.registry.sqlite import views
from modelwire.wire import cbor
from tests.edgecloud.centre import Centre, damage
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import ScriptedDevice


def sheet(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def table(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def test_each_format_says_the_same(desk: Desk, grown: Centre, device: ScriptedDevice) -> None:
    as_csv = sheet(desk.ok("export"))
    assert as_csv == sheet(desk.ok("export", "versions", "--csv")) == sheet(desk.ok("export", "v_versions"))
    as_json = json.loads(desk.ok("export", "--json"))
    assert as_json == [json.loads(line) for line in desk.ok("export", "--ndjson").splitlines()] and len(as_json) == 13
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json] == as_csv
    third = as_json[2]
    assert (third["name"], third["commit"], third["loss_after"]) == ("pi-7/digits@3", device.made[3].commit.hex(), 0.5)
    desk.ok("export", "--sqlite", "-o", "report.db")
    assert table(desk.folder / "report.db", "SELECT * FROM versions ORDER BY id") == [tuple(row.values()) for row in as_json]
    (fleet,) = json.loads(desk.ok("export", "fleet", "--json"))
    assert (fleet["device"], fleet["versions"], fleet["last_message"]) == ("pi-7", 13, "1970-01-01T00:16:40Z")
    assert [row["device"] for row in sheet(desk.ok("export", "stale"))] == ["pi-7"]


def test_a_file_takes_the_place_of_the_last_one_whole_and_is_its_owners_alone(desk: Desk, grown: Centre) -> None:
    place = desk.folder / "out.csv"
    place.write_text("of yesterday")
    assert "is there already" in str(desk.error("export", "--csv", "-o", "out.csv")["message"])
    said = desk.json("export", "--csv", "-o", "out.csv", "--force")
    assert said == {"file": "out.csv", "rows": {"versions": 13}, "bytes": place.stat().st_size}
    assert len(sheet(place.read_text())) == 13 and stat.S_IMODE(place.stat().st_mode) == 0o600
    assert desk.ok("export", "fleet", "-o", "fleet.csv").startswith("fleet.csv: 1 rows of fleet, ")
    damage(grown.store, "UPDATE version SET reason = CAST(x'ff' AS TEXT) WHERE version = 9")
    assert desk.error("export", "--csv", "-o", "out.csv", "--force")["error"] == "RegistryDamaged"
    assert len(sheet(place.read_text())) == 13 and not list(desk.folder.glob(".out.csv*"))
    (desk.folder / "folder").mkdir()
    for name in ("folder", "nowhere/out.csv"):
        assert desk.error("export", "--csv", "-o", name, "--force")["error"] == "BadArgument"


def test_the_registry_is_not_written_over_even_with_force(desk: Desk, grown: Centre) -> None:
    (desk.folder / "link.db").symlink_to("fleet.db")
    for name in ("fleet.db", "./fleet.db", "link.db"):
        assert "is the registry itself" in str(desk.error("export", "--sqlite", "-o", name, "--force")["message"])
    assert grown.store.problems() == []


@pytest.mark.parametrize("how", ["--csv", "--sqlite"])
def test_a_full_disk_is_named_and_leaves_no_half(desk: Desk, grown: Centre, how: str) -> None:
    before, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        said = desk.error("export", "versions", how, "-o", "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert said["error"] == "BadArgument" and "can't be written" in str(said["message"])
    assert not [p.name for p in desk.folder.iterdir() if "out" in p.name]


def test_cards_are_rows_too_and_an_empty_sheet_has_a_head(desk: Desk, grown: Centre) -> None:
    head = desk.ok("export", "cards")
    assert head.startswith("id,name,device,model,version,samples,") and len(head.splitlines()) == 1
    assert json.loads(desk.ok("export", "cards", "--json")) == [] and desk.ok("export", "cards", "--ndjson") == ""
    desk.ok("export", "--sqlite", "-o", "report.db")
    assert table(desk.folder / "report.db", "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name") == [
        ("fleet",), ("stale",), ("versions",)
    ]  # fmt: skip


FORMULAS = ("=HYPERLINK(\"http://x\")", "+1", "-1", "@SUM(1)", "\uff1d1", "\t=1", "\r\n=1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula_and_json_has_it_as_it_is(desk: Desk, store: SqliteStore, grown: Centre, text: str) -> None:
    damage(store, "UPDATE version SET reason = ? WHERE version = 9", text)
    cell = sheet(desk.ok("export"))[8]["reason"]
    assert cell[0] in "'\\" and cell.isprintable() and cell.endswith(text.strip()[-2:])
    assert json.loads(desk.ok("export", "--json"))[8]["reason"] == text


def test_a_negative_figure_stays_a_number(desk: Desk, grown: Centre, device: ScriptedDevice) -> None:
    said = cbor.encode({"loss_after": -0.5, "accuracy_after": 0.75})
    damage(grown.store, "UPDATE version SET extension = ? WHERE version = 13", said)
    damage(grown.store, "DELETE FROM score WHERE version_id = 13")
    views.keep_figures(grown.store.database.run, 13, said)
    assert sheet(desk.ok("export"))[12]["loss_after"] == "-0.5"
    desk.ok("export", "--sqlite", "-o", "report.db", "--force")
    kinds = table(desk.folder / "report.db", "SELECT typeof(loss_after), typeof(accuracy_after) FROM versions WHERE version = 13")
    assert kinds == [("real", "real")]


def test_what_would_do_nothing_is_refused(desk: Desk, grown: Centre) -> None:
    assert "needs a file" in str(desk.error("export", "--sqlite")["message"])
    assert "--csv with --json needs a file" in str(desk.error("export", "--csv")["message"])
    assert desk.error("export", "--device", "pi-9")["error"] == "UnknownVersion"
    assert desk.run("export", "keys")[0] == 2
    assert len(sheet(desk.ok("export", "--device", "pi-7"))) == 13


@pytest.mark.slow("writes a hundred thousand rows in a process of its own", seconds=6)
def test_many_rows_take_little_memory(desk: Desk, grown: Centre) -> None:
    database = grown.store.database
    for trigger, made in (found := database.all("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")):
        assert made
        database.run(f"DROP TRIGGER {trigger}")
    database.run("PRAGMA foreign_keys = OFF")
    with database.transaction():
        database.run(
            "WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 100100)"
            " INSERT INTO version (lineage, epoch, version, kind, \"commit\", parent, parent_id, base, root, fingerprint, blob, size,"
            " received_at, extension) SELECT lineage, epoch, i, kind, randomblob(32), parent, parent_id, base, root, fingerprint, blob,"
            " size, received_at, zeroblob(500) FROM n, version WHERE version.version = 3"
        )
    for _, made in found:
        database.run(made)
    program = (
        "import sys; from edgecloud import cli; code = cli.main(sys.argv[1:]);"
        # Its own peak: what getrusage tells begins with the parent's.
        "print(*(x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM:')), file=sys.stderr); sys.exit(code)"
    )
    peaks = []
    for device in (["--device", "pi-7", "stale"], []):
        words = [sys.executable, "-c", program, "export", "--ndjson", *device, "--db", str(database.path)]
        done = subprocess.run(words, capture_output=True, check=True, timeout=500)
        peaks.append(int(done.stderr))
    assert done.stdout.count(b"\n") == 100_014
    assert peaks[1] - peaks[0] < 16 * 1024  # KiB; all of them at once would take ten times that
