"""A real mosquitto for tests: `with broker.mosquitto(tmp_path) as b:` gives b.url, b.port, b.kill() and b.start()."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 150.0  # a safety limit: it starts in a few hundredths of one
PORTS = 500  # of each worker
_handed = itertools.count(os.getpid())  # elsewhere in each run: several may go on at once
MISSING = "mosquitto is not on this machine: apt-get install mosquitto"


def program() -> str | None:
    """Return the path of mosquitto, None when it is not installed. Debian keeps it out of an ordinary user's PATH."""
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no other worker of the same run is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    # Below 32768, where the kernel picks none by itself: one of those may be anyone's before it is listened on here.
    first = 20000 + PORTS * (worker % 24)
    for _ in range(PORTS):
        port = first + next(_handed) % PORTS
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"all ports from {first} to {first + PORTS} are taken")


class Mosquitto:
    """One broker process on a loopback port that stays the same over kills. It keeps nothing on disk."""

    def __init__(self, folder: Path, port: int | None = None, *, queue: int = 100_000, largest: int = 262144) -> None:
        """queue: messages that it holds for a client that does not take them; what is more it drops. largest: bytes of a packet; 0: any."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port if port is not None else free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.log = folder / "mosquitto.log"
        self._config = folder / "mosquitto.conf"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "persistence false",
            "max_inflight_messages 200",  # at least one batch of the ingester
            f"max_queued_messages {queue}",
            *([f"max_packet_size {largest}"] if largest else []),
            "log_type error",
            "log_type warning",
            "log_type notice",
        ]
        if os.geteuid() == 0:
            lines.append("user root")  # it would change to a user that can't read this folder
        self._config.write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it answers. A broker that was killed starts with nothing in memory."""
        assert self._process is None, "it runs already"
        path = program()
        assert path is not None, MISSING
        with self.log.open("ab") as log:
            self._process = subprocess.Popen([path, "-c", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise RuntimeError(f"mosquitto ended at once: {self.log.read_text()[-2000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"mosquitto does not answer on port {self.port}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in peace, if it runs."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def mosquitto(folder: Path, port: int | None = None, *, queue: int = 100_000, largest: int = 262144) -> Iterator[Mosquitto]:
    """Run a broker for the time of a `with` block; its files lie in `folder`/broker. queue, largest: as of `Mosquitto`."""
    broker = Mosquitto(folder / "broker", port, queue=queue, largest=largest)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
