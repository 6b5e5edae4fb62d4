"""`edgecloud ca` and `edgecloud broker` at an operator's desk: what they write, what they refuse, and what they say."""

from __future__ import annotations

import datetime
import json
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509

from edgecloud.certificates import CertificateFolder, Holder, broker_files, building
from edgecloud.intake import mqtt
from edgecommon.broker import Certificates
from modelwire.errors import BadArgument
from tests.certificates import DAY, Authority, server
from tests.edgecloud.certificates.test_authority import request
from tests.edgecloud.desk import LINE, Desk


@pytest.fixture
def office(desk: Desk) -> Desk:
    """A desk with a registry, a CA, and a board that is let in."""
    desk.ok("init", "--fleet", "orchard")
    desk.ok("ca", "init")
    desk.ok("devices", "add", "pi-7", LINE)
    (desk.folder / "pi-7.csr").write_bytes(request())
    return desk


def test_a_board_is_issued_a_certificate_for_its_request_and_both_sides_print_one_fingerprint(office: Desk) -> None:
    made = office.json("ca", "issue", "pi-7", "--request", "pi-7.csr")
    text = office.ok("ca", "list")
    assert made["certificate"] == "ca/issued/pi-7.pem" and made["key"] is None
    assert office.json("ca", "renew")["registry_asked"] is True
    assert office.error("ca", "renew", "--ca-dir", "ca", "--db", "none.db")["error"] == "MissingFile"
    (office.folder / "fleet.db").rename(office.folder / "elsewhere.db")
    assert "was not looked at" in office.ok("ca", "renew")
    assert re.fullmatch(r"[0-9a-f]{4}(-[0-9a-f]{4}){4}", str(made["fingerprint"]))
    assert "pi-7" in text and str(made["serial"]) in text and "good" in text
    (listed,) = office.json("ca", "list")["certificates"]  # type: ignore[misc]
    assert listed["state"] == "good" and listed["serial"] == made["serial"]


def test_keys_that_are_made_here_are_their_owners_alone_and_left_nowhere_else(office: Desk) -> None:
    made = office.json("ca", "issue", "pi-8", "--make-key", "pi-8.key")
    centre = office.json("ca", "issue", "--centre")
    for path in (made["key"], centre["key"]):
        assert stat.S_IMODE((office.folder / str(path)).stat().st_mode) == 0o600
    assert not [p for p in (office.folder / "ca").rglob("*pi-8*") if p.suffix == ".key"]
    secret = (office.folder / "pi-8.key").read_bytes()
    assert not any(secret in p.read_bytes() for p in (office.folder / "ca").rglob("*") if p.is_file())
    again = office.error("ca", "issue", "pi-9", "--make-key", "pi-8.key")
    assert "pi-8.key" in str(again["message"]) and (office.folder / "pi-8.key").read_bytes() == secret


@pytest.mark.parametrize(
    "words",
    [(), ("pi-7",), ("pi-7", "--server", "h"), ("--request", "pi-7.csr"), ("pi-7", "--centre"), ("pi-7", "--request", "none.csr"),
     ("pi-9", "--request", "pi-7.csr"), ("PI-7", "--request", "pi-7.csr"), ("pi-7", "--request", "pi-7.csr", "--days", "0"),
     ("--server", "h_h"), ("--server", "../x"), ("../x", "--make-key", "k")],
)  # fmt: skip
def test_what_is_asked_for_wrongly_is_refused_and_nothing_is_issued(office: Desk, words: tuple[str, ...]) -> None:
    said = office.error("ca", "issue", *words)
    assert said["hint"] or said["error"] == "Malformed"
    assert office.json("ca", "list", "--all")["certificates"] == []
    assert not list(office.folder.glob("**/*.key.*")) and not (office.folder / "k").exists()


def test_a_device_that_is_revoked_gets_no_certificate_and_none_is_renewed(office: Desk) -> None:
    office.ok("ca", "issue", "pi-7", "--request", "pi-7.csr", "--days", "1")
    office.ok("devices", "revoke", "pi-7")
    refused = office.error("ca", "issue", "pi-7", "--request", "pi-7.csr")
    assert "revoked in the registry" in str(refused["message"])
    office.ok("ca", "rotate")  # everything is due
    said = office.json("ca", "renew")
    assert said["renewed"] == [] and said["left"] == [
        {"name": "pi-7", "why": "its key is revoked in the registry: set the board up anew, and let its new key in"}
    ]


