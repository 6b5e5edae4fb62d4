"""The host's side of a boot: a real mosquitto, a registry, the ingester, and an ear that notes what the centre has answered."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from modelwire.errors import ModelWireError
from modelwire.wire import records, topics
from modelwire.wire.records import Receipt

FLEET, DEVICE, MODEL = "trial", "board-1", "digits"
START_SECONDS = 60.0  # a safety limit


@dataclass(frozen=True, slots=True)
class Answer:
    """One receipt of the centre. at: Unix seconds when it was heard."""

    at: float
    level: str
    version: int
    commit: str


class Centre:
    """Broker, registry and ingester under one folder, which may be there from before. `with Centre(folder) as centre:`"""

    def __init__(self, folder: Path, model: Path) -> None:
        """model: the base that the boards learn from."""
        self.folder, self.base, self.port = folder, model, _free_port()
        self.db = folder / "fleet.db"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.db.exists():
            self.ask("init", "--fleet", FLEET)
            self.ask("bases", "add", str(model), "--name", MODEL, "--no-rehearse")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._heard: list[Answer] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Centre:
        url = f"mqtt://127.0.0.1:{self.port}"
        path = shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
        if path is None:
            raise RuntimeError("mosquitto is not here: apt-get install mosquitto")
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", "max_packet_size 262144"]
        (self.folder / "mosquitto.conf").write_text("\n".join([*lines, *(["user root"] if os.geteuid() == 0 else [])]) + "\n")
        try:
            self._start("mosquitto", [path, "-c", str(self.folder / "mosquitto.conf")])
            self._until_open()
            words = ["ingest", "--db", str(self.db), "--broker", url, "--resend", "5", "--workers", "0"]
            self._start("ingester", [sys.executable, "-m", "edgecloud", *words])
            self._listen()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if hasattr(self, "_ear"):
            self._ear.loop_stop()
            self._ear.disconnect()
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, *words: str) -> Any:
        """Run an `edgecloud` command, and return its JSON document. Raises RuntimeError with what it said."""
        command = [sys.executable, "-m", "edgecloud", *words, "--db", str(self.db), "--json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"edgecloud {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)

    def claim(self) -> Path:
        """Return a file with a token that lets one board in."""
        file = self.folder / "board.claim"
        file.unlink(missing_ok=True)
        self.ask("claim", "new", "--count", "1", "--expires", "1d", "-o", str(file))
        return file

    def answers(self, level: str = "verified") -> list[Answer]:
        """Return what was heard of one level, in order."""
        with self._lock:
            return [one for one in self._heard if one.level == level]

    def wait(self, count: int, seconds: float) -> Answer | None:
        """Return the count-th verified answer since the centre was started; None where it did not come within so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if len(found := self.answers()) >= count:
                return found[count - 1]
            time.sleep(0.2)
        return None

    def versions(self) -> list[dict[str, Any]]:
        """Return what the registry lists of the board's model, newest first; nothing before it was let in."""
        try:
            rows: list[dict[str, Any]] = self.ask("log", f"{DEVICE}/{MODEL}")["versions"]
        except RuntimeError:
            return []
        return rows

    def _start(self, name: str, words: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _until_open(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"mosquitto does not answer: {(self.folder / 'mosquitto.log').read_text()[-1000:]}")

    def _listen(self) -> None:
        ready = threading.Event()
        self._ear = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._ear.on_message = lambda client, data, message: self._hear(message)
        self._ear.on_subscribe = lambda *_: ready.set()
        self._ear.connect("127.0.0.1", self.port)
        self._ear.subscribe("#", 1)
        self._ear.loop_start()
        if not ready.wait(START_SECONDS):
            raise RuntimeError("the broker takes no subscription")

    def _hear(self, message: mqtt.MQTTMessage) -> None:
        try:
            if topics.parse(message.topic).leaf != "receipt":
                return
            said = records.parse(bytes(message.payload)).record
        except (ModelWireError, ValueError):
            return
        if isinstance(said, Receipt):
            with self._lock:
                self._heard.append(Answer(time.time(), said.level.value, said.version, said.commit.hex()))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port
