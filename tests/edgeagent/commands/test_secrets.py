"""What must not be seen on a board: passwords in URLs, a key that is open to others, and escapes that others wrote into its state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.settings import reading
from edgeagent.state import agent_tables
from edgeagent.state.keys import read_board
from edgeagent.system.database import open_database
from modelwire.errors import BadArgument
from modelwire.text import REFUSED
from modelwire.wire.keys import write_fleet
from tests import broker, keys
from tests.certificates import Authority, server
from tests.worlds import MODELS

URL = "mqtt://pi-7:hush@127.0.0.1:1"
ESCAPES = "\x1b[31m\x1b]0;title\x07\x08\x7f\x85\x9b2J\u202e\u2066\r\v\nFORGED line\t"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e" + "".join(f"{chr(a)}-{chr(b)}" for a, b in REFUSED if a > 0x9F) + "]")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("EDGEAGENT_")]:
        monkeypatch.delenv(name)


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def init_words(folder: Path, *more: str) -> list[str]:
    folder.parent.mkdir(exist_ok=True)
    (folder.parent / "fleet.pub").write_text(write_fleet(keys.FLEET) + "\n")
    return [
        "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(folder.parent / "fleet.pub"),
        "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", str(folder), *more,
    ]  # fmt: skip


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    folder = tmp_path / "d"
    code, _, err = call(capsys, *init_words(folder, "--broker", f"mqtt://127.0.0.1:{broker.free_port()}"))
    assert code == 0, err
    yield folder


COMMANDS = ("status", "doctor", "log", "outbox", "config show")


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("by", ["file", "flag", "environment"])
def test_a_password_in_the_brokers_url_is_refused_and_printed_by_no_command(
    board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by: str, command: str, form: tuple[str, ...]
) -> None:
    words = [*command.split(), "--dir", str(board), *form]
    if by == "file":
        settings = board / "edgeagent.toml"
        changed = re.sub(r'(?m)^(# *)?broker = "[^"]*"', f'broker = "{URL}"', settings.read_text())
        assert URL in changed
        settings.write_text(changed)
    elif by == "flag":
        words += ["--set", f"link.broker={URL}"]
    else:
        monkeypatch.setenv("EDGEAGENT_LINK_BROKER", URL)
    code, out, err = call(capsys, *words)
    assert code != 0 and "hush" not in out + err
    assert "holds a password" in out + err and "link.password_file" in out + err and "link.user" in out + err


def test_init_writes_no_password_into_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (("--broker", URL), ("--set", f"link.broker={URL}"), ("--set", URL)):
        code, out, err = call(capsys, *init_words(tmp_path / "d", *more))
        assert code != 0 and "hush" not in out + err
        assert not (tmp_path / "d").exists()


def test_what_was_typed_beside_the_point_is_not_repeated_with_a_password(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run", "--nonsense", URL], ["status", URL], ["outbox", URL]):
        code, out, err = call(capsys, *words)
        assert code == 2 and "hush" not in out + err and "pi-7:***@127.0.0.1" in err


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_look_at_stops_all_but_doctor_which_says_so(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int
) -> None:
    key = board / "device.key"
    key.chmod(mode)
    for command in ("status", "log", "outbox"):
        code, out, err = call(capsys, command, "--dir", str(board))
        assert (code, out) == (15, "") and "may be read by others" in err and f"chmod 600 {key}" in err
    code, out, _ = call(capsys, "doctor", "--dir", str(board))
    assert code == 1 and f"chmod 600 {key}" in out and "is whole" in out
    code, out, err = call(capsys, *init_words(tmp_path / "other", "--key", str(key)))
    assert code == 15 and f"chmod 600 {key}" in err and not (tmp_path / "other").exists()
    with pytest.raises(BadArgument, match="may be read by others"):
        read_board(reading.load(board / "edgeagent.toml", environment={}, flags={}))


def test_a_password_file_that_others_may_look_at_is_named_by_doctor(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (board / "word").write_text("hush")
    (board / "word").chmod(0o640)
    code, out, err = call(capsys, "doctor", "--dir", str(board), "--set", "link.password_file=word")
    assert code == 1 and f"chmod 600 {board / 'word'}" in out and "hush" not in out + err


def test_doctor_believes_no_certificate_that_the_agent_would_not(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca, other = Authority(board), Authority(board, "other")
    for signer, host, fine in ((ca, "127.0.0.1", True), (other, "127.0.0.1", False), (ca, "broker.example", False)):
        with server(signer.issue(host)) as port:
            words = ("--set", f"link.broker=mqtts://127.0.0.1:{port}", "--set", "link.tls_ca=ca.pem")
            _, out, _ = call(capsys, "doctor", "--dir", str(board), *words)
        (line,) = [one for one in out.splitlines() if " broker TLS " in one]
        assert line.startswith("ok" if fine else "FIX") and (fine or "certificate" in line), line


def test_no_command_writes_an_escape_that_stands_in_the_state(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = open_database(board / "state" / agent_tables.FILE, agent_tables.RELEASE)
    database.run("PRAGMA ignore_check_constraints = ON")
    for n, state in enumerate(("rejected", "queued", "offered", "verified", "refused", f"odd{ESCAPES}"), 1):
        database.insert(
            "version", model="tiny", version=None if n == 1 else n, epoch=1, round=n, state=state, reason=f"r{ESCAPES}", kind=f"k{ESCAPES}",
            commit_id=bytes(32), parent=bytes(32), bytes=9, samples=5 if n > 4 else None, mode=f"m{ESCAPES}", at=1_700_000_000,
        )  # fmt: skip
        if n > 1:
            database.insert("outbox", model="tiny", version=n, size=9, body=b"")
    database.insert("waiting", model="tiny", reason=f"w{ESCAPES}", until=f"u{ESCAPES}", at=1)
    for column in ("welcome", "quiet_why", "blocked", "runtime", "look"):
        database.run(f'UPDATE model SET "{column}" = ?, quiet_until = 1 << 33', f"x{ESCAPES}")
    database.close()
    told = ""
    for line in ("status", "log", "log tiny -n 3", "outbox", "outbox list tiny", "config show", "version", "log \x1b[31m"):
        _, out, err = call(capsys, *line.split(" "), "--dir", str(board))
        said = out + err
        assert FORBIDDEN.search(said) is None and "\nFORGED" not in said, (line, ascii(said))
        told += said
    assert told.count("\\x1b[31m") > 20 and all(f"{word}\\x1b" in told for word in "rkmwux")


@pytest.mark.parametrize("until", [1 << 33, 253_402_300_800, 1 << 45, (1 << 63) - 1])
def test_status_says_until_when_it_is_quiet_however_far_that_is(board: Path, capsys: pytest.CaptureFixture[str], until: int) -> None:
    database = open_database(board / "state" / agent_tables.FILE, agent_tables.RELEASE)
    database.run("PRAGMA ignore_check_constraints = ON")
    database.run("UPDATE model SET quiet_until = ?", until)
    database.close()
    code, out, err = call(capsys, "status", "--dir", str(board))
    assert code == 0, err
    assert "nothing sent until 2242-" in out if until == 1 << 33 else f"nothing sent until {until} s after 1970" in out


@pytest.mark.parametrize("url", ["mqtt://pi-7:hush", "pi-7:hush", "mqtt://pi-7:hu/hush", "mqtts://pi-7:my hush", "mqtt:pi-7:hush"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_password_whose_host_was_forgotten_is_refused_and_shown_by_no_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, form: tuple[str, ...]
) -> None:
    code, out, err = call(capsys, *init_words(tmp_path / "d", "--broker", url, *form))
    assert code == BadArgument.code and "hush" not in out + err and "password" in err
    code, out, err = call(capsys, *init_words(tmp_path / "e", "--broker", "mqtt://127.0.0.1:1883"))
    assert code == 0, err
    monkeypatch.setenv("EDGEAGENT_LINK_BROKER", url)
    for line in ("status", "config show", "config check", "doctor", "run --once --timeout 1s"):
        code, out, err = call(capsys, *line.split(" "), "--dir", str(tmp_path / "e"), *form)
        assert "hush" not in out + err, line