def test_renewing_has_nothing_to_do_until_something_is_due(office: Desk) -> None:
    office.ok("ca", "issue", "pi-7", "--request", "pi-7.csr")
    assert office.ok("ca", "renew") == "nothing is due\n"
    office.ok("ca", "rotate")
    assert "renewed pi-7" in office.ok("ca", "renew")
    assert office.ok("ca", "renew") == "nothing is due\n"
    assert str(office.error("ca", "renew", "--grace", "-1")["message"]).startswith("--grace: '-1' is not a whole number")
    assert office.json("ca", "rotate", "--retire")["trusted"] == [2]


def test_revoking_says_what_else_is_to_be_done(office: Desk) -> None:
    made = office.json("ca", "issue", "pi-7", "--request", "pi-7.csr")
    text = office.ok("ca", "revoke", "pi-7")
    for line in ("edgecloud broker refresh", "edgecloud broker kick pi-7", "edgecloud devices revoke pi-7"):
        assert line in text
    crl = x509.load_pem_x509_crl((office.folder / "ca" / "crl.pem").read_bytes())
    assert [f"{one.serial_number:x}" for one in crl] == [made["serial"]]
    assert office.error("ca", "revoke", "pi-77")["error"] == "BadArgument"
    assert office.error("ca", "revoke", "pi-7", "--serial", "abc")["error"] == "BadArgument"


def test_a_brokers_files_are_written_once_and_only_what_may_be_renewed_is_renewed(office: Desk) -> None:
    office.ok("broker", "config", "-o", "broker", "--host", "broker.example", "--host", "192.0.2.10", "--place", "/etc/mosquitto/edge")
    folder = office.folder / "broker"
    settings = (folder / broker_files.SETTINGS).read_text()
    for line in (
        "allow_anonymous false", "require_certificate true", "use_identity_as_username true", "use_username_as_clientid true",
        "per_listener_settings false", "tls_version tlsv1.2", "acl_file /etc/mosquitto/edge/acl", "crlfile /etc/mosquitto/edge/crl.pem",
        "persistence true", "listener 8883", "max_packet_size 262144", "max_connections 10000",
    ):  # fmt: skip
        assert line in settings.splitlines(), line
    assert len(re.findall(r"^listener", settings, re.M)) == 1, "a second listener would share its sessions"
    assert stat.S_IMODE((folder / "server.key").stat().st_mode) == 0o600
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert "nothing is overwritten" in str(office.error("broker", "config", "-o", "broker", "--host", "broker.example")["message"])
    assert {p: p.read_bytes() for p in before} == before
    assert office.json("broker", "refresh", "-o", "broker")["changed"] == []
    (folder / "acl").write_text("# the operator's own\n")
    office.ok("ca", "issue", "pi-7", "--request", "pi-7.csr")
    office.ok("ca", "revoke", "pi-7")
    (folder / "crl.pem").chmod(0o640)
    assert office.json("broker", "refresh", "-o", "broker")["changed"] == ["crl.pem"]
    assert stat.S_IMODE((folder / "crl.pem").stat().st_mode) == 0o640, "the broker's user reads it as before"
    assert (folder / "acl").read_text() == "# the operator's own\n"
    for words in (("-o", "nowhere"), ("-o", "ca")):
        assert office.error("broker", "refresh", *words)["hint"]


@pytest.mark.parametrize(
    "words", [("--port", "0"), ("--place", "/a b"), ("--place", "/a\nuser CENTRE"), ("--bind", "x\nlistener 1"), ("--host", "a b"),
              ("--connections", "0")],
)  # fmt: skip
def test_nothing_of_a_command_line_gets_into_mosquittos_settings_as_a_line_of_its_own(office: Desk, words: tuple[str, ...]) -> None:
    assert office.error("broker", "config", "-o", "broker", *words)["hint"]
    assert not (office.folder / "broker").exists()


