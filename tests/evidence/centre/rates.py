"""How many updates a second the centre takes, answers through a real broker, and proves; and whether its memory stays flat.

    python -m tests.evidence.centre.rates              the figures, and where the time of the first two goes
    FULL=1 python -m tests.evidence.centre.rates       memory over 10^6 versions instead of 10^5

Updates are real containers of the digits net (50,826 weights, about 600 bytes each), sealed before the clock starts; commits are
`synchronous=FULL`. One Ed25519 verification, alone in the same run, is the floor that the rates stand beside.
"""

from __future__ import annotations

import cProfile
import gc
import json
import logging
import os
import pickle
import pstats
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecloud.audit.signing import sign_end
from edgecloud.intake.mqtt import MqttTransport, parse_broker
from edgecloud.intake.rebuilding import Rebuilder
from edgecloud.intake.routing import Ingest
from edgecloud.intake.service import Ingester, Pace
from edgecloud.registry import SqliteStore, open_registry
from edgecloud.workers.pool import WorkerPool
from edgecommon import logs
from modelwire.lattice.state import ModelState
from modelwire.update.container import Sealed, seal
from modelwire.update.header import Header
from modelwire.update.sections import Kind, section_of
from modelwire.wire.topics import up
from tests.broker import mosquitto, program
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import FLEET, Base, ScriptedDevice
from tests.keys import FLEET_ID, RECEIPT

DIGITS = Path(__file__).resolve().parents[2] / "models" / "digits.tflite"
DEVICES = 16
UPDATES = 8000  # of all devices, of each rate
DISTINCT = 64  # updates of one device whose content differs; then they come again with other numbers
WORKERS = 2
BATCH = 100  # messages a commit, as the ingester has it
CHANGED = 0.0033  # share of the weights that an update moves: 600 bytes
EXTENSION = {"loss_before": 1.0, "loss_after": 0.5, "samples": 32, "steps": 4}
TAKE_GOAL, MQTT_GOAL, VERIFY_GOAL = 4000, 1800, 4000


