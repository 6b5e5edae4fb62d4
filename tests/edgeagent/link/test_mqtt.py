"""The MQTT link, over a real mosquitto and over sockets that behave badly."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeagent.link import looking
from edgeagent.link.mqtt import MqttLink, parse_broker
from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Lost, Will, Woken
from edgeagent.settings.tree import LinkSettings
from edgecommon.probing import Found
from modelwire import limits
from modelwire.errors import BadArgument, ConfigError, LinkError, MissingFile, TooLarge
from tests import broker

needs_mosquitto = pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
WILL = Will("e1/home/pi-7/m/up/state", b"gone")
LISTEN = "e1/home/pi-7/+/dn/#"


@contextmanager
def opened(settings: LinkSettings, folder: Path, client: str = "pi-7", listen: str = LISTEN, will: Will = WILL) -> Iterator[MqttLink]:
    made = MqttLink(settings, folder, client)
    made.open(will, [listen])
    try:
        yield made
    finally:
        made.close()


def wait(made: MqttLink, kind: type[Event], seconds: float = 150.0) -> Event:
    """Return the next event of this kind; others are passed over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        event = made.poll(0.5)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} within {seconds} s")


def quick(url: str, **changes: object) -> LinkSettings:
    return LinkSettings(broker=url, reconnect_min=0.05, reconnect_max=0.3, connect_timeout=20.0, keepalive=60.0, **changes)  # type: ignore[arg-type]


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_messages_go_both_ways_and_come_again_until_they_are_acknowledged(tmp_path: Path, protocol: str) -> None:
    with broker.mosquitto(tmp_path) as b:
        settings = quick(b.url, protocol=protocol)
        with (
            opened(quick(b.url), tmp_path, "centre", "e1/home/+/+/up/#", Will("x", b"")) as centre,
            opened(settings, tmp_path) as device,
        ):
            wait(centre, Connected)
            wait(device, Connected)
            ticket = device.send("e1/home/pi-7/m/up/update", b"delta")
            assert wait(device, Accepted) == Accepted(ticket)
            got = wait(centre, Arrived)
            assert isinstance(got, Arrived) and (got.topic, got.data) == ("e1/home/pi-7/m/up/update", b"delta")
            centre.acknowledge(got)
            centre.send("e1/home/pi-7/m/dn/receipt", b"stored")
            first = wait(device, Arrived)
            assert isinstance(first, Arrived) and first.data == b"stored"
        with opened(settings, tmp_path) as device:
            again = wait(device, Arrived)
            assert isinstance(again, Arrived) and again.data == b"stored", "it was never acknowledged"
            device.acknowledge(again)
        with opened(settings, tmp_path) as device:
            wait(device, Connected)
        with opened(quick(b.url), tmp_path, "centre", "none", Will("x", b"")) as centre:
            wait(centre, Connected)
            centre.send("e1/home/pi-7/m/dn/receipt", b"verified")
            wait(centre, Accepted)
        with opened(settings, tmp_path) as device:
            last = wait(device, Arrived)
            assert isinstance(last, Arrived) and last.data == b"verified", "what was acknowledged does not come before it"


