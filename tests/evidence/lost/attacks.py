"""What honest boards see of an ingester under attack: real processes, a real mosquitto that holds as much as the shipped one does.

    python -m tests.evidence.lost.attacks              15 seconds an attack; FULL=1: 60 seconds

Each attack stands beside boards that send at a steady rate and send again as the agent does. An update without a receipt at the end
counts with the time that it waited by then. TLS is left out: with it no stranger gets as far as this.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgecloud.certificates.broker_files import BrokerPlace, settings
from edgecloud.registry import QuotaRow
from modelwire.wire import records
from modelwire.wire.records import Level, Receipt
from tests.broker import Mosquitto
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import FLEET, Base, ScriptedDevice
from tests.evidence.parts import Figures, alone

from .attackers import EVE, MODELS, never_joined

QUIET = "quiet"  # nobody attacks: what the machine does with the same boards
ATTACKS = (QUIET, "flood", "flood0", "join", "noise", "recipe")
BOARDS = 10
EVERY = 0.2  # seconds between two honest updates, of all boards together
RESEND = 30.0  # seconds, as the agent's setting link.resend
PATIENCE = 75.0  # seconds for what is under way when the attack ends
DISK_QUOTA = 256 << 20  # bytes, of the attacker
WORKERS = 2
STORED_GOAL, VERIFIED_GOAL, MEMORY_GOAL, LOG_GOAL = 1.0, 60.0, 256.0, 100_000


class ShippedMosquitto(Mosquitto):
    """A broker that holds what `edgecloud broker config` lets it hold, on a port without TLS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shipped = settings(BrokerPlace(FLEET, folder)).partition("# What the broker holds.")[2].splitlines()
        holds = [line for line in shipped if line.strip() and not line.startswith("#") and line[0] != " "]
        assert any(line.startswith("max_queued_bytes") for line in holds)
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", f"persistence_location {folder}/", *holds, "log_type error"]
        if os.geteuid() == 0:
            lines.append("user root")
        self._config.write_text("\n".join(lines) + "\n")


@dataclass
class Honest:
    """Boards that send what they have made before, and note when each receipt comes."""

    port: int
    ready: list[tuple[str, bytes, bytes]]  # topic, update, commit
    sent: dict[bytes, float] = field(default_factory=dict)  # monotonic seconds, by commit
    stored: dict[bytes, float] = field(default_factory=dict)  # seconds that it took
    verified: dict[bytes, float] = field(default_factory=dict)
    refused: int = 0

    def start(self) -> None:
        self._again: dict[bytes, float] = {}
        self._link = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="boards", protocol=mqtt.MQTTv5)
        self._link.max_inflight_messages_set(200)
        heard = threading.Event()
        self._link.on_connect = lambda c, *_: c.subscribe(f"e1/{FLEET}/+/+/dn/receipt", qos=1)
        self._link.on_subscribe = lambda *_: heard.set()
        self._link.on_message = lambda _c, _d, message: self._hear(message.payload)
        self._link.connect("127.0.0.1", self.port)
        self._link.loop_start()
        assert heard.wait(60)

    def _hear(self, data: bytes) -> None:
        now, said = time.monotonic(), records.parse(data).record
        if not isinstance(said, Receipt) or said.commit not in self.sent:
            return
        took = now - self.sent[said.commit]
        if said.level is Level.REFUSED:
            self.refused += 1
            return
        self.stored.setdefault(said.commit, took)
        if said.level is Level.VERIFIED:
            self.verified.setdefault(said.commit, took)

    def say_for(self, seconds: float) -> None:
        """Send a new one every little while."""
        end = due = time.monotonic()
        end += seconds
        while due < end and self.ready:
            time.sleep(max(0.0, due - time.monotonic()))
            due += EVERY
            topic, data, commit = self.ready.pop(0)
            self.sent[commit] = time.monotonic()
            self._again[commit] = self.sent[commit] + RESEND
            self._pending[commit] = topic, data
            self._link.publish(topic, data, qos=1)
            self._repeat()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while len(self.verified) < len(self.sent) and time.monotonic() < end:
            self._repeat()
            time.sleep(0.05)

    def end(self) -> None:
        self._link.loop_stop()
        self._link.disconnect()
        now = time.monotonic()
        for commit, at in self.sent.items():
            self.stored.setdefault(commit, now - at)
            self.verified.setdefault(commit, now - at)

    _pending: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)

    def _repeat(self) -> None:
        now = time.monotonic()
        for commit, at in self._again.items():
            if now >= at and commit not in self.stored:
                self._again[commit] = now + 2 * RESEND
                self._link.publish(*self._pending[commit], qos=1)