def test_a_kick_needs_tls_and_a_name(office: Desk) -> None:
    assert "no TLS" in str(office.error("broker", "kick", "pi-7", "--broker", "mqtt://127.0.0.1:1")["message"])
    assert office.error("broker", "kick", "PI 7", "--broker", "mqtts://127.0.0.1:1")["error"] == "Malformed"
    assert "127.0.0.1" in str(office.error("broker", "kick", "pi-7", "--broker", "mqtts://127.0.0.1:1")["message"])
    with server(Authority(office.folder, "other").issue("127.0.0.1")) as port:
        said = office.error("broker", "kick", "pi-7", "--broker", f"mqtts://127.0.0.1:{port}")
    assert "certificate" in str(said["message"]) or "issuer" in str(said["message"]), "a broker that is not the fleet's is shown nothing"


@pytest.mark.parametrize(
    ("since", "until", "ok", "word"), [(-1, 2, True, "is good until"), (-9, 1, True, "two thirds"), (-9, -1, False, "ended")]
)
def test_doctor_says_how_long_the_centres_certificate_is_good(office: Desk, since: int, until: int, ok: bool, word: str) -> None:
    made = Authority(office.folder, "other").issue("CENTRE", since=since * DAY, until=until * DAY, client=True)
    files = ("--cert", str(made.certificate), "--cert-key", str(made.key))
    _, out, _ = office.run("doctor", "--broker", "mqtts://127.0.0.1:1", *files, "--json")
    found = {c["what"]: c for c in json.loads(out)["checks"]}["certificate"]
    assert found["ok"] is ok and word in found["found"]
    assert "edgecloud ca renew" in found["found"] + found["fix"] or word == "is good until"


def test_a_tls_key_that_lies_open_is_refused_by_ingester_and_doctor(office: Desk) -> None:
    made = Authority(office.folder, "other").issue("CENTRE", client=True)
    for mode, ok in ((0o600, True), (0o640, True), (0o644, False), (0o660, False), (0o604, False)):
        made.key.chmod(mode)
        asked = mqtt.parse_broker("mqtts://127.0.0.1:1", certificates=Certificates(own=made.certificate, key=made.key))
        if ok:
            mqtt.tls_of(asked)
            continue
        with pytest.raises(BadArgument, match="open to others") as refused:
            mqtt.tls_of(asked)
        assert refused.value.next_step == f"chmod 600 {made.key}"


def test_a_certificate_that_is_past_two_thirds_is_told_of_in_the_list(office: Desk) -> None:
    now = int(datetime.datetime.now(datetime.timezone.utc).timestamp())
    with CertificateFolder.open(office.folder / "ca") as ca:
        ca.issue("pi-8", Holder.DEVICE, building.new_key().public_key(), now - 300 * 86400)
        ca.issue("pi-9", Holder.DEVICE, building.new_key().public_key(), now - 400 * 86400)
    states = {c["name"]: c["state"] for c in office.json("ca", "list")["certificates"]}  # type: ignore[union-attr,index,attr-defined]
    assert states == {"pi-8": "due", "pi-9": "ended"}
    renewed = office.json("ca", "renew", "--grace", "30")
    assert [one["name"] for one in renewed["renewed"]] == ["pi-8"]  # type: ignore[attr-defined]
    assert [one["name"] for one in renewed["left"]] == ["pi-9"]  # type: ignore[attr-defined]
    assert [one["name"] for one in office.json("ca", "renew", "--grace", "60")["renewed"]] == ["pi-9"]  # type: ignore[attr-defined]


def test_the_ca_may_lie_elsewhere(desk: Desk, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    place: Path = tmp_path_factory.mktemp("stick") / "ca"
    assert "names the fleet" in str(desk.error("ca", "init", "--ca-dir", str(place))["message"])
    desk.ok("ca", "init", "--ca-dir", str(place), "--fleet", "orchard")
    monkeypatch.setenv("EDGECLOUD_CA_DIR", str(place))
    assert desk.json("ca", "issue", "--centre")["name"] == "CENTRE"
    assert (place / "issued" / "CENTRE.pem").is_file() and not (desk.folder / "ca").exists()
