"""`edgeagent certificate`: the key stays on the board, and no certificate but the board's own, for its key, by its CA, gets in place."""

from __future__ import annotations

import datetime
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from edgeagent import cli
from edgeagent.link import certificate
from edgeagent.settings.tree import LinkSettings
from edgecommon.certificates import key_fingerprint, name_of
from modelwire.wire.keys import write_fleet
from tests import keys
from tests.certificates import DAY, Authority
from tests.worlds import MODELS

HOUR = datetime.timedelta(hours=1)
TLS = ("--set", "link.tls_ca=ca.pem", "--set", "link.tls_cert=tls.pem", "--set", "link.tls_key=tls.key")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("EDGEAGENT_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.pub").write_text(write_fleet(keys.FLEET) + "\n")
    words = ["init", "--device", "pi-7", "--fleet", "home", "--fleet-key", "fleet.pub", "--broker", "mqtts://127.0.0.1:1"]
    code = cli.main([*words, "--model", f"tiny={MODELS / 'tiny.tflite'}", "--dir", "d", *TLS])
    assert code == 0, capsys.readouterr().err
    (tmp_path / "x").mkdir()
    yield tmp_path / "d"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = cli.main(["certificate", *words, "--dir", "d", "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out or said.err)


def issued(ca: Authority, board: Path, name: str = "pi-7", *, since: datetime.timedelta = -DAY, until: datetime.timedelta = DAY) -> str:
    """Return a file with a certificate for the board's key."""
    path = board.parent / "x" / "given.pem"
    path.write_bytes(ca.issue_for(name, board / "tls.key", since=since, until=until))
    return str(path)


@pytest.fixture
def ca(board: Path, capsys: pytest.CaptureFixture[str]) -> Authority:
    """The board's CA; the board has asked for a certificate."""
    made = Authority(board)
    assert call(capsys, "request")[0] == 0
    return made


def test_a_request_names_the_device_and_its_key_is_made_once_and_stays(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, "request")
    assert code == 0 and said["request"] == "pi-7.csr"
    asked = x509.load_pem_x509_csr(Path("pi-7.csr").read_bytes())
    assert name_of(asked) == "pi-7" and asked.is_signature_valid  # type: ignore[arg-type]
    assert said["fingerprint"] == key_fingerprint(asked.public_key())
    assert stat.S_IMODE((board / "tls.key").stat().st_mode) == 0o600
    key = (board / "tls.key").read_bytes()
    assert b"PRIVATE" in key and b"PRIVATE" not in Path("pi-7.csr").read_bytes()
    assert call(capsys, "request", "-o", "again.csr")[1]["fingerprint"] == said["fingerprint"] and (board / "tls.key").read_bytes() == key


def test_a_certificate_that_is_the_boards_own_gets_in_place(board: Path, ca: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    given = issued(ca, board)
    code, said = call(capsys, "install", given)
    assert code == 0 and said["state"] == "good"
    assert (board / "tls.pem").read_bytes() == Path(given).read_bytes()
    assert call(capsys, "install", given)[0] == 0, "again does no harm"
    assert call(capsys, "show")[1]["until"] == said["until"]


def test_what_is_not_the_boards_own_is_refused_and_what_is_in_place_stays(
    board: Path, ca: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, "install", issued(ca, board))[0] == 0
    before = (board / "tls.pem").read_bytes()
    place = board.parent / "x"
    twin, other = Authority(place, "twin", subject="ca of a test"), Authority(place, "other")
    attacks = (
        (lambda: issued(other, board), "not signed by a CA"),
        (lambda: issued(twin, board), "not signed by a CA"),
        (lambda: issued(ca, board, "pi-8"), "'pi-8'"),
        (lambda: issued(ca, board, "CENTRE"), "'CENTRE'"),
        (lambda: str(ca.issue("pi-7", client=True).certificate), "another key"),
        (lambda: issued(ca, board, since=-2 * DAY, until=-HOUR), "ended on"),
        (lambda: str(ca.file), "this device is 'pi-7'"),
        (lambda: str(board / "edgeagent.toml"), "0 certificates"),
        (lambda: _file(place, before[:300]), "0 certificates"),
        (lambda: _file(place, before * 9), "9 certificates"),
        (lambda: "none.pem", "not there"),
    )
    for give, why in attacks:
        code, said = call(capsys, "install", give())
        assert code != 0 and said["error"] in ("CertificateRefused", "Malformed", "MissingFile"), said
        assert why in str(said["message"])
        assert (board / "tls.pem").read_bytes() == before


def _file(place: Path, data: bytes) -> str:
    (place / "file.pem").write_bytes(data)
    return str(place / "file.pem")


def test_a_bundle_is_put_in_place_with_what_it_signs_and_not_when_it_holds_others(
    board: Path, ca: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    new = Authority(board.parent / "x", "new")
    before = (board / "ca.pem").read_bytes()
    leaf = board.parent / "x" / "leaf.pem"
    leaf.write_bytes(new.file.read_bytes() + new.issue("pi-9", client=True).certificate.read_bytes())
    code, said = call(capsys, "install", issued(new, board), "--ca", str(leaf))
    assert code != 0 and "no CA's" in str(said["message"]) and (board / "ca.pem").read_bytes() == before
    code, _ = call(capsys, "install", issued(ca, board), "--ca", str(new.file))
    assert code != 0 and (board / "ca.pem").read_bytes() == before, "a bundle that does not believe the certificate"
    assert call(capsys, "install", issued(new, board), "--ca", str(new.file))[0] == 0
    assert (board / "ca.pem").read_bytes() == new.file.read_bytes()


def test_a_key_that_lies_open_or_is_none_is_refused(board: Path, ca: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    given = issued(ca, board)
    (board / "tls.key").chmod(0o644)
    for words in (("request",), ("install", given)):
        code, said = call(capsys, *words)
        assert code != 0 and "chmod 600" in str(said["hint"])
    (board / "tls.key").write_bytes(b"no key")
    (board / "tls.key").chmod(0o600)
    assert "no private key" in str(call(capsys, "request")[1]["message"])
    (board / "tls.key").unlink()
    assert "certificate request" in str(call(capsys, "install", given)[1]["hint"])


def test_settings_that_do_not_say_where_the_files_are_are_named(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = call(capsys, "request", "--set", "link.tls_key=")
    assert code != 0 and "link.tls_key" in str(said["hint"])
    assert not (board / "tls.key").exists()


def test_status_and_doctor_tell_of_a_certificate_by_its_name_and_what_to_do(
    board: Path, ca: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    for since, until, state, said in ((-1, 9, "good", "good until"), (-9, 1, "due", "two thirds"), (-9, -1, "ended", "ended on")):
        (board / "tls.pem").write_bytes(ca.issue_for("pi-7", board / "tls.key", since=since * DAY, until=until * DAY))
        capsys.readouterr()
        assert cli.main(["status", "--dir", "d", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["certificate"]
        assert told["state"] == state and said in told["says"] and "pi-7" in told["says"]
        assert ("edgecloud ca renew" in told["says"]) is (state != "good")
        cli.main(["doctor", "--dir", "d", "--json"])
        found = {c["what"]: c for c in json.loads(capsys.readouterr().out)["checks"]}["certificate"]
        assert found["ok"] is (state != "ended") and said in found["text"]
        assert ("edgecloud ca renew" in found["text"] + found["hint"]) is (state != "good")


def test_the_link_says_of_a_certificate_what_is_the_matter_and_nothing_when_all_is_well(tmp_path: Path) -> None:
    ca, now = Authority(tmp_path), time.time()
    settings = LinkSettings(broker="mqtts://h", tls_cert="server.pem", tls_key="server.key", tls_ca="ca.pem")
    ca.issue("pi-7", client=True)
    assert certificate.trouble(settings, tmp_path, now) == "" and certificate.due(settings, tmp_path, now) == ""
    assert "two thirds" in certificate.due(settings, tmp_path, now + 0.8 * 86400)
    assert "ended on" in certificate.trouble(settings, tmp_path, now + 2 * 86400)
    before = certificate.stamp(settings, tmp_path)
    ca.issue("pi-7", client=True)
    assert certificate.stamp(settings, tmp_path) != before
    (tmp_path / "server.pem").write_text("none")
    assert "0 certificates" in certificate.trouble(settings, tmp_path, now) and certificate.due(settings, tmp_path, now) == ""
    assert certificate.trouble(LinkSettings(), tmp_path, now) == ""