@needs_mosquitto
def test_what_was_said_while_the_device_was_away_is_waiting_for_it(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        with opened(quick(b.url), tmp_path) as device:
            wait(device, Connected)
        with opened(quick(b.url), tmp_path, "centre", "none", Will("x", b"")) as centre:
            wait(centre, Connected)
            centre.send("e1/home/pi-7/m/dn/cmd", b"snapshot")
            wait(centre, Accepted)
        with opened(quick(b.url), tmp_path) as device:
            got = wait(device, Arrived)
            assert isinstance(got, Arrived) and got.data == b"snapshot"


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_device_hears_the_largest_part_that_a_centre_may_send(tmp_path: Path, protocol: str) -> None:
    with broker.mosquitto(tmp_path) as b, opened(quick(b.url, protocol=protocol), tmp_path) as device:
        wait(device, Connected)
        with opened(quick(b.url), tmp_path, "centre", "none", Will("x", b"")) as centre:
            wait(centre, Connected)
            centre.send(f"e1/home/pi-7/{'m' * 64}/dn/part", b"x" * limits.DEFAULT.part)
            got = wait(device, Arrived)
            assert isinstance(got, Arrived) and len(got.data) == limits.DEFAULT.part


@needs_mosquitto
def test_a_killed_broker_is_lost_and_found_again(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b, opened(quick(b.url), tmp_path) as device:
        for _ in range(3):
            wait(device, Connected)
            b.kill()
            wait(device, Lost)
            with pytest.raises(LinkError):
                device.send("e1/home/pi-7/m/up/update", b"x")
            b.start()
        wait(device, Connected)
        device.send("e1/home/pi-7/m/up/update", b"x")
        wait(device, Accepted)


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_device_hears_what_is_said_to_it_and_what_is_said_to_all(tmp_path: Path, protocol: str) -> None:
    with broker.mosquitto(tmp_path) as b, opened(quick(b.url), tmp_path, "centre", "e1/home/+/+/up/#", Will("x", b"")) as centre:
        wait(centre, Connected)
        device = MqttLink(quick(b.url, protocol=protocol), tmp_path, "pi-7")
        device.open(WILL, [LISTEN, "e1/home/all/all/dn/trust"])
        try:
            wait(device, Connected)
            heard = set()
            for topic in ("e1/home/pi-7/m/dn/cmd", "e1/home/all/all/dn/trust", "e1/home/pi-7/all/dn/trust"):
                centre.send(topic, b"x")
                got = wait(device, Arrived)
                assert isinstance(got, Arrived)
                device.acknowledge(got)
                heard.add(got.topic)
            assert len(heard) == 3
        finally:
            device.close()


@needs_mosquitto
def test_the_farewell_is_said_on_closing_and_the_will_when_the_process_dies(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b, opened(quick(b.url), tmp_path, "centre", "e1/home/+/+/up/#", Will("x", b"")) as centre:
        wait(centre, Connected)
        device = MqttLink(quick(b.url), tmp_path, "pi-7")
        device.open(WILL, [LISTEN])
        wait(device, Connected)
        device.close(Will(WILL.topic, b"bye"))
        got = wait(centre, Arrived)
        assert isinstance(got, Arrived) and got.data == b"bye"
        device = MqttLink(quick(b.url), tmp_path, "pi-7")
        device.open(WILL, [LISTEN])
        wait(device, Connected)
        assert device._client is not None
        sock = device._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)  # what the broker sees when a process is killed
        got = wait(centre, Arrived)
        assert isinstance(got, Arrived) and got.data == b"gone"
        device.close()


@needs_mosquitto
def test_a_message_that_the_broker_would_refuse_for_its_size_never_leaves(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b:
        text = b._config.read_text().replace("max_packet_size 262144", "max_packet_size 3000")
        b.stop()
        b._config.write_text(text)
        b.start()
        with opened(quick(b.url), tmp_path) as device:
            wait(device, Connected)
            assert device.largest < 3000, "the broker announced its limit"
            with pytest.raises(TooLarge):
                device.send("e1/home/pi-7/m/up/update", b"x" * 2990)
            device.send("e1/home/pi-7/m/up/update", b"x" * device.largest)
            wait(device, Accepted)
        b.stop()
        b._config.write_text(text.replace("max_packet_size 3000", "max_packet_size 1000"))
        b.start()
        with opened(quick(b.url), tmp_path) as device:
            lost = wait(device, Lost)
            assert isinstance(lost, Lost) and "no message above 1000 bytes" in lost.reason
    with pytest.raises(TooLarge):
        MqttLink(LinkSettings(), tmp_path, "pi-7").send("t", b"x" * (97 * 1024))


class Silent:
    """A broker of MQTT 3.1.1 alone. It meets version 5 with silence, as some do, or hangs up, as others do."""

    def __init__(self, hang_up: bool) -> None:
        self.versions: list[int] = []
        self._hang_up = hang_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        packet = connection.recv(1024)
        if not packet:
            return  # only a look whether somebody is there
        version = packet[8]  # after the fixed header of two bytes and the name of the protocol
        self.versions.append(version)
        if version == 5:
            if self._hang_up:
                connection.close()
            return
        connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
        subscribe = connection.recv(1024)
        connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x01")  # SUBACK
        connection.recv(1024)

    def close(self) -> None:
        self._listener.close()


@pytest.mark.slow("waits for a broker")
@pytest.mark.parametrize("hang_up", [False, True])
def test_a_broker_that_knows_no_version_5_is_spoken_to_in_3_1_1(tmp_path: Path, hang_up: bool) -> None:
    server = Silent(hang_up)
    with opened(LinkSettings(broker=server.url, reconnect_min=0.05, connect_timeout=0.5), tmp_path) as device:
        lost = wait(device, Lost)
        assert isinstance(lost, Lost) and lost.reason
        wait(device, Connected)
        assert server.versions == [5, 4]
    server.close()


def test_a_port_where_nobody_listens_is_tried_again_with_the_same_version(tmp_path: Path) -> None:
    port = broker.free_port()
    with opened(quick(f"mqtt://127.0.0.1:{port}"), tmp_path) as device:
        before = device.protocol
        for _ in range(3):
            lost = wait(device, Lost)
            assert isinstance(lost, Lost) and "refused" in lost.reason
        assert device.protocol == before


def test_waking_ends_a_wait_at_once(tmp_path: Path) -> None:
    made = MqttLink(LinkSettings(), tmp_path, "pi-7")
    threading.Timer(0.1, made.wake).start()
    assert isinstance(made.poll(500), Woken), "not the end of the wait, which is None"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://h", ("h", 1883, False)),
        ("mqtts://h", ("h", 8883, True)),
        ("mqtt://127.0.0.1:99", ("127.0.0.1", 99, False)),
        ("mqtt://[::1]:7", ("::1", 7, False)),
    ],
)
def test_a_broker_is_named_by_a_url(url: str, parts: tuple[str, int, bool]) -> None:
    b = parse_broker(url)
    assert (b.host, b.port, b.tls) == parts


@pytest.mark.parametrize("url", ["h:1883", "http://h", "mqtt://", "mqtt://h:x", "mqtt://h/path", "mqtt://user:secret@h", "mqtt://h:99999"])
def test_what_is_no_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"link\.broker"):
        parse_broker(url)