@dataclass
class Maker:
    """Seals one device's updates one after the other, each proven by the root that it names."""

    device: ScriptedDevice
    state: ModelState

    @classmethod
    def of(cls, device: ScriptedDevice) -> Maker:
        return cls(device, ModelState.of_base(device.base.manifest, device.base.weights))

    def updates(self, count: int, *, true: bool = True) -> Iterator[Sealed]:
        """Yield the next updates. true: with the roots and fingerprints of what they come to; else only what is taken unproven."""
        device, state, rng = self.device, self.state, np.random.default_rng([7, *self.device.name.encode()])
        manifest = device.base.manifest
        drawn = [self._sections(rng) for _ in range(min(count, DISTINCT))]
        undone = [tuple(type(s)(s.tensor, s.index, -s.value, s.step, s.exponent) for s in one) for one in drawn]
        for i in range(count):
            # Every second pass takes the first one back, or a long chain would leave the lattice.
            sections = (drawn, undone)[i // len(drawn) % 2][i % len(drawn)]
            if true:
                state.apply(Kind.DELTA, sections)
            root = state.root if true else device.rng.bytes(32)
            header = Header(
                Kind.DELTA, device.name, device.model, device.epoch, device.version + 1, device.head, manifest.schema.id, root,
                state.fingerprint, b"", EXTENSION,
            )  # fmt: skip
            made = seal(header, sections, manifest.schema, device.key, FLEET_ID)
            device.version, device.head = header.version, made.commit
            yield made

    def _sections(self, rng: np.random.Generator) -> tuple:  # type: ignore[type-arg]
        out = []
        for t, spec in enumerate(self.device.base.manifest.schema.tensors):
            q = np.zeros(spec.size, np.int64)
            moved = rng.choice(spec.size, max(1, int(CHANGED * spec.size)), replace=False)
            q[moved] = rng.choice([-2, -1, 1, 2], len(moved), p=[0.1, 0.4, 0.4, 0.1])
            section = section_of(t, q, self.state.exponents[t])
            assert section is not None
            out.append(section)
        return tuple(out)


def measure(full: bool) -> dict[str, float]:
    """Return the rates, each the best of a few runs over the same updates, and memory. Prints where the time goes, to standard error."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The floor is taken beside each rate: other work on the machine slows both. The best of either counts.
        floors, takes = [_floor()], []
        for i in range(3):
            takes.append(_take(folder / f"take{i}", UPDATES))
            floors.append(_floor())
        figures["take_per_s"] = max(takes)
        _say(f"take: {', '.join(f'{t:.0f}' for t in takes)} a second; goal {TAKE_GOAL}")
        figures |= _verify(folder / "verify", UPDATES)
        floors.append(_floor())
        if program() is not None:
            rates = [_through_broker(folder / f"mqtt{i}", UPDATES // 2) for i in range(2)]
            floors.append(_floor())
            figures["mqtt_per_s"] = max(rates)
            _say(f"through mosquitto, both receipts: {', '.join(f'{r:.0f}' for r in rates)} a second; goal {MQTT_GOAL}")
        figures["ed25519_verify_per_s"] = max(floors)
        for rate in ("take", "verify", "mqtt"):
            if f"{rate}_per_s" in figures:
                figures[f"{rate}_over_floor"] = round(figures[f"{rate}_per_s"] / max(floors), 3)
                _say(f"{rate}: {figures[f'{rate}_over_floor']:.3f} of the floor")
        figures |= _memory(folder / "memory", 1_000_000 if full else 100_000)
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _floor() -> float:
    """Return how many signatures one core verifies in a second, and nothing else."""
    from modelwire.wire import signing

    key, message = RECEIPT, bytes(32)
    signature = key.sign(signing.UPDATE, FLEET_ID, message)
    count, end = 0, time.perf_counter() + 1.0
    began = time.perf_counter()
    while time.perf_counter() < end:
        signing.verify(key.public, signing.UPDATE, FLEET_ID, message, signature, what="", signer="")
        count += 1
    rate = count / (time.perf_counter() - began)
    _say(f"Ed25519 alone: {rate:.0f} verified a second")
    return rate


def fleet_at(folder: Path, devices: int = DEVICES) -> list[ScriptedDevice]:
    """Make a registry with so many devices that have said hello, and return them."""
    folder.mkdir(parents=True)
    base = Base.of(DIGITS)
    store = make_registry(folder / "fleet.db", base)
    centre = Centre(store)
    out = [centre.meet(ScriptedDevice(base, name=f"pi-{i}")) for i in range(devices)]
    store.close()
    return out


def sealed(devices: list[ScriptedDevice], count: int, *, true: bool = True) -> list[tuple[str, bytes]]:
    """Return updates of all devices as messages, one of each device in turn."""
    streams = [Maker.of(d).updates(count // len(devices), true=true) for d in devices]
    topics = [up(FLEET, d.name, d.model, "update") for d in devices]
    out = [(topic, made.data) for row in zip(*streams, strict=True) for topic, made in zip(topics, row, strict=True)]
    _say(f"{len(out)} updates sealed, {np.mean([len(data) for _, data in out]):.0f} bytes each")
    return out


def take_all(store: SqliteStore, messages: list[tuple[str, bytes]]) -> None:
    """Take messages in as the ingester does: batches in one transaction each, the end of the log signed in it."""
    ingest = Ingest(store, secret=bytes(32))
    for start in range(0, len(messages), BATCH):
        with store.transaction():
            ingest.catch_up()
            for topic, data in messages[start : start + BATCH]:
                done = ingest.take(topic, data, 2000)
                assert done.result.value == "stored", done
            sign_end(store, RECEIPT, "the registry")


def _take(folder: Path, count: int) -> float:
    messages = sealed(fleet_at(folder), count, true=False)
    store = open_registry(folder / "fleet.db")  # synchronous=FULL
    # The first of them fill what is kept in memory: keys, and SQLite's statements.
    warm, rest = messages[: count // 8], messages[count // 8 :]
    take_all(store, warm)
    gc.collect()
    began = time.perf_counter()
    take_all(store, rest)
    rate = len(rest) / (time.perf_counter() - began)
    store.close()
    return rate


def _verify(folder: Path, count: int) -> dict[str, float]:
    """Return how many stored versions a second are rebuilt, proven by their roots and committed: by two processes, and in this thread."""
    out = {}
    for workers in (WORKERS, 0):
        at = folder / str(workers)
        messages = sealed(fleet_at(at), count)
        store = open_registry(at / "fleet.db")
        take_all(store, messages)
        pool = WorkerPool(store.database.path, workers) if workers else None
        rebuilder = Rebuilder(store, sign=lambda s: sign_end(s, RECEIPT, "the registry"), pool=pool)
        done = len(rebuilder.run(2000))  # the first ones wait for the processes to start
        began, before = time.perf_counter(), done
        while judged := rebuilder.run(2000):
            assert all(one.ok for one in judged)
            done += len(judged)
        rate = (done - before) / (time.perf_counter() - began)
        assert done == len(messages)
        if pool is not None:
            pool.close()
        store.close()
        out["verify_per_s" if workers else "verify_one_thread_per_s"] = rate
        _say(f"verified {f'by {workers} processes' if workers else 'in this thread'}: {rate:.0f} a second; goal {VERIFY_GOAL}")
    return out


def serve(db: str, url: str, workers: int) -> None:
    """Be the ingester of a registry until told to stop: a process of its own, as `edgecloud ingest` is, its log written out."""
    logs.start("edgecloud", "INFO", logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    transport = MqttTransport(parse_broker(url), fleet=FLEET, client_id="centre")
    ingester = Ingester(Path(db), RECEIPT, transport, pace=Pace(workers=workers))
    signal.signal(signal.SIGTERM, lambda *_: ingester.stop())
    ingester.run()


def _through_broker(folder: Path, count: int) -> float:
    """Return how many updates a second are answered with both receipts, through a real broker, the boards a process of their own."""
    messages = sealed(fleet_at(folder), count)
    (folder / "updates").write_bytes(pickle.dumps(messages))
    module = [sys.executable, "-m", "tests.evidence.centre"]
    with mosquitto(folder) as broker, (folder / "log").open("wb") as log:
        command = [*module[:2], f"{module[2]}.rates", "serve", str(folder / "fleet.db"), broker.url, str(WORKERS)]
        ingester = subprocess.Popen(command, stderr=log)
        try:
            while b"connected to" not in (folder / "log").read_bytes() and ingester.poll() is None:
                time.sleep(0.05)
            started = _cpu(ingester.pid)
            command = [*module[:2], f"{module[2]}.flood", str(broker.port), str(folder / "updates")]
            done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            _say(f"  processor time of the ingester alone: {(_cpu(ingester.pid) - started) / count * 1e6:.0f} microseconds an update")
        finally:
            ingester.terminate()
            ingester.wait()
    # A receipt `stored` that waits behind `verified` is not sent twice, but none may be missing.
    assert done["verified"] == done["stored"] == count, done
    return float(done["timed"] / done["seconds"])


def _cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has taken, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss() -> float:
    """Return this process's memory in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _memory(folder: Path, count: int) -> dict[str, float]:
    """Return by how many MiB memory differs between a tenth of the versions and all of them, taken one after the other."""
    devices = fleet_at(folder)
    makers = [(Maker.of(d), up(FLEET, d.name, d.model, "update")) for d in devices]
    store = open_registry(folder / "fleet.db", synchronous="OFF")  # no power is cut, and memory is what counts
    done, at = 0, dict[int, float]()
    while done < count:
        messages = [(topic, made.data) for maker, topic in makers for made in maker.updates(BATCH, true=False)]
        take_all(store, messages)
        done += len(messages)
        if count // 10 <= done and not at:
            gc.collect()
            at[done] = _rss()
    gc.collect()
    at[done] = _rss()
    store.close()
    first, last = at.values()
    _say("memory: " + ", ".join(f"{mib:.0f} MiB after {n} versions" for n, mib in at.items()))
    return {"memory_versions": done, "memory_growth_mib": round(last - first, 1)}


def profile(count: int = 4000) -> dict[str, list[str]]:
    """Return the five functions in which taking and rebuilding spend most of their own time."""
    out = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "fleet"
        messages = sealed(fleet_at(folder), count)
        store = open_registry(folder / "fleet.db")
        out["take"] = _top(lambda: take_all(store, messages))
        rebuilder = Rebuilder(store, sign=lambda s: sign_end(s, RECEIPT, "the registry"))

        def rebuild() -> None:
            while rebuilder.run(2000):
                pass

        out["rebuild"] = _top(rebuild)
        store.close()
    return out


def _top(work: object, lines: int = 5) -> list[str]:
    profiler = cProfile.Profile()
    assert callable(work)
    profiler.runcall(work)
    stats = pstats.Stats(profiler)
    total = sum(row[2] for row in stats.stats.values())  # type: ignore[attr-defined]
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:lines]  # type: ignore[attr-defined]
    return [f"{100 * row[2] / total:4.1f} %  {Path(at[0]).name}:{at[2]} ({row[0]} calls)" for at, row in rows]


def main(words: list[str]) -> None:
    if words[:1] == ["serve"]:
        return serve(words[1], words[2], int(words[3]))
    for what, lines in profile().items():
        _say(f"{what}:\n  " + "\n  ".join(lines))
    print(json.dumps(measure(bool(os.environ.get("FULL"))), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
