"""The broker as shipped, by delivery, and certificates over their life: with a real mosquitto, real agents and a real ingester."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import broker
from tests.certificates import Authority
from tests.system import deliveries
from tests.system.fleet import Fleet
from tests.system.perimeter import FLEET, HOST, Client, Perimeter, perimeter, wait_for
from tests.worlds import MODELS

pytestmark = [
    pytest.mark.slow("starts a broker and processes", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]
TLS = {"link.tls_ca": "ca.pem", "link.tls_cert": "tls.pem", "link.tls_key": "tls.key"}
QUICK = {"link.reconnect_min": "100ms", "link.reconnect_max": "500ms", "link.resend": "1s", "link.hello_every": "1s"}
HOUR = datetime.timedelta(hours=1)


class Guarded:
    """A fleet behind a broker with the shipped files."""

    def __init__(self, folder: Path, at: Perimeter) -> None:
        self.at, self.fleet = at, Fleet(folder, at.url)
        paths = {"--ca": at.ca / "ca.pem", "--cert": at.centre.certificate, "--cert-key": at.centre.key}
        self.fleet.ingester.command += [str(word) for pair in paths.items() for word in pair]
        self.fleet.ingester.command += ["--certificates", str(at.ca / "issued")]
        self.fleet.add_base("tiny")
        self.fleet.ingester.start()

    def add(self, name: str) -> None:
        """Set a board up as docs/broker.md says, its agent not started."""
        self.fleet.add_device(name, {"tiny": MODELS / "tiny.tflite"}, {**TLS, **QUICK})
        made = self.request(name)
        self.at.cloud("ca", "issue", name, "--request", made["request"])
        self.install(name, "--ca", str(self.at.ca / "ca.pem"))

    def request(self, name: str) -> Any:
        return self.fleet.agent(name, "certificate", "request", "-o", str(self.fleet.folder / f"{name}.csr"))

    def install(self, name: str, *more: str) -> None:
        self.fleet.agent(name, "certificate", "install", str(self.at.ca / "issued" / f"{name}.pem"), *more)

    def publish(self, name: str) -> Any:
        """Connect once, and return when the centre has welcomed."""
        return self.fleet.agent(name, "publish", "--timeout", "300s")

    def is_out(self, name: str) -> bool:
        """Return whether doctor finds that the broker does not take this board's certificate."""
        checks = {c["what"]: c for c in _said(self.fleet, name)["checks"]}
        return checks["broker TLS"]["ok"] is False and "certificate" in checks["broker TLS"]["text"]

    def refresh(self) -> list[str]:
        changed: list[str] = self.at.cloud("broker", "refresh", "-o", str(self.at.folder / "broker"))["changed"]
        return changed