def test_passwords_and_certificates_come_from_files_that_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="password"):
        MqttLink(LinkSettings(user="u", password_file="no"), tmp_path, "pi-7")
    (tmp_path / "word").write_text("secret\n")
    (tmp_path / "word").chmod(0o600)
    assert MqttLink(LinkSettings(user="u", password_file="word"), tmp_path, "pi-7")._password == "secret"
    with pytest.raises(ConfigError, match="tls_ca"):
        MqttLink(LinkSettings(broker="mqtts://h", tls_ca="no.pem"), tmp_path, "pi-7")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_password_file_that_others_may_look_at_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "word").write_text("hush\n")
    (tmp_path / "word").chmod(mode)
    for use in (lambda s: MqttLink(s, tmp_path, "pi-7"), lambda s: looked(s, tmp_path)):
        with pytest.raises(ConfigError, match=r"link\.password_file.*may be read by others") as refused:
            use(LinkSettings(user="u", password_file="word"))
        assert refused.value.next_step == f"chmod 600 {tmp_path / 'word'}" and "hush" not in str(refused.value)


@needs_mosquitto
def test_tls_holds_with_the_right_authority_and_client_certificate_alone(tmp_path: Path) -> None:
    made = certificates(tmp_path, "127.0.0.1")
    b = broker.Mosquitto(tmp_path / "b")
    lines = [f"cafile {made}/ca.pem", f"certfile {made}/server.pem", f"keyfile {made}/server.key", "require_certificate true"]
    b._config.write_text(b._config.read_text() + "\n".join(lines) + "\n")
    b.start()
    try:
        tls = {"tls_ca": "ca.pem", "tls_cert": "device.pem", "tls_key": "device.key"}
        url = b.url.replace("mqtt:", "mqtts:")
        with opened(quick(url, **tls), tmp_path) as device:
            wait(device, Connected)
            device.send("e1/home/pi-7/m/up/update", b"x")
            wait(device, Accepted)
        with opened(quick(url, **{**tls, "tls_cert": "", "tls_key": ""}), tmp_path) as device:
            wait(device, Lost)
        (tmp_path / "other").mkdir()
        other = certificates(tmp_path / "other", "127.0.0.1")
        with opened(quick(url, **{**tls, "tls_ca": str(other / "ca.pem")}), tmp_path) as device:
            lost = wait(device, Lost)
            assert isinstance(lost, Lost) and "the broker's certificate is not believed" in lost.reason and "link.tls_ca" in lost.reason
        assert "TLSv1" in looked(quick(url, **tls), tmp_path)["TLS"].text
        refused = looked(quick(url, tls_ca="ca.pem"), tmp_path)["TLS"]
        assert refused.ok is False and "certificate required" in refused.text and "link.tls_cert" in refused.fix
        (tmp_path / "device.key").chmod(0o644)
        for use in (lambda s: MqttLink(s, tmp_path, "pi-7"), lambda s: looked(s, tmp_path)):
            with pytest.raises(BadArgument, match=r"link\.tls_key.*open to others") as open_key:
                use(quick(url, **tls))
            assert open_key.value.next_step == f"chmod 600 {tmp_path / 'device.key'}"
    finally:
        b.stop()


