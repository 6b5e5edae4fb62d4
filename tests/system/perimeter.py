"""A mosquitto with exactly the files of `edgecloud broker config`, and what its tests hold in their hands: a CA, clients, enemies."""

from __future__ import annotations

import os
import queue
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests import broker
from tests.system.fleet import cloud

HOST, FLEET = "127.0.0.1", "demo"
LIMIT = 120.0  # seconds: a safety limit for a machine that hangs


@dataclass(frozen=True, slots=True)
class Papers:
    """A client's certificate and key, as files."""

    certificate: Path
    key: Path


class Perimeter:
    """A CA and a broker's folder, as an operator's commands made them, and the broker on top of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca, self.port = folder, folder / "ca", broker.free_port()
        self.url = f"mqtts://{HOST}:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.cloud("ca", "init", "--fleet", FLEET)
        self.cloud("ca", "issue", "--centre")
        self.cloud("broker", "config", "-o", str(folder / "broker"), "--host", HOST, "--port", str(self.port), "--bind", HOST)
        # What Debian's own mosquitto.conf would say: where messages are kept, and that what is below is read.
        user = "user root\n" if os.geteuid() == 0 else ""
        main = f"{user}persistence_location {folder}/broker/\nlog_dest stderr\ninclude_dir {folder}/broker/conf.d\n"
        (folder / "main.conf").write_text(main)
        self.log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def cloud(self, *arguments: str) -> Any:
        """Run a command of the centre that takes this CA, and return its JSON document."""
        return cloud(*arguments, "--ca-dir", str(self.ca))

    def start(self) -> None:
        path = broker.program()
        assert path is not None and self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([path, "-c", str(self.folder / "main.conf")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._answers()

    def reload(self) -> None:
        """Have it read its certificates and its list of revoked ones again, and return when it has."""
        assert self._process is not None
        before = self.log.read_bytes().count(b"Reloading config")
        self._process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.log.read_bytes().count(b"Reloading config") > before)
        self._answers()  # the signal is dealt with before the next connection is taken

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(LIMIT)

    def issue(self, name: str) -> Papers:
        """Have a certificate issued to a device, whose key is made here."""
        key = self.folder / f"{name}.key"
        made = self.cloud("ca", "issue", name, "--make-key", str(key))
        certificate = self.folder / f"{name}.pem"
        certificate.write_bytes(Path(made["certificate"]).read_bytes())
        return Papers(certificate, key)

    @property
    def centre(self) -> Papers:
        return Papers(self.ca / "issued" / "CENTRE.pem", self.ca / "issued" / "CENTRE.key")

    def _answers(self) -> None:
        import socket

        def open_port() -> bool:
            assert self._process is not None and self._process.poll() is None, self.log.read_text()[-2000:]
            try:
                socket.create_connection((HOST, self.port), timeout=5).close()
            except OSError:
                return False
            return True

        wait_for(open_port)


@contextmanager
def perimeter(folder: Path, access: str = "") -> Iterator[Perimeter]:
    """Run a broker with the shipped files for the time of a `with` block. access: another access list than the shipped one."""
    made = Perimeter(folder)
    if access:
        (folder / "broker" / "acl").write_text(access)
    made.start()
    try:
        yield made
    finally:
        made.stop()


class Client:
    """One connection that writes down all that comes, and whether it was ever put off."""

    def __init__(
        self, at: Perimeter, papers: Papers | None, client_id: str, *, ca: Path | None = None, five: bool = True, clean: bool = True,
        will: str = "", context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.name = client_id
        self.received: list[tuple[str, bytes]] = []
        self.lost: list[str] = []
        self._at, self._connected, self._changed = at, queue.SimpleQueue[str](), threading.Condition()
        self._subscribed = queue.SimpleQueue[None]()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5 if five else mqtt.MQTTv311,
            clean_session=None if five else clean, reconnect_on_failure=False,
        )  # fmt: skip
        if context is None:
            context = ssl.create_default_context(cafile=ca or at.ca / "ca.pem")
            if papers is not None:
                context.load_cert_chain(papers.certificate, papers.key)
        self._client.tls_set_context(context)
        if will:
            self._client.will_set(will, b"enemy: will", qos=1, retain=True)
        self._client.on_connect = lambda _c, _d, flags, code, _p: self._connected.put("" if not code.is_failure else str(code))
        self._client.on_disconnect = self._on_lost
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.put(None)
        self._five, self._clean = five, clean

    def connect(self) -> bool:
        """Return whether the broker let it in."""
        more: dict[str, Any] = {}
        if self._five:
            wish = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            wish.SessionExpiryInterval = 0 if self._clean else 3600
            more = {"clean_start": self._clean, "properties": wish}
        try:
            self._client.connect(HOST, self._at.port, 60, **more)
        except (OSError, ssl.SSLError):
            return False
        self._client.loop_start()
        return self._connected.get(timeout=LIMIT) == ""

    def listen(self, *filters: str) -> None:
        for one in filters:
            self._client.subscribe(one, qos=1)
            self._subscribed.get(timeout=LIMIT)

    def say(self, topic: str, data: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, data, qos=1, retain=retain)

    def heard(self, data: bytes) -> None:
        """Wait until a message of this content has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(d == data for _, d in self.received), LIMIT), f"{self.name} never heard {data!r}"

    def wait_lost(self) -> None:
        """Wait until the broker has put it off."""
        wait_for(lambda: self.lost)

    def break_off(self) -> None:
        """End the connection without a word, so that its will is spoken."""
        self._client.on_disconnect = None
        sock = self._client.socket()
        assert sock is not None
        sock.close()
        self._client.loop_stop()

    def leave(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _on_lost(self, _c: Any, _d: Any, _flags: Any, reason: Any, _p: Any) -> None:
        self.lost.append(str(reason))
        self._connected.put(str(reason))  # of one that was never let in

    def _on_message(self, _c: Any, _d: Any, message: mqtt.MQTTMessage) -> None:
        with self._changed:
            self.received.append((message.topic, bytes(message.payload)))
            self._changed.notify_all()


def wait_for(reached: Any, seconds: float = LIMIT) -> None:
    """Wait until it is reached. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
