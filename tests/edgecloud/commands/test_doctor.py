"""What the centre's doctor and ingester say of a broker that lets them not in, and of boards of another fleet."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.service import Ingester, Pace
from edgecloud.keys import load_key
from edgecloud.registry import open_registry
from edgecloud.registry.lock import holder, lock_registry
from modelwire.errors import BrokerRefused, BrokerUnreachable
from modelwire.wire.keys import KeyKind
from tests import broker
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.desk import Desk
from tests.edgecloud.device import FLEET, Base, ScriptedDevice
from tests.edgecloud.hearing import until
from tests.keys import RECEIPT

needs_mosquitto = pytest.mark.skipif(broker.program() is None or which("mosquitto_passwd") is None, reason=broker.MISSING)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let what a command sets up of the log end with its test."""
    logger = logging.getLogger("edgecloud")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[broker.Mosquitto]:
    """A broker that knows the centre by a password."""
    words = tmp_path / "words"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(words), "centre", "hush"], check=True, capture_output=True)
    words.chmod(0o644)
    made = broker.Mosquitto(tmp_path / "b")
    made._config.write_text(made._config.read_text().replace("allow_anonymous true", f"allow_anonymous false\npassword_file {words}"))
    made.start()
    yield made
    made.stop()


def checks(desk: Desk, *arguments: str) -> dict[str, dict[str, object]]:
    code, out, _ = desk.run("doctor", *arguments, "--json")
    found = json.loads(out)
    assert code == (1 if any(c["ok"] is False for c in found["checks"]) else 0) and found["ok"] is (code == 0)
    return {c["key"]: c for c in found["checks"]}


def word(folder: Path, text: str) -> None:
    (folder / "secret").write_text(text)
    (folder / "secret").chmod(0o600)


@needs_mosquitto
def test_a_wrong_password_is_named_by_doctor_and_the_right_one_goes_all_the_way(desk: Desk, guarded: broker.Mosquitto) -> None:
    desk.ok("init")
    broker_words = ("--broker", f"mqtt://centre@127.0.0.1:{guarded.port}", "--password-file", "secret")
    word(desk.folder, "guess")
    found = checks(desk, *broker_words)
    assert (found["broker-port"]["ok"], found["broker-login"]["ok"], found["broker-access"]["ok"]) == (True, False, None)
    assert "wrong password for the user centre" in str(found["broker-login"]["found"])
    assert "--password-file" in str(found["broker-login"]["fix"]) and "guess" not in str(found)
    word(desk.folder, "hush")
    found = checks(desk, *broker_words)
    assert all(found[f"broker-{step}"]["ok"] for step in ("name", "port", "login", "access", "trip"))


