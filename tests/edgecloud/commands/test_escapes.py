"""A registry that a stranger has made writes nothing to a terminal but plain text, whatever command reads it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud import cli
from edgecloud.registry import SqliteStore, open_registry
from modelwire.cards.card import Card
from modelwire.text import REFUSED
from tests.edgecloud.centre import Centre, ask, damage
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY, Base, ScriptedDevice
from tests.edgecloud.rounds import ROUNDS

ESCAPES = "\x1b[31m\x1b]0;title\x07\x08\x7f\x85\x9b2J\u202e\u2066\u200f\r\v\nFORGED line\t"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e" + "".join(f"{chr(a)}-{chr(b)}" for a, b in REFUSED if a > 0x9F) + "]")
# What a registry keeps in columns of text that names something else: with escapes in it nothing is found, so nothing is said of it.
NAMES = {"device.name", "lineage.device", "quarantine.device", "status", "registry.fleet"}
# What is text and nothing else: with escapes in it every command still finds what it is asked for, and tells of it.
FREE = {
    "version.reason", "refusal.error", "refusal.reason", "command.text", "annotation.text", "lineage.runtime", "lineage.agent", "base.name",
}  # fmt: skip
COMMANDS = (
    "show pi-7", "show pi-7@1",
    "show pi-7@4", "show pi-7@latest", "show pi-7@base", "show pi-9", "log pi-7", "devices", "devices list", "bases list",
    "card pi-7", "card pi-7@4", "card --fleet", "card pi-7 --against pi-8", "card pi-7 --against fleet",
    "materialise pi-7@2 -o out.tflite", "materialise pi-7@latest -o out.npz", "diff pi-7@1 pi-7@2", "diff pi-7@base pi-8@latest",
    "export", "export fleet", "export stale --json", "export cards", "export cards --ndjson", "export --sqlite -o out.db --force",
    "verify", "verify --all", "verify pi-7", "verify pi-7@2", "verify pi-7@2 --file out.tflite", "replay pi-7@2",
    "replay pi-7@2 --set rate=0.5", "forget pi-7@3 --rows 0-2", "forget pi-7@3 --rows 0-2 --send", "leaves show pi-7",
    "leaves request pi-7 --tensor output_kernel", "snapshot request pi-7", "annotate pi-7 note", "devices revoke pi-8",
    "ingest --once --idle 1 --broker mqtts://127.0.0.1:1 --ca none.pem", "doctor --broker mqtt://127.0.0.1:1",
    "backup copy.db", "restore copy.db --force", "version",
)  # fmt: skip


@pytest.fixture
def plain(desk: Desk, base: Base) -> Iterator[SqliteStore]:
    """A registry with recipes, cards, refusals, requests that were answered and not, notes and quarantine, at two devices."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    store = open_registry(desk.folder / "fleet.db", synchronous="OFF")
    centre = Centre(store, now=1_700_000_000)
    for name in ("pi-7", "pi-8"):
        device = centre.meet(ScriptedDevice(base, name=name))
        for ids, settings in ROUNDS[:3]:
            centre.deliver(device, device.learn(ids, **settings))
        card = Card(20, labels={0: 10, 1: 10}, hours=(10,) * 2 + (0,) * 22, tags={"weather": {"wet": 10, "dry": 10}})
        centre.deliver(device, device.train(extension={"note": ESCAPES, f"said {ESCAPES}": ESCAPES, "card": card.encode()}))
        assert all(one.ok for one in centre.rebuild())
        lineage = store.lineages.get(name, "digits")
        assert lineage is not None
        for number, verb, text in ((5, "snapshot", "done"), (6, "leaves", "no")):
            ask(store, lineage, number=number, verb=verb)
            centre.take(device.response(number, False, text))
        centre.deliver(device, device.snapshot(device.base.manifest.commit))
    stranger = ScriptedDevice(base, name="pi-9")
    stranger.fleet_id = store.identity.id
    centre.take(stranger.hello())
    for what in ("pi-7", "pi-7/digits", "pi-7@1", "pi-7@base", "base:digits"):
        desk.ok("annotate", what, "a note")
    yield store
    store.close()


