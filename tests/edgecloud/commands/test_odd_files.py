"""A pipe, a device or a folder where a command of the centre asks for a file: named, and neither waited for nor read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edgecloud.desk import Desk
from tests.edgecloud.device import TINY
from tests.odd_files import ODD, PLAIN, lay, limited

COMMANDS = {
    "registry": "log pi-7 --db %", "registry of verify": "verify --all --db %", "registry of devices": "devices --db %",
    "receipt key": "ingest --once --broker mqtt://127.0.0.1:1 --key %", "CA": "ingest --once --broker mqtts://127.0.0.1:1 --ca %",
    "certificate": "ingest --once --broker mqtts://127.0.0.1:1 --cert % --cert-key %",
    "password": "ingest --once --broker mqtt://u@127.0.0.1:1 --password-file %",
    "base": "bases add %", "inspected": "inspect %", "grafted": "graft % -o out.tflite", "packed": "pack % -o out.tflite",
    "anchors": "verify --anchor %", "backup": "restore % --force", "backup's key": "restore sealed.db --backup-key % --force",
    "recipient": "backup next.db --encrypt-to %",
    "serials": "claim new --serials %", "device's key": "devices add pi-9 ./%.pub", "command key": "devices add pi-9 KEY --key %",
    "protected key": "keys protect % --passphrase-file word", "passphrase": "keys protect command.key --passphrase-file %",
    "root key": "trust rotate command --root-key %", "trust records": "trust import %",
    "records": "trust rotate command --records % -o record", "request": "ca issue pi-7 --request %",
}  # fmt: skip


@pytest.fixture
def odd(desk: Desk) -> Desk:
    desk.ok("init")
    desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
    desk.ok("ca", "init")
    (desk.folder / "word").write_text("a passphrase\n")
    (desk.folder / "word").chmod(0o600)
    (desk.folder / "sealed.db").write_bytes(b"age-encryption.org/v1\n")
    lay(desk.folder)
    return desk


def contents(folder: Path) -> dict[str, bytes]:
    """Return what stands in a folder and must stay: keys, and the registry's own rows are proven by its commands."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".key", ".pub") and p.is_file()}


@pytest.mark.slow("some commands start a process's worth of imports", seconds=1)
@pytest.mark.parametrize("place", COMMANDS)
def test_an_odd_file_is_named_and_nothing_is_written(odd: Desk, place: str) -> None:
    words = [word.replace("KEY", "edge-device-pub:" + "d7" * 32) for word in COMMANDS[place].split()]
    before = contents(odd.folder)
    for name in ODD:
        if name == "/dev/zero" and "./%.pub" in words:
            continue
        given = [word.replace("./%.pub", f"./{name}").replace("%", name) for word in words]
        with limited():
            code, out, err = odd.run(*given)
        assert code not in (0, 1) and out == "", (given, code, out)
        assert err.startswith("edgecloud: ") and "Traceback" not in err and (name in PLAIN or "  try: " in err), err
        assert contents(odd.folder) == before and not list(odd.folder.glob("out*")), given
    odd.ok("verify", "--all")


@pytest.mark.parametrize("line", ["graft % -o %", "pack % -o ./%", "int8-head expose % -o linked.tflite", "author % -o %"])
def test_no_command_writes_over_the_model_that_it_reads(desk: Desk, line: str) -> None:
    file = desk.folder / "stock.tflite"
    file.write_bytes(TINY.read_bytes())
    (desk.folder / "linked.tflite").symlink_to(file)
    said = desk.error(*line.replace("%", "stock.tflite").split())
    assert "is the file that is read" in str(said["message"]) and "-o" in str(said["hint"])
    assert file.read_bytes() == TINY.read_bytes()


def test_a_keras_model_that_is_not_there_is_said_before_tensorflow_is_asked_for(desk: Desk) -> None:
    assert desk.error("author", "nowhere.keras", "-o", "made.tflite")["error"] == "MissingFile"
