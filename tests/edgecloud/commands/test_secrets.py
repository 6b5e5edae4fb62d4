"""What must not be seen or believed: passwords in URLs, files open to others, and certificates of a broker that is another."""

from __future__ import annotations

import datetime
import json
import logging
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecloud.intake import mqtt
from edgecloud.intake.reaching import look
from edgecommon.broker import Certificates
from modelwire.errors import BadArgument
from tests import broker as brokers
from tests.certificates import DAY, Authority, Issued, server
from tests.edgecloud.desk import Desk

HOUR = datetime.timedelta(hours=1)
BAD: dict[str, tuple[Callable[[Authority, Authority], Issued], str, str]] = {
    "expired": (lambda ca, _: ca.issue("127.0.0.1", since=-2 * DAY, until=-HOUR), "certificate has expired", "renew"),
    "not yet valid": (lambda ca, _: ca.issue("127.0.0.1", since=HOUR), "certificate is not yet valid", "clock"),
    "wrong name": (lambda ca, _: ca.issue("broker.example"), "not valid for '127.0.0.1'", "--broker"),
    "unknown CA": (lambda _, other: other.issue("127.0.0.1"), "unable to get local issuer", "--ca"),
    "self-signed": (lambda ca, _: ca.issue("127.0.0.1", self_signed=True), "self", "--ca"),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let what a command sets up of the log end with its test."""
    logger = logging.getLogger("edgecloud")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def check_of(desk: Desk, what: str, *arguments: str) -> dict[str, object]:
    code, out, _ = desk.run("doctor", *arguments, "--json")
    checks = {c["what"]: c for c in json.loads(out)["checks"]}
    assert code == (1 if any(c["ok"] is False for c in checks.values()) else 0)
    found: dict[str, object] = checks[what]
    return found


@pytest.mark.parametrize("fault", BAD)
def test_doctor_believes_no_certificate_that_the_ingester_would_not(desk: Desk, fault: str) -> None:
    make, said, fix = BAD[fault]
    ca, other = Authority(desk.folder), Authority(desk.folder, "other")
    with server(make(ca, other)) as port:
        found = check_of(desk, "broker TLS", "--broker", f"mqtts://127.0.0.1:{port}", "--ca", "ca.pem")
    assert found["ok"] is False and said in str(found["found"]) and fix in str(found["fix"])


def test_doctor_believes_a_certificate_that_holds_and_says_so(desk: Desk) -> None:
    ca = Authority(desk.folder)
    with server(ca.issue("127.0.0.1")) as port:
        url = f"mqtts://127.0.0.1:{port}"
        found = check_of(desk, "broker TLS", "--broker", url, "--ca", "ca.pem")
        assert found["ok"] and "TLSv1" in str(found["found"]), found
        assert check_of(desk, "broker TLS", "--broker", url)["ok"] is False, "the system's authorities did not sign it"
        found = check_of(desk, "broker TLS", "--broker", url.replace("mqtts", "mqtt"))
        assert found["ok"] is False and "mqtts://" in str(found["fix"]), "it speaks TLS, and was spoken to without"


def test_doctor_takes_the_broker_from_the_environment_as_the_ingester_does(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Authority(desk.folder)
    with server(ca.issue("127.0.0.1")) as port:
        monkeypatch.setenv("EDGECLOUD_BROKER", f"mqtts://127.0.0.1:{port}")
        monkeypatch.setenv("EDGECLOUD_CA", "ca.pem")
        assert check_of(desk, "broker TLS")["ok"]
        monkeypatch.setenv("EDGECLOUD_CA", "none.pem")
        assert "--ca" in str(check_of(desk, "broker")["fix"])


def test_a_server_that_speaks_no_tls_is_told_from_one_that_is_not_believed(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    with server(None) as port:
        asked = mqtt.parse_broker(f"mqtts://127.0.0.1:{port}", certificates=Certificates(ca=ca.file))
        found = {one.step: one for one in look(asked, "home", "edgecloud.home")}["TLS"]
    assert found.ok is False and "speaks no TLS" in found.text and "speaks TLS at this port" in found.fix


def test_doctor_judges_by_the_settings_object_of_the_ingester(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = mqtt.parse_broker("mqtts://127.0.0.1:1", certificates=Certificates(ca=tmp_path / "none.pem"))
    messages = []
    for use in (lambda b: look(b, "home", "c"), lambda b: mqtt.MqttTransport(b, fleet="home", client_id="c").start(lambda _: None)):
        with pytest.raises(BadArgument) as refused:
            use(asked)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


URL = "mqtt://centre:hush@127.0.0.1:1"
COMMANDS = (("doctor",), ("ingest", "--once"), ("ingest", "--once", "--log", "json", "--log-level", "debug"))


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("by", ["flag", "environment"])
@pytest.mark.parametrize("url", [URL, "centre:hush@127.0.0.1", "mqtts://centre:hu/hush@127.0.0.1", "mqtt://centre:hush", "http://x:hush@h"])
def test_a_password_in_a_url_is_refused_and_printed_by_no_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, url: str, by: str, arguments: tuple[str, ...], form: tuple[str, ...]
) -> None:
    desk.ok("init")
    if by == "environment":
        monkeypatch.setenv("EDGECLOUD_BROKER", url)
    given = () if by == "environment" else ("--broker", url)
    code, out, err = desk.run(*arguments, *given, *form)
    assert code != 0 and "hush" not in out + err
    assert "@" not in url or ("holds a password" in out + err and "--password-file" in out + err)


def test_what_was_typed_beside_the_point_is_not_repeated_with_a_password(desk: Desk) -> None:
    for arguments in (("ingest", "--nonsense", URL), ("doctor", URL), ("ingest", "--log", URL)):
        code, out, err = desk.run(*arguments)
        assert code == 2 and "hush" not in out + err and "centre:***@127.0.0.1" in err


def test_a_broker_that_is_away_or_refuses_is_told_without_the_password(desk: Desk) -> None:
    desk.ok("init")
    (desk.folder / "secret").write_text("hush")
    (desk.folder / "secret").chmod(0o600)
    port = brokers.free_port()
    for form in ((), ("--json",)):
        code, out, err = desk.run("doctor", "--broker", f"mqtt://centre@127.0.0.1:{port}", "--password-file", "secret", *form)
        assert code == 1 and "refused" in out and "hush" not in out + err


def test_a_password_file_that_others_may_look_at_is_named_by_doctor_and_stops_the_ingester(desk: Desk) -> None:
    desk.ok("init")
    (desk.folder / "secret").write_text("hush")
    (desk.folder / "secret").chmod(0o640)
    assert check_of(desk, "broker", "--password-file", "secret")["fix"] == "chmod 600 secret"
    said = desk.error("ingest", "--once", "--password-file", "secret")
    assert said["error"] == "BadArgument" and said["hint"] == "chmod 600 secret" and "hush" not in str(said)


@pytest.mark.parametrize("name", ["receipt.key", "command.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_private_key_that_others_may_look_at_is_refused(desk: Desk, name: str, mode: int) -> None:
    desk.ok("init")
    (desk.folder / name).chmod(mode)
    command = ("ingest", "--once") if name == "receipt.key" else ("devices", "add", "pi-7", "edge-device-pub:" + "d7" * 32)
    said = desk.error(*command)
    assert said["error"] == "BadArgument" and said["hint"] == f"chmod 600 {name}"


def modes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): stat.S_IMODE(p.lstat().st_mode) for p in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_a_registry_its_copies_its_large_files_and_the_keys_are_their_owners_alone_whatever_the_umask(desk: Desk, umask: int) -> None:
    from tests.edgecloud.device import TINY

    before = os.umask(umask)
    try:
        desk.ok("init", "--files-from", "0")
        desk.ok("bases", "add", str(TINY), "--name", "digits", "--no-rehearse")
        desk.ok("backup", "monday.db")
        desk.ok("restore", "monday.db", "--force")
    finally:
        os.umask(before)
    for name, mode in modes(desk.folder).items():
        if name == "fleet.pub":
            continue
        wanted = 0o700 if (desk.folder / name).is_dir() else 0o600
        assert mode & ~wanted == 0, (name, oct(mode))
        if not name.endswith(".lock"):
            assert mode == wanted, (name, oct(mode))
    assert any(".blobs/" in name for name in modes(desk.folder))


def test_each_file_that_is_open_to_others_is_named_with_the_line_that_mends_it(desk: Desk) -> None:
    desk.ok("init")
    desk.ok("backup", "my monday.db")
    (desk.folder / "fleet.db.blobs").mkdir(mode=0o755)
    (desk.folder / "notes.txt").write_text("not ours")
    (desk.folder / "link.db").symlink_to("fleet.db")
    for name, mode in (("fleet.db", 0o644), ("my monday.db", 0o640), ("fleet.db.blobs", 0o755), ("notes.txt", 0o644)):
        (desk.folder / name).chmod(mode)
    found = check_of(desk, "private")
    lines = str(found["fix"]).split("; ")
    where = desk.folder.resolve()
    assert not found["ok"] and set(lines) == {
        f"chmod 600 {where}/fleet.db", f"chmod 600 '{where}/my monday.db'", f"chmod 700 {where}/fleet.db.blobs",
    }  # fmt: skip
    for command in WRITING:
        said = desk.error(*command)
        assert said["error"] == "BadArgument" and set(str(said["hint"]).split("; ")) >= set(lines), command  # and SQLite's
    desk.ok("devices")  # whom the owner lets read may read
    for line in str(check_of(desk, "private")["fix"]).split("; "):
        subprocess.run(line, shell=True, check=True)
    assert check_of(desk, "private")["ok"]
    now = modes(desk.folder)
    assert (now["fleet.db"], now["my monday.db"], now["fleet.db.blobs"], now["notes.txt"]) == (0o600, 0o600, 0o700, 0o644)
    desk.ok("devices", "add", "pi-7", "edge-device-pub:" + "d7" * 32)


WRITING = (
    ("devices", "add", "pi-7", "edge-device-pub:" + "d7" * 32), ("trust", "rotate", "receipt"),
    ("claim", "new", "--count", "2", "-o", "token"),
    ("ingest", "--once", "--idle", "1", "--broker", "mqtt://127.0.0.1:1"),
)  # fmt: skip


@pytest.mark.parametrize("name", ["fleet.db", "copy.db"])
@pytest.mark.parametrize("mode", [0o644, 0o660, 0o606, 0o610])
def test_nothing_is_written_to_a_registry_that_others_may_open(desk: Desk, name: str, mode: int) -> None:
    desk.ok("init")
    desk.ok("backup", "copy.db")
    (desk.folder / name).chmod(mode)
    before = (desk.folder / "fleet.db").read_bytes()
    for command in WRITING:
        said = desk.error(*command)
        assert f"{name} is open to others than its owner (mode {mode:o})" in str(said["message"])
        assert str(said["hint"]) == f"chmod 600 {desk.folder.resolve() / name}"
    assert (desk.folder / "fleet.db").read_bytes() == before and not (desk.folder / "token").exists()