def texts(store: SqliteStore) -> list[tuple[str, str]]:
    """Return every column of text there is, as table and column."""
    tables = [row[0] for row in store.database.all("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (table, column[1]) for table in tables if not table.startswith(("sqlite_", "_"))
        for column in store.database.all(f"PRAGMA table_info({table})") if column[2] == "TEXT"
    ]  # fmt: skip


def poison(store: SqliteStore, columns: list[tuple[str, str]]) -> None:
    """Write escapes behind what stands in columns, as somebody with the file in hand would."""
    store.database.run("PRAGMA foreign_keys = OFF")
    made = dict(store.database.all("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    for table, column in columns:
        apart = "hex(randomblob(4))" if "WITHOUT ROWID" in made[table] else "rowid"  # what is a key stays one
        damage(store, f'UPDATE "{table}" SET "{column}" = "{column}" || ? || {apart}', ESCAPES)


def said_by(capsys: pytest.CaptureFixture[str], line: str, db: Path) -> str:
    capsys.readouterr()
    with contextlib.suppress(SystemExit):
        cli.main([*line.split(), "--db", str(db)])
    out, err = capsys.readouterr()
    return out + err


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("free", [False, True])
def test_no_command_writes_an_escape_of_a_foreign_registry(
    desk: Desk, plain: SqliteStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, free: bool,
    on_terminal: bool,
) -> None:  # fmt: skip
    columns = [(t, c) for t, c in texts(plain) if (f"{t}.{c}" in FREE if free else not {f"{t}.{c}", c} & NAMES)]
    assert {("version", "reason"), ("command", "text"), ("refusal", "error"), ("annotation", "text"), ("lineage", "agent")} <= set(columns)
    poison(plain, columns)
    plain.close()
    folder = desk.folder / f"brought{ESCAPES.replace('/', '')}"
    folder.mkdir()
    for name in ("fleet.db", "receipt.key", "command.key"):
        shutil.copy(desk.folder / name, folder / name)
    if on_terminal:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("NO_COLOR", "1")  # the colours are escapes of ours
        monkeypatch.setenv("COLUMNS", "4000")  # and nothing is cut
    told = ""
    for line in COMMANDS:
        said = said_by(capsys, line, folder / "fleet.db")
        assert (found := FORBIDDEN.search(said)) is None, (line, ascii(said[max(0, found.start() - 80) : found.end() + 20]))
        assert "\nFORGED" not in said, (line, said)
        told += said
    assert told.count("\\x1b[31m") > (15 if free else 50) and "Traceback" not in told, "the escapes are told of, as text"
    if free:
        words = ("equal, bit for bit", "answered", "4 of 4 versions exact", "sha256", "lattice units")
        assert [word for word in words if word not in told] == [], "the commands find what they are asked for"


@pytest.mark.parametrize("column", ["version.status", "registry.fleet", "device.name", "lineage.device"])
def test_names_and_words_that_the_centre_goes_by_write_no_escape_either(
    desk: Desk, plain: SqliteStore, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    table, _, name = column.partition(".")
    poison(plain, [(table, name)])
    plain.close()
    for line in COMMANDS:
        said = said_by(capsys, line, desk.folder / "fleet.db")
        assert FORBIDDEN.search(said) is None and "\nFORGED" not in said, (line, ascii(said))


def test_what_was_typed_is_told_without_its_escapes(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.ok("init")
    for words in (["show", ESCAPES], ["show", "pi-7", ESCAPES], ["log", f"a/{ESCAPES}"], ["materialise", "pi-7", "-o", ESCAPES], [ESCAPES]):
        capsys.readouterr()
        try:
            assert cli.main(words) != 0
        except SystemExit as ended:
            assert ended.code == 2
        out, err = capsys.readouterr()
        assert err and FORBIDDEN.search(out + err) is None and "\nFORGED" not in out + err, ascii(out + err)
    assert os.path.exists("fleet.db")
