"""A pipe, a device or a folder where a command of the board asks for a file: named, and neither waited for nor read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edgeagent import cli
from modelwire.wire.keys import KeyKind, write_fleet, write_key
from tests import keys
from tests.odd_files import ODD, lay, limited
from tests.worlds import MODELS

INIT = "init --device pi-7 --fleet home --dir n"
MODEL = f"--model tiny={MODELS / 'tiny.tflite'}"

COMMANDS = {
    "fleet key": f"{INIT} {MODEL} --fleet-key %", "model": f"{INIT} --model tiny=% --fleet-key fleet.pub",
    "key": f"{INIT} {MODEL} --fleet-key fleet.pub --key %", "claim": f"{INIT} {MODEL} --fleet-key fleet.pub --claim %",
    "settings": "status --config %", "checked": "config check %", "samples": "samples add tiny % --dir board",
    "certificate": "certificate install % --dir board", "ca": "certificate install cert.pem --ca % --dir board",
    "password": "publish --dir board --set link.password_file=../% --set link.user=u --timeout 1s",
    "CA": "publish --dir board --set link.tls_ca=../% --set link.broker=mqtts://127.0.0.1:1 --timeout 1s",
}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [n for n in os.environ if n.startswith("EDGEAGENT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.pub").write_text(write_fleet(keys.FLEET) + "\n")
    lay(tmp_path)
    return tmp_path


def make_board(*more: str) -> None:
    words = f"init --device pi-7 --fleet home --dir board {MODEL} --fleet-key fleet.pub".split()
    assert cli.main([*words, *more]) == 0


@pytest.mark.slow("many commands, and some set up a link", seconds=1)
@pytest.mark.parametrize("what", COMMANDS)
def test_an_odd_file_is_named_and_nothing_is_written(place: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_board()
    held = {p: p.read_bytes() for p in (place / "board").iterdir() if p.is_file()}
    for name in ODD:
        words = [word.replace("../%", "../" + name).replace("../" + "/", "/").replace("%", name) for word in COMMANDS[what].split()]
        capsys.readouterr()
        with limited():
            code = cli.main(words)
        out, err = capsys.readouterr()
        assert code not in (0, 1) and out == "", (words, code, out)
        assert "edgeagent: " in err and "Traceback" not in err, err
        assert not (place / "n").exists() and {p: p.read_bytes() for p in held} == held


SECRETS = {
    KeyKind.ROOT_PRIVATE, KeyKind.RECEIPT_PRIVATE, KeyKind.COMMAND_PRIVATE, KeyKind.DIRECTOR_PRIVATE, KeyKind.DEVICE_PRIVATE,
}  # fmt: skip


@pytest.mark.parametrize("option", ["--fleet-key", "--key"])
@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_key_of_another_kind_is_named_and_never_copied_to_the_board(
    place: Path, kind: KeyKind, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    right = KeyKind.FLEET if option == "--fleet-key" else KeyKind.DEVICE_PRIVATE
    if kind is right:
        return
    digits = "5a" * (len(bytes.fromhex(write_fleet(keys.FLEET).partition(":")[2])) if kind is KeyKind.FLEET else 32)
    line = write_fleet(keys.FLEET) if kind is KeyKind.FLEET else write_key(kind, bytes.fromhex(digits))
    (place / "given").write_text(line + "\n")
    (place / "given").chmod(0o600)
    given = ["--fleet-key", "given"] if option == "--fleet-key" else ["--fleet-key", "fleet.pub", "--key", "given"]
    code = cli.main([*INIT.split(), *MODEL.split(), *given])
    out, err = capsys.readouterr()
    assert code == 16 and kind.title in err and right.title in err and out == "", (code, err)
    assert not (place / "n").exists() and (kind not in SECRETS or "5a5a" not in err)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_init_makes_can_be_changed_by_its_owner_alone_and_the_key_read_by_none_else(place: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make_board()
    finally:
        os.umask(before)
    made = {str(p.relative_to(place)): stat.S_IMODE(p.lstat().st_mode) for p in [place / "board", *sorted((place / "board").rglob("*"))]}
    for name, mode in made.items():
        shared = name.startswith("board/state/samples")  # where an application puts samples
        assert shared or name.endswith("served.tflite") or not mode & 0o022, (name, oct(mode))
        assert not name.endswith((".key", "edgeagent.db", "private")) or mode == 0o600, (name, oct(mode))
    assert made["board/state"] & 0o007 == 0  # and with it samples, models and versions
