"""A look at a broker names the step that fails, in bounded time, and touches nobody's session."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgecommon.broker import NO_CERTIFICATES, Broker, Certificates
from edgecommon.mqtt_packets import MqttVersion
from edgecommon.probing import Found, LookWish, look
from edgecommon.reaching import BOARD
from tests import broker
from tests.certificates import DAY, Authority

needs_mosquitto = pytest.mark.skipif(broker.program() is None or which("mosquitto_passwd") is None, reason=broker.MISSING)
FOUR = (MqttVersion.FOUR,)
HERE = "127.0.0.1"
OPEN = "allow_anonymous true"
SAFETY = 60.0  # seconds


def looked(at: Broker, **changes: object) -> dict[str, Found]:
    """Return what a look as the board pi-7 of the fleet home finds, by step."""
    given: dict[str, object] = {
        "listen": ("e1/home/pi-7/+/dn/#", "e1/home/all/all/dn/trust"), "speak": "e1/home/pi-7/m/up/state",
        "echo": "e1/home/all/all/dn/look", "session": 3600, "seconds": 20.0,
    }  # fmt: skip
    found = look(LookWish(at, BOARD, "home.pi-7", **{**given, **changes}), at.certificates.context)  # type: ignore[arg-type]
    assert [one.step for one in found] == [s for s in ("name", "port", "TLS", "login", "session", "access", "trip") if s in by_step(found)]
    failed = [one for one in found if one.ok is False]
    assert len(failed) <= 1 and all(one.fix for one in failed), "each fault says what to do"
    return by_step(found)


def by_step(found: list[Found]) -> dict[str, Found]:
    return {one.step: one for one in found}


def fault(found: dict[str, Found]) -> Found:
    (one,) = (f for f in found.values() if f.ok is False)
    return one


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[broker.Mosquitto]:
    """Run a broker with these lines in place of the one that lets everybody in."""
    made = broker.Mosquitto(folder / "broker")
    made._config.write_text(made._config.read_text().replace(OPEN, "\n".join(lines)))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[broker.Mosquitto]:
    """A broker with a password for pi-7 and an access list as `edgecloud broker config` writes it."""
    words, access = tmp_path / "words", tmp_path / "acl"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(words), "pi-7", "hush"], check=True, capture_output=True)
    access.write_text("pattern write e1/home/%u/+/up/#\npattern read e1/home/%u/+/dn/#\npattern read e1/home/all/all/dn/trust\n")
    for file in (words, access):
        file.chmod(0o644)
    with mosquitto(tmp_path, "allow_anonymous false", f"password_file {words}", f"acl_file {access}") as made:
        yield made


@needs_mosquitto
@pytest.mark.parametrize("versions", [(MqttVersion.FIVE, MqttVersion.FOUR), FOUR], ids=["5", "3.1.1"])
def test_on_an_open_broker_every_step_is_gone_and_a_message_comes_back(tmp_path: Path, versions: tuple[MqttVersion, ...]) -> None:
    with broker.mosquitto(tmp_path) as b:
        found = looked(Broker(HERE, b.port), versions=versions)
    assert list(found) == ["name", "port", "login", "access", "trip"] and all(one.ok for one in found.values())
    assert f"MQTT {versions[0].said}" in found["login"].text and "a message came back" in found["trip"].text


@needs_mosquitto
@pytest.mark.slow("waits for a message that the access list holds back", seconds=3)
@pytest.mark.parametrize("versions", [(MqttVersion.FIVE, MqttVersion.FOUR), FOUR], ids=["5", "3.1.1"])
def test_a_wrong_a_missing_and_a_forgotten_password_are_told_apart(guarded: broker.Mosquitto, versions: tuple[MqttVersion, ...]) -> None:
    good = looked(Broker(HERE, guarded.port, "pi-7", "hush"), versions=versions)
    assert good["login"].ok and good["access"].ok and "as pi-7" in good["login"].text
    assert good["trip"].ok is None and "access list" in good["trip"].text, "nobody may hear what it says itself"
    for user, password, said in (
        ("pi-7", "guess", "wrong password for the user pi-7"), ("pi-7", "", "is sent without a password"), ("", "", "none is set"),
    ):  # fmt: skip
        one = fault(looked(Broker(HERE, guarded.port, user, password), versions=versions))
        assert one.step == "login" and said in one.text and "link.password_file" in one.fix and "guess" not in one.text + one.fix


@needs_mosquitto
@pytest.mark.slow("waits for a message that the access list holds back", seconds=3)
def test_a_topic_that_the_access_list_does_not_give_is_named(guarded: broker.Mosquitto) -> None:
    at = Broker(HERE, guarded.port, "pi-7", "hush")
    one = fault(looked(at, speak="e1/barn/pi-7/m/up/state"))
    assert one.step == "access" and "pi-7 speak on e1/barn/pi-7/m/up/state" in one.text and "access list" in one.fix
    old = looked(at, speak="e1/barn/pi-7/m/up/state", versions=FOUR)["access"]
    assert "no broker says in MQTT 3.1.1" in old.text, "what can't be known is not said to be well"


@needs_mosquitto
@pytest.mark.slow("looks at a broker six times, and waits for what it says after a handshake", seconds=2)
def test_tls_is_told_apart_by_what_is_wrong_with_it(tmp_path: Path) -> None:
    ca, other = Authority(tmp_path), Authority(tmp_path, "other")
    shown = ca.issue(HERE)
    server_files = [shown.certificate.rename(tmp_path / "broker.pem"), shown.key.rename(tmp_path / "broker.key")]
    own = ca.issue("pi-7", client=True)
    papers = Certificates(ca.file, own.certificate.rename(tmp_path / "own.pem"), own.key.rename(tmp_path / "own.key"))
    strange = other.issue("pi-7", client=True)
    lines = [f"cafile {ca.file}", f"certfile {server_files[0]}", f"keyfile {server_files[1]}", "require_certificate true"]
    with mosquitto(tmp_path, OPEN, *lines) as b:
        good = looked(Broker(HERE, b.port, tls=True, certificates=papers))
        assert all(one.ok for one in good.values()) and "TLSv1" in good["TLS"].text and "good until" in good["TLS"].text
        for certificates, host, said, todo in (
            (NO_CERTIFICATES, HERE, "not believed", "link.tls_ca"),
            (Certificates(other.file, papers.own, papers.key), HERE, "not believed", "link.tls_ca"),
            (papers, "localhost", "not valid for 'localhost'", "link.broker"),
            (Certificates(ca.file), HERE, "asks for a client certificate", "link.tls_cert"),
            (Certificates(ca.file, strange.certificate, strange.key), HERE, "refuses TLS", "link.tls_cert"),
        ):
            one = fault(looked(Broker(host, b.port, tls=True, certificates=certificates)))
            assert one.step == "TLS" and said in one.text and todo in one.fix, one
        one = fault(looked(Broker(HERE, b.port)))
        assert one.step == "TLS" and "speaks TLS" in one.text and "mqtts://" in one.fix


@needs_mosquitto
def test_a_port_without_tls_is_told_from_one_that_is_no_broker(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        one = fault(looked(Broker(HERE, b.port, tls=True)))
    assert one.step == "TLS" and "speaks MQTT without TLS" in one.text


@needs_mosquitto
def test_a_certificate_that_ended_is_named_for_the_broker_and_for_the_client(tmp_path: Path) -> None:
    ca = Authority(tmp_path)
    for who in ("broker", "own"):
        ended = {"since": -2 * DAY, "until": -DAY / 24}
        shown = ca.issue(HERE, **(ended if who == "broker" else {}))
        files = [shown.certificate.rename(tmp_path / "broker.pem"), shown.key.rename(tmp_path / "broker.key")]
        own = ca.issue("pi-7", client=True, **(ended if who == "own" else {}))
        lines = [f"cafile {ca.file}", f"certfile {files[0]}", f"keyfile {files[1]}", "require_certificate true"]
        with mosquitto(tmp_path / who, OPEN, *lines) as b:
            one = fault(looked(Broker(HERE, b.port, tls=True, certificates=Certificates(ca.file, own.certificate, own.key))))
        assert one.step == "TLS" and "expired" in one.text and ("clock" if who == "broker" else "edgecloud ca list") in one.fix, one


def test_a_name_that_is_none_and_a_port_at_which_nobody_listens() -> None:
    for host in ("nosuch.invalid", "a" * 70 + ".example"):
        one = fault(looked(Broker(host, 1883)))
        assert one.step == "name" and host in one.text
    one = fault(looked(Broker(HERE, broker.free_port())))
    assert one.step == "port" and "refused" in one.text


class Odd:
    """A listener that says these bytes to each connection, one after the other where `drip` is set, and then nothing."""

    def __init__(self, says: bytes | None, *, drip: float = 0.0) -> None:
        self._says, self._drip, self._open = says, drip, [socket.create_server((HERE, 0))]
        self._done = threading.Event()
        self.port: int = self._open[0].getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._done.set()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        while not self._done.is_set():
            with suppress(OSError):
                one, _ = self._open[0].accept()
                self._open.append(one)
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with suppress(OSError):
            if self._says is None:
                one.recv(1000)
                one.close()
                return
            if self._says:
                one.recv(1000)
            for i in range(len(self._says)):
                one.sendall(self._says[i : i + 1] if self._drip else self._says)
                if not self._drip or self._done.wait(self._drip):
                    return


@pytest.mark.slow("waits for brokers that say nothing", seconds=2)
@pytest.mark.parametrize(
    ("says", "drip", "step", "said"),
    [
        (None, 0.0, "login", "hangs up without an answer in MQTT"),
        (b"", 0.0, "login", "has not answered in MQTT for 0.3 s"),
        (b"\x20\x03\x00\x00\x00" * 9, 0.2, "login", "has not answered in MQTT"),
        (b"\x20\xff\xff\xff\x7f" + b"x" * 90, 0.0, "login", "something else than MQTT"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.0, "login", "speaks HTTP"),
        (bytes(range(200, 250)), 0.0, "login", "something else than MQTT"),
        (b"\x15\x03\x01\x00\x02\x02\x46", 0.0, "TLS", "speaks TLS"),
        (b"\x20\x02\x00\x02", 0.0, "login", "takes no client id"),
        (b"\x20\x02\x00\x03", 0.0, "login", "not available now"),
        (b"\x20\x02\x00\x04", 0.0, "login", "bad user name or password"),
        (b"\x20\x02\x00\x05", 0.0, "login", "not authorized"),
        (b"\x20\x02\x00\x01", 0.0, "login", "another version of MQTT"),
        (b"\x20\x03\x00\x8a\x00", 0.0, "login", "banned"),
        (b"\x20\x03\x00\x00\x00", 0.0, "access", "lets this client in and then says nothing more"),
        (b"\x20\x03\x00\x00\x00\xe0\x02\x8e\x00", 0.0, "session", "taken over"),
        (b"\x20\x08\x00\x00\x05\x27\x00\x00\x01\x00", 0.0, "login", "no packet above 256 bytes"),
        (b"\x20\x05\x00\x00\x02\x24\x00", 0.0, "login", "QoS 0 alone"),
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else None,
)
def test_a_broker_that_says_odd_things_or_nothing_is_named_in_bounded_time(says: bytes | None, drip: float, step: str, said: str) -> None:
    odd, began = Odd(says, drip=drip), time.monotonic()
    try:
        found = look(
            LookWish(Broker(HERE, odd.port), BOARD, "home.pi-7", ("a/#",), "b", "c", 60, seconds=0.3), NO_CERTIFICATES.context
        )  # fmt: skip
    finally:
        odd.close()
    one = next(f for f in found if f.ok is False)
    assert (one.step, said in one.text) == (step, True), one
    assert time.monotonic() - began < SAFETY


@pytest.mark.slow("waits for brokers that say nothing", seconds=1)
@pytest.mark.parametrize(
    "says", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(range(100, 190))], ids=["hangs up", "silent", "HTTP", "noise"]
)
def test_what_speaks_no_tls_is_named_in_bounded_time(says: bytes | None) -> None:
    odd, began = Odd(says), time.monotonic()
    try:
        found = look(
            LookWish(Broker(HERE, odd.port, tls=True), BOARD, "home.pi-7", ("a/#",), "b", "c", 60, seconds=0.3), NO_CERTIFICATES.context
        )  # fmt: skip
    finally:
        odd.close()
    assert fault(by_step(found)).step == "TLS" and time.monotonic() - began < SAFETY


class Client:
    """A client of a persistent session, as an agent has."""

    def __init__(self, port: int, client_id: str, user: str = "", word: str = "") -> None:
        self.lost, self.there, self.got = threading.Event(), False, threading.Event()
        self._up = threading.Event()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5, reconnect_on_failure=False)
        if user:
            self.paho.username_pw_set(user, word)
        self.paho.on_connect = self._on_connect
        self.paho.on_subscribe = lambda *_: self._up.set()
        self.paho.on_disconnect = lambda *_: self.lost.set()
        self.paho.on_message = lambda *_: self.got.set()
        wish = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wish.SessionExpiryInterval = 3600
        self.paho.connect(HERE, port, clean_start=False, properties=wish)
        self.paho.loop_start()
        assert self._up.wait(SAFETY)

    def _on_connect(self, client: paho.Client, _data: object, flags: paho.ConnectFlags, _code: object, _more: object) -> None:
        self.there = flags.session_present
        client.subscribe("e1/home/pi-7/+/dn/#", qos=1)

    def leave(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@needs_mosquitto
def test_a_look_puts_off_nobody_who_has_the_clients_own_id(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        agent = Client(b.port, "home.pi-7")
        assert looked(Broker(HERE, b.port), free=True)["trip"].ok
        agent.paho.publish("e1/home/pi-7/m/dn/cmd", b"still here", qos=1)
        assert agent.got.wait(SAFETY) and not agent.lost.is_set()
        agent.leave()


@needs_mosquitto
def test_where_a_broker_binds_the_id_to_the_user_a_session_and_what_waits_in_it_stay(tmp_path: Path, guarded: broker.Mosquitto) -> None:
    guarded.stop()
    guarded._config.write_text(guarded._config.read_text() + "\nuse_username_as_clientid true\n")
    access = tmp_path / "acl"
    access.write_text(access.read_text() + "user centre\ntopic readwrite e1/#\n")
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "words"), "centre", "hush"], check=True, capture_output=True)
    guarded.start()
    Client(guarded.port, "home.pi-7", "pi-7", "hush").leave()
    centre = Client(guarded.port, "centre", "centre", "hush")
    info = centre.paho.publish("e1/home/pi-7/m/dn/cmd", b"waits", qos=1)
    info.wait_for_publish(SAFETY)
    found = looked(Broker(HERE, guarded.port, "pi-7", "hush"))
    assert found["login"].ok and found["access"].ok
    back = Client(guarded.port, "home.pi-7", "pi-7", "hush")
    assert back.there and back.got.wait(SAFETY), "the session of before is there, and the message comes"
    for one in (back, centre):
        one.leave()


@needs_mosquitto
@pytest.mark.slow("waits for a message that the access list holds back", seconds=3)
def test_a_centre_that_may_not_hear_itself_hears_what_the_broker_kept_of_boards(tmp_path: Path, guarded: broker.Mosquitto) -> None:
    guarded.stop()
    access = tmp_path / "acl"
    access.write_text(access.read_text() + "user centre\ntopic read e1/home/+/+/up/#\ntopic write e1/home/+/+/dn/#\n")
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "words"), "centre", "hush"], check=True, capture_output=True)
    guarded.start()
    as_centre = {"listen": ("e1/home/+/+/up/#",), "speak": "e1/home/all/all/dn/cmd", "heard": "; nobody was heard"}
    at = Broker(HERE, guarded.port, "centre", "hush")
    found = looked(at, **as_centre)
    assert found["access"].ok and found["trip"].ok is None and "nobody was heard" in found["trip"].text
    board = Client(guarded.port, "home.pi-7", "pi-7", "hush")
    board.paho.publish("e1/home/pi-7/m/up/state", b"here", qos=1, retain=True).wait_for_publish(SAFETY)
    found = looked(at, **as_centre)
    assert found["trip"].ok and "e1/home/pi-7/m/up/state" in found["trip"].text
    board.leave()


def test_a_broker_that_takes_one_id_alone_is_asked_with_it_only_when_nobody_uses_it() -> None:
    asked: list[bytes] = []
    listener = socket.create_server((HERE, 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                with one, suppress(OSError):
                    said = one.recv(1000)
                    if said:  # a connection that only asks whether the port is open says nothing
                        asked.append(said)
                        one.sendall(b"\x20\x03\x00" + (b"\x00" if said.endswith(b"\x00\x09home.pi-7") else b"\x85") + b"\x00")

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    wish = LookWish(Broker(HERE, port), BOARD, "home.pi-7", ("a/#",), "b", "c", 60, seconds=5.0)
    assert fault(by_step(look(wish, NO_CERTIFICATES.context))).step == "login" and len(asked) == 1
    free = LookWish(Broker(HERE, port), BOARD, "home.pi-7", ("a/#",), "b", "c", 60, seconds=5.0, free=True)
    assert by_step(look(free, NO_CERTIFICATES.context))["login"].ok and len(asked) == 3
    listener.close()
