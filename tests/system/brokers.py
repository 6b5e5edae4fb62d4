"""A broker for the demo: mosquitto where it is, or can be had from apt by root; else the embedded one. Never sudo by itself."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import broker

START_SECONDS = 30.0


@dataclass(frozen=True)
class Broker:
    """Where to reach it, and what it is."""

    name: str
    url: str


@contextmanager
def start_broker(folder: Path, say: Callable[[str], None]) -> Iterator[Broker]:
    """Run a broker on a free loopback port for the time of a `with` block."""
    if broker.program() is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing mosquitto with apt-get")
        install()
    if broker.program() is not None:
        with broker.mosquitto(folder) as one:
            yield Broker("mosquitto", one.url)
        return
    say("mosquitto is not here (sudo apt-get install mosquitto); using the embedded broker, which is slower")
    with embedded(folder) as two:
        yield two


def install() -> None:
    """Install mosquitto from the distribution, without starting it as a service. A failure is not fatal."""
    # RUNLEVEL=1: Debian's maintainer scripts start no service then.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mosquitto"]):
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            print(f"{' '.join(command)}: {done.stderr.strip()[-500:]}", file=sys.stderr)
            return


@contextmanager
def embedded(folder: Path) -> Iterator[Broker]:
    """Run amqtt, a broker in Python, as a child process."""
    folder.mkdir(parents=True, exist_ok=True)
    port = broker.free_port()
    with (folder / "amqtt.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.system.embedded_broker", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"the embedded broker did not start; its log is {folder / 'amqtt.log'}") from None
                time.sleep(0.1)
        yield Broker("amqtt (embedded)", f"mqtt://127.0.0.1:{port}")
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
