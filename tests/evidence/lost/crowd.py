"""A crowd at the door: boards that all connect, send, lose their centre and lose their broker at once, each by a connection of its own.

    python -m tests.evidence.lost.crowd              200 connections
    FULL=1 python -m tests.evidence.lost.crowd       1,000

The broker is mosquitto with the very files of `edgecloud broker config`: TLS, a certificate for each board, an access list. The ingester is
`edgecloud ingest`. The boards are `tests.soak.members`: the agent's own MQTT link, and signed updates of a net of 39 weights.

1. All send two updates at once: `receipt_*` is the time from the first byte to the receipt `stored`, and the rate of these receipts.
2. All send two more, and the ingester is killed with SIGKILL among them and started again: `restart_*`.
3. All have one more on the way when the broker is killed with SIGKILL and started again: `storm_*`, how the boards come back.

At the end the lists of both sides are compared, each version rebuilt.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import edgecloud
from edgeagent.link.mqtt import STABLE
from edgecloud import keys
from edgecloud.registry import SqliteStore, open_registry
from modelwire.wire.signing import Role
from tests import broker
from tests.certificates import Authority
from tests.edgecloud.centre import admit
from tests.edgecloud.device import TINY, key_of
from tests.evidence.parts import Figures, alone
from tests.soak import books
from tests.soak.books import Books, Entry
from tests.soak.members import MODEL
from tests.system.fleet import Process, one_thread
from tests.system.perimeter import FLEET, Perimeter, perimeter

SMALL, WHOLE = 200, 1000  # connections
EACH = 250  # connections of one process: its `select` knows 1,024 files, and each takes three
PATIENCE = 150.0  # seconds: a safety limit
FILES = 4096  # that may be open, for the broker


def measure(full: bool) -> Figures:
    """Return how a crowd fares; nothing where there is no mosquitto. Prints how far it is to standard error."""
    if broker.program() is None:
        print(broker.MISSING, file=sys.stderr)
        return {}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    with tempfile.TemporaryDirectory(prefix="crowd") as folder:
        return Trial(Path(folder), WHOLE if full else SMALL).figures()


class Trial:
    """One crowd of so many boards, and what it went through."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.db = folder / "centre" / "fleet.db"

    def figures(self) -> Figures:
        with perimeter(self.folder / "perimeter") as at:
            self._prepare(at)
            centre = at.centre
            command = [
                sys.executable, "-m", "edgecloud", "ingest", "--db", str(self.db), "--broker", at.url, "--ca", str(at.ca / "ca.pem"),
                "--cert", str(centre.certificate), "--cert-key", str(centre.key),
            ]  # fmt: skip
            ingester = Process("ingester", command, self.folder / "ingester.log")
            ingester.start()
            try:
                _until(lambda: ingester.said("connected to"), "the ingester is connected", ingester)
                with crowd(self.folder, self.count) as boards:
                    out = self._through(at, ingester, boards)
                    lists = boards.ask("list")
            finally:
                ingester.stop()
        closed = self._compare({name: made for one in lists for name, made in one.items()})
        for line in closed.wrong[:10]:
            _say(line)
        return out | {
            "crowd_updates": closed.made, "crowd_lost": len(closed.lost), "crowd_doubled": len(closed.doubled),
            "crowd_diverged": len(closed.diverged),
        }  # fmt: skip

    def _prepare(self, at: Perimeter) -> None:
        """Make the registry, let every board in, and give each its certificate."""
        self.db.parent.mkdir()
        for words in (("init", "--fleet", FLEET), ("bases", "add", str(TINY), "--name", MODEL)):
            line = [sys.executable, "-m", "edgecloud", *words, "--db", str(self.db), "--json"]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        store = open_registry(self.db, synchronous="OFF")
        assert isinstance(store, SqliteStore)
        for n in range(self.count):
            admit(store, f"pi-{n}", key_of(f"pi-{n}").public, int(time.time()))
        secret = {Role.RECEIPT: keys.RECEIPT, Role.COMMAND: keys.COMMAND, Role.ROOT: keys.ROOT}
        public = {role.name: keys.load_key(self.db.parent / name, keys.SECRET[name]).public.hex() for role, name in secret.items()}
        said = {"url": at.url, "ca": str(at.ca / "ca.pem"), "fleet": FLEET, "fleet_id": store.identity.id.hex(), "keys": public}
        store.close()
        for n in range(self.count):
            place = self.folder / "papers" / f"pi-{n}"
            place.mkdir(parents=True)
            Authority.of(place, at.ca).issue(f"pi-{n}", client=True)
        (self.folder / "crowd.json").write_text(json.dumps(said))
        _say(f"{self.count} boards are let in, each with a certificate of its own")

    def _through(self, at: Perimeter, ingester: Process, boards: Crowd) -> Figures:
        """Let the crowd connect, send, lose its centre, and lose its broker."""
        began = time.monotonic()
        boards.until("welcomed", self.count, ingester)
        out: Figures = {"connections": self.count, "crowd_connect_s": round(time.monotonic() - began, 1)}
        _say(f"all are connected and welcomed after {out['crowd_connect_s']} s")
        boards.ask("make 2")
        before = _cpu(ingester.pid)
        boards.ask("send")
        boards.until("left", 0, ingester)
        spent, first = _cpu(ingester.pid) - before, boards.told()
        out |= _receipts("receipt", first) | {"cpu_ms_an_update": round(1000 * spent / len(first), 2)}
        memory = _peak(ingester.pid)
        _say(f"{len(first)} updates are receipted, p99 {out['receipt_p99_s']} s")
        boards.ask("make 2")
        there = self._stored()
        boards.say("send")
        while (stored := self._stored() - there) < len(first) // 4:
            assert ingester.running, ingester.tail()
            time.sleep(0.002)
        memory = max(memory, _peak(ingester.pid))
        ingester.kill()
        ingester.start()
        boards.heard()
        boards.until("left", 0, ingester)
        out |= {"restart_after": stored, **_receipts("restart", boards.told(beside=first))}
        _say(f"the same with the ingester killed among them, p99 {out['restart_p99_s']} s")
        out |= self._storm(at, ingester, boards)
        return out | {"ingester_crowd_mib": round(max(memory, _peak(ingester.pid)), 1)}

    def _stored(self) -> int:
        """Return how many versions the registry holds. The log does not say each: it collapses."""
        with closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as registry:
            return int(registry.execute("SELECT count(*) FROM version").fetchone()[0])

    def _storm(self, at: Perimeter, ingester: Process, boards: Crowd) -> Figures:
        newest = max(t for ups in boards.ups() for t in ups)
        _until(lambda: time.monotonic() > newest + STABLE, "links are as old as those of a fleet at work", ingester)
        boards.ask("make 1")
        boards.ask("send")
        at.kill()
        down = time.monotonic()
        at.start()
        boards.until("back", self.count, ingester, since=down)
        boards.until("left", 0, ingester)
        back = sorted(min(t for t in ups if t > down) for ups in boards.ups())
        spans = [sum(t <= one < t + 1.0 for one in back) for t in back]
        again = sum(sum(t > down for t in ups) for ups in boards.ups())
        _say(f"all are back {back[-1] - down:.1f} s after the broker died, {max(spans)} of them within one second")
        return {
            "storm_back_p50_s": round(back[len(back) // 2] - down, 2), "storm_back_s": round(back[-1] - down, 2),
            "storm_peak_per_s": max(spans), "storm_connections": again,
        }  # fmt: skip

    def _compare(self, lists: dict[str, list[list[Any]]]) -> Books:
        """Compare what each board made with what the centre holds."""
        closed = Books()
        with edgecloud.open(self.db) as registry:
            for name, rows in lists.items():
                mine = [Entry(row[0], *map(bytes.fromhex, row[1:4]), row[4]) for row in rows]
                books.compare(name, mine, books.of_centre(registry, name, MODEL), closed)
        assert closed.made == 5 * self.count, "every board has made its five updates"
        return closed


class Crowd:
    """The processes that boards are in."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def ask(self, word: str) -> list[dict[str, Any]]:
        """Say one word to all of them at once, and return what each answers."""
        self.say(word)
        return self.heard()

    def say(self, word: str) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()

    def heard(self) -> list[dict[str, Any]]:
        """Return what each answers to the word that was said last."""
        out = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "a process of the crowd has ended"
            out.append(json.loads(line))
        return out

    def told(self, beside: list[list[float]] | None = None) -> list[list[float]]:
        """Return when each update was sent, stored and verified. beside: leave these out."""
        known = {tuple(one) for one in beside or ()}
        return [one for said in self.ask("say") for one in said["told"] if tuple(one) not in known]

    def ups(self) -> list[list[float]]:
        """Return the moments at which each board's connections came about."""
        return [ups for said in self.ask("say") for ups in said["up"]]

    def until(self, what: str, wanted: int, ingester: Process, *, since: float = 0.0) -> None:
        """Wait until so many are `welcomed`, have come `back` since a moment, or so many updates are `left` to be verified."""

        def reached() -> bool:
            said = self.ask("say")
            refused = [why for one in said for why in one["refused"]]
            assert not refused, refused[0]
            if what == "back":
                return sum(any(t > since for t in ups) for one in said for ups in one["up"]) >= wanted
            return bool(sum(one[what] for one in said) == wanted)

        _until(reached, f"{wanted} {what}", ingester)


@contextmanager
def crowd(folder: Path, count: int) -> Iterator[Crowd]:
    """Run so many boards, a few processes of them, for the time of a `with` block."""
    processes = []
    try:
        for first in range(0, count, EACH):
            command = [sys.executable, "-m", "tests.soak.members", str(folder), str(first), str(min(EACH, count - first))]
            log = (folder / f"members-{first}.log").open("ab")
            processes.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=one_thread(os.environ))
            )
            log.close()
        yield Crowd(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _receipts(name: str, told: list[list[float]]) -> Figures:
    """Return the rate of receipts and their times, of updates that all have one."""
    took = sorted(stored - sent for sent, stored, _ in told)
    verified = sorted(proven - sent for sent, _, proven in told)
    span = max(stored for _, stored, _ in told) - min(sent for sent, _, _ in told)
    return {
        f"{name}_rate": round(len(told) / span, 1), f"{name}_p50_s": round(took[len(took) // 2], 3),
        f"{name}_p99_s": round(took[int(0.99 * (len(took) - 1))], 3),
        f"{name}_verified_p99_s": round(verified[int(0.99 * (len(verified) - 1))], 3),
    }  # fmt: skip


def _until(reached: Callable[[], object], what: str, ingester: Process) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert ingester.running, ingester.tail()
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}; the ingester said last:\n{ingester.tail()}"
        time.sleep(0.3)


def _cpu(pid: int) -> float:
    """Return the seconds of processor time that a process and its children have taken."""
    total = 0.0
    for one in (pid, *_children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _peak(pid: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    alone("lost", "crowd", measure)