def _said(fleet: Fleet, name: str) -> Any:
    command = [sys.executable, "-m", "edgeagent", "doctor", "--dir", str(fleet.home(name)), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with perimeter(tmp_path / "perimeter") as at:
        made = Guarded(tmp_path / "fleet", at)
        try:
            yield made
        finally:
            made.fleet.close()


def test_strangers_and_an_enrolled_enemy_get_nothing_and_put_nobody_off(tmp_path: Path) -> None:
    tally = deliveries.measure(tmp_path)
    assert tally.tried > 100
    assert (tally.let_in, tally.foreign, tally.stolen, tally.kicked) == ([], [], [], [])
    assert sum(tally.figures().values()) == tally.tried


def test_without_the_access_list_the_same_measure_counts_what_gets_through(tmp_path: Path) -> None:
    tally = deliveries.measure(tmp_path, open_access=True)
    assert len(tally.foreign) > 20 and tally.let_in == []


def test_without_the_name_as_the_id_a_session_is_stolen_and_with_it_not(tmp_path: Path) -> None:
    at = Perimeter(tmp_path)
    board, enemy = at.issue("pi-7"), at.issue("enemy")
    settings = at.folder / "broker" / "conf.d" / "edge.conf"
    shipped = settings.read_text()
    for text, stolen in ((shipped.replace("use_username_as_clientid true", ""), True), (shipped, False)):
        settings.write_text(text)
        at.start()
        victim, thief = Client(at, board, f"{FLEET}.pi-7"), Client(at, enemy, f"{FLEET}.pi-7")
        assert victim.connect() and thief.connect()
        thief.listen(f"e1/{FLEET}/enemy/+/dn/#")  # answered after a session that is taken over was ended
        if stolen:
            victim.wait_lost()
        assert bool(victim.lost) is stolen
        for one in (thief, victim):
            one.leave()
        at.stop()


def test_an_expired_certificate_is_named_and_its_renewal_taken_without_a_restart(guarded: Guarded) -> None:
    guarded.add("pi-7")
    fleet, home = guarded.fleet, guarded.fleet.home("pi-7")
    good = (home / "tls.pem").read_bytes()
    expired = Authority.of(guarded.at.folder, guarded.at.ca).issue_for("pi-7", home / "tls.key", since=-3 * HOUR, until=-HOUR)
    (home / "tls.pem").write_bytes(expired)
    board = fleet.devices["pi-7"]
    board.start()
    wait_for(lambda: board.said("the certificate tls.pem ended on") and board.said("edgecloud ca renew"))
    status = fleet.agent("pi-7", "status")
    assert status["certificate"]["state"] == "ended" and "pi-7" in status["certificate"]["says"]
    found = {c["what"]: c for c in _said(fleet, "pi-7")["checks"]}["certificate"]
    assert not found["ok"] and "ended on" in found["text"] and "edgecloud ca renew" in found["hint"]
    refused = guarded.fleet.folder / "expired.pem"
    refused.write_bytes(expired)
    with pytest.raises(RuntimeError, match="CertificateRefused"):
        fleet.agent("pi-7", "certificate", "install", str(refused))
    guarded.install("pi-7")
    assert (home / "tls.pem").read_bytes() == good
    wait_for(lambda: board.said("connected to"))
    assert board.stop() == 0
    assert guarded.publish("pi-7")


def test_a_board_on_line_is_sent_its_renewed_certificate_and_goes_by_it_at_its_next_connection(guarded: Guarded) -> None:
    guarded.add("pi-7")
    home, at, board = guarded.fleet.home("pi-7"), guarded.at, guarded.fleet.devices["pi-7"]
    old = (home / "tls.pem").read_bytes()
    board.start()
    wait_for(lambda: board.said("connected to") == 1 and board.said("welcome"))
    at.cloud("ca", "issue", "pi-7", "--request", guarded.request("pi-7")["request"], "--days", "700")  # as renew does, for the same key
    wait_for(lambda: board.said("the certificate tls.pem was renewed"))
    assert (home / "tls.pem").read_bytes() == (at.ca / "issued" / "pi-7.pem").read_bytes() != old
    serials = [one["serial"] for one in at.cloud("ca", "list", "--all")["certificates"] if one["name"] == "pi-7"]
    at.cloud("ca", "revoke", "pi-7", "--serial", serials[-1])  # the old one is of no use any more
    assert guarded.refresh() == ["crl.pem"]
    _restart(at)
    wait_for(lambda: board.said("connected to") == 2)
    assert board.said("was renewed") == 1 and board.stop() == 0


def test_a_board_set_up_anew_supersedes_its_old_certificate_and_a_kick_ends_what_is_open(guarded: Guarded) -> None:
    guarded.add("pi-7")
    home, at = guarded.fleet.home("pi-7"), guarded.at
    old = at.folder / "old"
    old.mkdir()
    for name in ("tls.pem", "tls.key"):
        (old / name).write_bytes((home / name).read_bytes())
    thief = Client(at, deliveries.Papers(old / "tls.pem", old / "tls.key"), "pi-7")
    assert thief.connect(), "until now it is the board's own"
    (home / "tls.key").unlink()
    asked = guarded.request("pi-7")
    made = at.cloud("ca", "issue", "pi-7", "--request", asked["request"], "--now")
    assert made["fingerprint"] == asked["fingerprint"]
    with pytest.raises(RuntimeError, match="another key"):
        guarded.fleet.agent("pi-7", "certificate", "install", str(old / "tls.pem"))
    guarded.install("pi-7")
    assert guarded.refresh() == ["crl.pem"]
    at.reload()
    assert thief.lost == [], "the list refuses new connections alone"
    at.cloud("broker", "kick", "pi-7", "--broker", at.url)
    thief.wait_lost()
    assert not Client(at, deliveries.Papers(old / "tls.pem", old / "tls.key"), "pi-7").connect()
    assert guarded.publish("pi-7")
    with pytest.raises(RuntimeError, match="was revoked"):  # the old key, with a request of its own
        (home / "tls.key").write_bytes((old / "tls.key").read_bytes())
        at.cloud("ca", "issue", "pi-7", "--request", guarded.request("pi-7")["request"])


def test_another_ca_takes_over_and_a_board_that_slept_through_it_is_not_shut_out(guarded: Guarded) -> None:
    at, names = guarded.at, ("pi-7", "pi-8", "pi-9")
    for name in names:
        guarded.add(name)
    board = guarded.fleet.devices["pi-7"]
    board.start()
    wait_for(lambda: board.said("connected to") == 1)
    at.cloud("ca", "rotate")
    assert set(guarded.refresh()) == {"ca.pem", "crl.pem"}
    _restart(at)
    wait_for(lambda: board.said("connected to") == 2)
    renewed = {one["name"] for one in at.cloud("ca", "renew")["renewed"]}
    assert renewed == {"CENTRE", HOST, *names}
    assert guarded.refresh() == ["server.pem"]
    _restart(at)
    wait_for(lambda: board.said("connected to") == 3)  # it knows the older CA alone, and believes the broker
    guarded.install("pi-7", "--ca", str(at.ca / "ca.pem"))
    assert guarded.publish("pi-9")  # with its old certificate, asleep until now; its welcome brings the new one
    assert (guarded.fleet.home("pi-9") / "tls.pem").read_bytes() == (at.ca / "issued" / "pi-9.pem").read_bytes()
    at.cloud("ca", "rotate", "--retire")
    assert set(guarded.refresh()) == {"ca.pem", "crl.pem"}
    _restart(at)
    wait_for(lambda: board.said("connected to") == 4)
    assert guarded.publish("pi-9")
    assert guarded.is_out("pi-8")  # it slept until the older CA was retired
    guarded.install("pi-8")  # by what it knows: the newer CA is signed by the older
    assert guarded.publish("pi-8")
    guarded.install("pi-8", "--ca", str(at.ca / "ca.pem"))
    assert guarded.publish("pi-8") and board.stop() == 0


def _restart(at: Perimeter) -> None:
    at.stop()
    at.start()