def made(kind: str, folder: Path, seconds: float) -> list[tuple[str, bytes, bytes]]:
    """Make a registry with boards and an attacker who is one of them, and return what the boards will send."""
    folder.mkdir(parents=True)
    base = Base.of()
    store = make_registry(folder / "fleet.db", base)
    centre = Centre(store)
    boards = [centre.meet(ScriptedDevice(base, name=f"pi-{n}")) for n in range(BOARDS)]
    for model in range(MODELS):
        centre.meet(ScriptedDevice(base, name=EVE, model=f"m-{model}"))
    store.quotas.set(EVE, QuotaRow(disk_bytes=DISK_QUOTA), 1)
    if kind == "join":
        with store.transaction():
            for message in never_joined()[:-1]:
                centre.take(message)
    store.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    out = []
    for n in range(int(seconds / EVERY) + 2):
        board = boards[n % BOARDS]
        sent = board.train(density=0.3)
        out.append((*board.update(sent), sent.commit))
    return out


def attack(kind: str, seconds: float, folder: Path) -> dict[str, float]:
    """Return what came of one attack."""
    ready = made(kind, folder, seconds)
    with ExitStack() as stack:
        broker = ShippedMosquitto(folder)
        broker.start()
        stack.callback(broker.stop)
        log = stack.enter_context((folder / "log").open("wb"))
        command = [sys.executable, "-m", "tests.evidence.centre.rates", "serve", str(folder / "fleet.db"), broker.url, str(WORKERS)]
        ingester = subprocess.Popen(command, stderr=log)
        stack.callback(ingester.wait)
        stack.callback(ingester.terminate)
        while b"connected to" not in (folder / "log").read_bytes():
            assert ingester.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        honest = Honest(broker.port, ready)
        honest.start()
        before, logged = _disk(folder), (folder / "log").stat().st_size
        attacker = _attacker(kind, broker.port, seconds) if kind != QUIET else None
        honest.say_for(seconds)
        grown = _disk(folder) - before
        if attacker is not None:
            attacker.wait(seconds + 60)
        honest.wait(PATIENCE)
        honest.end()
        grown = max(grown, _disk(folder) - before)
        peak = _peak(ingester.pid)
    sent = len(honest.sent)
    assert sent and ingester.returncode == 0, ingester.returncode
    return {
        "stored_s_p95": _p95(honest.stored), "verified_s_p95": _p95(honest.verified), "stored_s_max": max(honest.stored.values()),
        "sent": sent, "refused": honest.refused, "peak_mib": peak, "disk_mib": grown / (1 << 20),
        "log_bytes": (folder / "log").stat().st_size - logged,
    }  # fmt: skip


def _attacker(kind: str, port: int, seconds: float) -> subprocess.Popen[str]:
    """Start an attacker, and return when it begins."""
    command = [sys.executable, "-m", "tests.evidence.lost.attackers", kind, str(port), str(seconds)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert attacker.stdout is not None and attacker.stdout.readline() == "ready\n"
    return attacker


def _p95(seconds: dict[bytes, float]) -> float:
    values = sorted(seconds.values())
    return values[min(len(values) - 1, int(0.95 * len(values)))]


def _peak(pid: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def _disk(folder: Path) -> int:
    """Return the bytes of a registry and what lies beside it."""
    return sum(path.stat().st_size for path in folder.rglob("fleet*") if path.is_file()) + sum(
        path.stat().st_size for path in folder.rglob("*/*") if path.is_file()
    )


def measure(full: bool) -> Figures:
    """Return the figures of this part."""
    seconds = 60.0 if full else 15.0
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in os.environ.get("ATTACKS", ",".join(ATTACKS)).split(","):
            found[kind] = attack(kind, seconds, Path(folder) / kind)
            print(f"{kind}: {json.dumps({k: round(v, 2) for k, v in found[kind].items()})}", file=sys.stderr)
    quiet = found.pop(QUIET, None)
    figures: Figures = {
        "honest_stored_s_p95": round(max(f["stored_s_p95"] for f in found.values()), 3),
        "honest_verified_s_p95": round(max(f["verified_s_p95"] for f in found.values()), 3),
        "ingester_peak_mib": round(max(f["peak_mib"] for f in found.values()), 1),
        "attack_disk_growth_mib": round(max(f["disk_mib"] for f in found.values()), 1),
        "attack_disk_quota_mib": DISK_QUOTA >> 20,
        "attack_log_bytes": int(max(f["log_bytes"] for f in found.values())),
    }
    for kind, one in {**({QUIET: quiet} if quiet is not None else {}), **found}.items():
        figures[f"{kind}_stored_s_p95"] = round(one["stored_s_p95"], 3)
        figures[f"{kind}_verified_s_p95"] = round(one["verified_s_p95"], 3)
    goals = {
        "honest_stored_s_p95": STORED_GOAL, "honest_verified_s_p95": VERIFIED_GOAL, "ingester_peak_mib": MEMORY_GOAL,
        "attack_disk_growth_mib": DISK_QUOTA >> 20, "attack_log_bytes": LOG_GOAL,
    }  # fmt: skip
    figures["attack_goals_missed"] = ", ".join(name for name, goal in goals.items() if float(figures[name]) > goal) or "none"
    return figures


if __name__ == "__main__":
    alone("lost", "attacks", measure)