@needs_mosquitto
@pytest.mark.slow("waits for an ingester to give up, twice", seconds=7)
def test_once_ends_with_the_true_reason_and_its_own_code(
    tmp_path: Path, base: Base, guarded: broker.Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    make_registry(tmp_path / "fleet.db", base).close()
    word(tmp_path, "guess")
    asked = parse_broker(f"mqtt://centre@127.0.0.1:{guarded.port}", password_file=tmp_path / "secret")

    def ingester(at: object) -> Ingester:
        transport = MqttTransport(at, fleet=FLEET, client_id="centre")  # type: ignore[arg-type]
        return Ingester(tmp_path / "fleet.db", RECEIPT, transport, pace=Pace(connect=2.0), synchronous="OFF")

    with pytest.raises(BrokerRefused, match="wrong password for the user centre") as refused:
        ingester(asked).run(once=0.1)
    assert refused.value.code == 34 and "--password-file" in refused.value.next_step and "guess" not in caplog.text
    assert caplog.text.count("wrong password") == 1, "said once, not at every attempt"
    assert "this version of MQTT" not in caplog.text, "the version is not what it refused"
    guarded.stop()
    with pytest.raises(BrokerUnreachable, match="connection refused") as unreachable:
        ingester(asked).run(once=0.1)
    assert unreachable.value.code == 32


@needs_mosquitto
@pytest.mark.slow("waits for a link that comes and goes", seconds=5)
def test_an_ingester_that_waits_says_why_and_again_when_the_reason_changes(
    tmp_path: Path, base: Base, guarded: broker.Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "fleet.db"
    make_registry(path, base).close()
    word(tmp_path, "guess")
    guarded.stop()
    asked = parse_broker(f"mqtt://centre@127.0.0.1:{guarded.port}", password_file=tmp_path / "secret")
    ingester = Ingester(path, RECEIPT, MqttTransport(asked, fleet=FLEET, client_id="centre"), pace=Pace(), synchronous="OFF")
    running = threading.Thread(target=ingester.run)
    running.start()
    try:
        until(lambda: "connection refused" in caplog.text, 60)
        until(lambda: "connection refused" in says(path), 60)
        guarded.start()
        until(lambda: "wrong password" in caplog.text, 60)
        until(lambda: "wrong password" in says(path), 60)
    finally:
        ingester.stop()
        running.join(60)
    assert caplog.text.count("connection refused") == caplog.text.count("wrong password") == 1
    assert holder(path) is None, "who ended says nothing more"


def says(path: Path) -> str:
    found = holder(path)
    return found.says if found is not None else ""


@needs_mosquitto
def test_the_session_of_an_ingester_that_is_connected_is_let_alone(desk: Desk, tmp_path: Path) -> None:
    desk.ok("init")
    with broker.mosquitto(tmp_path) as b, lock_registry(desk.folder / "fleet.db") as held:
        held.tell(f"connected to {b.url}")
        before = b.log.read_text().count("New client connected")
        found = checks(desk, "--broker", b.url)
        assert found["broker-login"]["ok"] and "the ingester, process" in str(found["broker-login"]["found"])
        assert found["broker-trip"]["ok"] is None and b.log.read_text().count("New client connected") == before
        held.tell("connected to mqtt://elsewhere:1883")
        assert checks(desk, "--broker", b.url)["broker-trip"]["ok"], "that is another broker"
        held.tell("no link: connection refused")
        found = checks(desk, "--broker", b.url)
        assert found["broker-trip"]["ok"] and found["ingester"]["ok"] is False and "refused" in str(found["ingester"]["found"])
    assert "ingester" not in checks(desk, "--broker", "mqtt://127.0.0.1:1")


def test_a_board_of_another_fleet_of_this_name_is_named_in_devices_and_doctor(desk: Desk, base: Base) -> None:
    make_registry(desk.folder / "fleet.db", base).close()
    assert "another fleet" not in desk.ok("devices")
    store = open_registry(desk.folder / "fleet.db")
    centre, stranger = Centre(store, now=int(time.time())), ScriptedDevice(base, name="pi-8")
    stranger.fleet_id = bytes(16)
    centre.take(stranger.hello())
    assert "give both sides the same fleet.pub" in store.refusals.last(1)[0].reason
    store.close()
    assert "pi-8 speaks for another fleet of this name" in desk.ok("devices")
    assert "pi-8 speaks for another fleet" in str(checks(desk, "--broker", "mqtt://127.0.0.1:1")["waiting"]["found"])



def test_a_fleet_pub_that_is_not_this_registrys_is_named(desk: Desk, tmp_path: Path) -> None:
    desk.ok("init")
    away = ("--broker", "mqtt://127.0.0.1:1")
    assert checks(desk, *away)["fleet-key"]["ok"]
    (tmp_path / "other").mkdir()
    desk.ok("init", "--db", str(tmp_path / "other" / "fleet.db"))
    ours, file = (desk.folder / "fleet.pub").read_text(), desk.folder / "fleet.pub"
    flipped = ours.replace(ours.split(":")[1][:4], "0000", 1)
    others = (tmp_path / "other" / "fleet.pub").read_text()
    for text, said in ((others, "is of another fleet"), (flipped, "a root key that this fleet never had")):
        file.write_text(text)
        found = checks(desk, *away)["fleet-key"]
        assert found["ok"] is False and said in str(found["found"]) and "put back" in str(found["fix"])
    for text in ("", "no key\n", "\udcff"):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert checks(desk, *away)["fleet-key"]["ok"] is False
    file.unlink()
    assert checks(desk, *away)["fleet-key"]["ok"], "it may lie elsewhere"


def test_an_ingester_that_can_not_say_how_its_link_is_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with lock_registry(tmp_path / "fleet.db") as held:
        held.tell("connecting")
        assert says(tmp_path / "fleet.db") == "connecting"
        with monkeypatch.context() as changed:
            changed.setattr("edgecloud.registry.lock.os.write", full)
            held.tell("no link: x")
    assert holder(tmp_path / "fleet.db") is None


@needs_mosquitto
def test_answers_that_the_access_list_holds_back_are_named_by_the_ingester_and_doctor(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk.ok("init", "--fleet", FLEET)
    path, access = desk.folder / "fleet.db", tmp_path / "acl"
    access.write_text("topic read #\ntopic write e1/+/+/+/up/#\n")
    access.chmod(0o644)
    b = broker.Mosquitto(tmp_path / "b")
    b._config.write_text(f"{b._config.read_text()}acl_file {access}\n")
    b.start()
    link = MqttTransport(parse_broker(b.url), fleet=FLEET, client_id="centre")
    with caplog.at_level(logging.INFO, "edgecloud"):
        ingester = Ingester(path, load_key(desk.folder / "receipt.key", KeyKind.RECEIPT_PRIVATE), link, synchronous="OFF")
        running = threading.Thread(target=ingester.run)
        running.start()
        try:
            until(lambda: says(path) == f"connected to {b.url}")
            for _ in range(2):
                link.publish(f"e1/{FLEET}/pi-7/digits/dn/receipt", b"said")
            until(lambda: "does not let a client without a user name speak on e1/orchard/+/+/dn/#" in says(path))
            found = checks(desk, "--broker", b.url)
        finally:
            ingester.stop()
            running.join(60)
            b.stop()
    assert found["broker-login"]["ok"] and found["ingester"]["ok"] is False and "speak on" in str(found["ingester"]["found"])
    assert caplog.text.count("speak on e1/orchard") == 1


def test_a_private_key_that_is_open_to_others_is_named_whoever_uses_it(desk: Desk) -> None:
    desk.ok("init")
    assert checks(desk, "--broker", "mqtt://127.0.0.1:1")["private"]["ok"]
    (desk.folder / "command.key").chmod(0o644)
    found = checks(desk, "--broker", "mqtt://127.0.0.1:1")["private"]
    assert found["ok"] is False and "command.key" in str(found["found"]) and str(found["fix"]).startswith("chmod 600")


@pytest.mark.parametrize("begin", [b"age-encryption.org/v1\n", b"listener 1884\n"], ids=["encrypted", "another"])
def test_a_file_that_is_no_registry_is_never_said_to_be_restored_over(desk: Desk, begin: bytes) -> None:
    (desk.folder / "monday.age").write_bytes(begin + b"x" * 2000)
    (desk.folder / "monday.age").chmod(0o600)
    said = desk.error("verify", "--db", "monday.age")
    assert said["error"] == "RegistryDamaged" and "--db" in said["hint"] and "BACKUP --db" not in said["hint"]  # type: ignore[operator]