def certificates(folder: Path, host: str) -> Path:
    """Write an authority (ca.pem), and what it signed for a server at `host` and for a device."""
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.timezone.utc)
    keys = {who: ec.generate_private_key(ec.SECP256R1()) for who in ("ca", "server", "device")}
    names = {who: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{who} of a test")]) for who in keys}
    for who, key in keys.items():
        builder = x509.CertificateBuilder().subject_name(names[who]).issuer_name(names["ca"]).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        builder = builder.add_extension(x509.BasicConstraints(ca=who == "ca", path_length=None), critical=True)
        if who == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{who}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{who}.key").write_bytes(key.private_bytes(*plain))
        (folder / f"{who}.key").chmod(0o600)
    return folder


@needs_mosquitto
def test_user_and_password_open_a_broker_that_asks_for_them(tmp_path: Path) -> None:
    if which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not on this machine")
    words = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(words), "pi-7", "secret"], check=True, capture_output=True)
    words.chmod(0o644)
    for name, word in (("right", "secret"), ("wrong", "secrets")):
        (tmp_path / name).write_text(word)
        (tmp_path / name).chmod(0o600)
    b = broker.Mosquitto(tmp_path / "b")
    b._config.write_text(b._config.read_text().replace("allow_anonymous true", f"allow_anonymous false\npassword_file {words}"))
    b.start()
    try:
        with opened(quick(b.url, user="pi-7", password_file="right"), tmp_path) as device:
            wait(device, Connected)
        with opened(quick(b.url, user="pi-7", password_file="wrong", protocol="5"), tmp_path) as device:
            lost = wait(device, Lost)
            assert isinstance(lost, Lost) and "ot authorized" in lost.reason
    finally:
        b.stop()


def test_reaching_a_broker_says_how_or_why_not(tmp_path: Path) -> None:
    server = Silent(hang_up=True)
    found = looked(LinkSettings(broker=server.url, connect_timeout=0.5), tmp_path)
    assert "answers in" in found["port"].text and "MQTT 3.1.1" in found["login"].text, "it knows no MQTT 5"
    assert found["access"].ok is False and "answers 1 of 3 subscriptions" in found["access"].text
    server.close()
    found = looked(LinkSettings(broker=f"mqtt://127.0.0.1:{broker.free_port()}"), tmp_path)
    assert found["port"].ok is False and "refused" in found["port"].text and found["login"].ok is None


def looked(settings: LinkSettings, folder: Path) -> dict[str, Found]:
    return {one.step: one for one in looking.look(settings, folder, "home", "pi-7", "m")}


@needs_mosquitto
def test_a_session_that_another_client_takes_over_is_named_apart(tmp_path: Path) -> None:
    with broker.mosquitto(tmp_path) as b, opened(quick(b.url), tmp_path) as device:
        wait(device, Connected)
        for _ in range(3):  # mosquitto puts off without a word, so it takes some to be sure
            with opened(quick(b.url), tmp_path) as twin:
                wait(twin, Connected)
                lost = wait(device, Lost)
            wait(device, Connected)
        assert isinstance(lost, Lost) and lost.step == "session" and lost.refused
        assert "another client has the id pi-7" in lost.reason


def test_a_broker_that_says_that_a_session_was_taken_over_is_believed_at_once(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                s, _ = listener.accept()
                with s:
                    s.recv(4096)
                    s.sendall(b"\x20\x03\x00\x00\x00")
                    asked = s.recv(4096)
                    s.sendall(b"\x90\x04" + asked[2:4] + b"\x00\x01\xe0\x02\x8e\x00")
                    s.recv(4096)

    threading.Thread(target=serve, daemon=True).start()
    with opened(quick(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", protocol="5"), tmp_path) as device:
        lost = wait(device, Lost)
    listener.close()
    assert isinstance(lost, Lost) and lost.step == "session" and "session taken over" in lost.reason
