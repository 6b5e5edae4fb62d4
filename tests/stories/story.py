"""What all stories do: graft stock models, let devices live through rounds of what they alone see, and prove every version.

Broker, ingester and devices are processes of their own, as in the field; the application on a device is a thread here.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import edgecloud
from edgecommon.runtime import Runtime
from modelwire.cards.facts import FACTS
from tests.charts import count_whole, legend_below
from tests.system import fleet as command
from tests.system.brokers import start_broker
from tests.system.fleet import Fleet
from tests.system.telling import begin, table

F32: TypeAlias = NDArray[np.float32]
Say: TypeAlias = Callable[[str], None]
Tale: TypeAlias = Callable[[Path, int, Say], tuple[dict[str, object], list[str]]]
STOCK = Path(__file__).parents[1] / "models" / "stories"
TIMEOUT = 500.0  # seconds for all rounds of a story; it takes a fraction
SETTINGS = {"link.resend": "2s", "link.reconnect_max": "2s", "store.history": "1000"}
_NOTHING: Mapping[str, Any] = {"samples": 0, "updates": 0, "labels": {}, "tags": {}, "channels": []}  # where no card was told
_ROUND = re.compile(r": round \d+ (?:is @|rejected)")  # what an agent says when a round has ended


@dataclass(frozen=True)
class Batch:
    """Samples that the application sees at a time: labelled, or a stream that nobody labels. context: what it knows besides."""

    x: F32
    labels: NDArray[np.int64] | None = None
    context: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Base:
    """A model that devices start from: a stock file, and what `edgecloud graft` is asked to train of it."""

    name: str
    stock: Path
    graft: tuple[str, ...]


@dataclass(frozen=True)
class Actor:
    """A device of a story. feed: what its application sees before round 0, 1, ..."""

    device: str
    base: str
    feed: Callable[[int], Batch]
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Version:
    """One version as the centre gives it back."""

    number: int
    file: bytes
    kind: str
    size: int  # bytes of the signed container that travelled
    card: int  # how many of them are its data card


@dataclass(frozen=True)
class Told:
    """What became of a device's model."""

    device: str
    model: str
    base: bytes  # the trainable file that it started from
    stock: int  # bytes of the stock file, without the means to train it
    versions: tuple[Version, ...]
    rounds: int  # with those that the guard rejected
    lost: int  # versions that the device served and the centre can't give back
    mismatched: int  # versions that the centre gives back with other bytes
    data: Mapping[str, Any]  # what the data cards of all its versions told the centre, as `edgecloud card --json` has it

    @property
    def last(self) -> bytes:
        return self.versions[-1].file if self.versions else self.base

    @property
    def sent(self) -> int:
        return sum(v.size for v in self.versions)

    @property
    def whole(self) -> int:
        """Bytes, had each version been sent as a whole file, of the least that can be run: without the means to train it."""
        return self.stock * len(self.versions)


def play(folder: Path, bases: Sequence[Base], actors: Sequence[Actor], rounds: int, say: Say) -> dict[str, Told]:
    """Let the devices live through `rounds` each, and return what became of each, by name. Leaves all files in `folder`."""
    with start_broker(folder / "broker", say) as broker:
        say(f"broker: {broker.name} on {broker.url}")
        fleet = Fleet(folder / "fleet", broker.url)
        try:
            files = {base.name: _graft(fleet, folder, base, say) for base in bases}
            for actor in actors:
                settings = {**SETTINGS, **actor.settings}
                run = ("--rounds", str(rounds), "--fresh", "--timeout", f"{TIMEOUT:g}s")
                fleet.add_device(actor.device, {actor.base: files[actor.base]}, settings, *run)
            _live(fleet, actors, rounds, say)
            say("the devices are done; the centre rebuilds every version once more, from its registry alone")
        finally:
            fleet.close()
    proof = fleet.cloud("verify", "--all")
    say(f"the centre rebuilt {proof['exact']} of {proof['checked']} versions exactly")
    stocks = {base.name: base.stock.stat().st_size for base in bases}
    compared = counted(say, "compared", proof["checked"])
    told = {a.device: _told(fleet, a, files[a.base].read_bytes(), stocks[a.base], rounds, compared) for a in actors}
    say(f"{sum(len(t.versions) for t in told.values())} versions compared with the files that the devices served")
    return told


def _graft(fleet: Fleet, folder: Path, base: Base, say: Say) -> Path:
    file = folder / f"{base.name}.tflite"
    made = command.cloud("graft", str(base.stock), *base.graft, "-o", str(file))
    fleet.add_base(base.name, file, rehearse=True)
    trains = ", ".join(made["layers"])
    say(f"grafted {base.stock.name} ({made['stock_bytes']:,} bytes, for inference only) into {base.name}, which trains {trains}")
    return file


def _live(fleet: Fleet, actors: Sequence[Actor], rounds: int, say: Say) -> None:
    stop = threading.Event()
    fleet.ingester.start()
    end, said = time.monotonic() + TIMEOUT, ""
    with ThreadPoolExecutor(len(actors)) as pool:
        for actor in actors:
            fleet.devices[actor.device].start()
        applications = [pool.submit(_see, fleet, actor, rounds, stop) for actor in actors]
        try:
            while any(p.running for p in fleet.devices.values()) and not any(a.done() and a.exception() for a in applications):
                now = ", ".join(f"{a.device} {min(rounds, ended(fleet, a.device))}" for a in actors)
                if now != said:
                    say(f"rounds of {rounds}: {now}")
                    said = now
                if time.monotonic() > end:
                    raise SystemExit(f"the devices did not end in {TIMEOUT:g} s; the logs are in {fleet.folder}")
                time.sleep(0.5)
        finally:
            stop.set()
    for application in applications:
        application.result()
    for device, process in fleet.devices.items():
        if process.code:
            raise SystemExit(f"{device} ended with {process.code}:\n{process.tail()}")
    fleet.ingester.stop()


def _see(fleet: Fleet, actor: Actor, rounds: int, stop: threading.Event) -> None:
    """Be the application on a device: append what it sees, a batch when the round before it has ended."""
    with fleet.spool(actor.device) as spool:
        for round in range(rounds):
            batch = actor.feed(round)
            spool.extend(actor.base, batch.x, batch.labels, contexts=batch.context)
            while ended(fleet, actor.device) <= round:
                if stop.wait(0.1):
                    return


def ended(fleet: Fleet, device: str) -> int:
    """Return how many rounds a device has done, by its log; more once it has ended, as it then says all again."""
    log = fleet.devices[device].log
    return len(_ROUND.findall(log.read_text(errors="replace"))) if log.exists() else 0


def _told(fleet: Fleet, actor: Actor, base: bytes, stock: int, rounds: int, compared: Callable[[], None]) -> Told:
    """Return a device's versions from the registry, each compared with the file that the device served."""
    history = fleet.home(actor.device) / "state" / "models" / actor.base / "history"
    rows = fleet.agent(actor.device, "log", actor.base)["models"][0]["versions"]
    served = {r["version"]: r["file_sha256"] for r in rows if r["version"]}
    versions, lost, mismatched = [], 0, 0
    with edgecloud.open(fleet.db) as registry:
        held = {v.number: v for v in registry.device(actor.device).model(actor.base).versions()}
        for number in sorted(served):
            own = (history / f"{number}.tflite").read_bytes()
            if hashlib.sha256(own).hexdigest() != served[number]:
                raise SystemExit(f"{actor.device}@{number}: the device's own copy is not what it says it served")
            version = held.get(number)
            if version is None or version.status != "verified":
                lost += 1
                continue
            file = version.file()
            mismatched += file != own
            compared()
            card = version.metrics.get("card", b"")
            versions.append(Version(number, file, version.kind, version.size, len(card) if isinstance(card, bytes) else 0))
    data = fleet.cloud("card", actor.device) if any(v.card for v in versions) else _NOTHING
    return Told(actor.device, actor.base, base, stock, tuple(versions), rounds, lost, mismatched, data)


def counted(say: Say, what: str, total: int, every: float = 2.0) -> Callable[[], None]:
    """Return what is called after each of `total` pieces of long work: it says how far it is, every few seconds and at the end."""
    done, last = 0, time.monotonic()

    def one_more() -> None:
        nonlocal done, last
        done += 1
        if done == total or time.monotonic() - last >= every:
            last = time.monotonic()
            say(f"{what}: {done} of {total}")

    return one_more


def accuracy(runtime: Runtime, file: bytes, x: F32, y: NDArray[np.int64]) -> float:
    """Return the share, 0 to 1, that a served file gets right, by the real runtime."""
    return round(float(np.mean(runtime.open(file).evaluate(x).argmax(-1) == y)), 4)


def proof(told: Mapping[str, Told]) -> dict[str, object]:
    """Return the part of a story's document that says what travelled and what was proved."""
    return {
        "lost": sum(t.lost for t in told.values()),
        "mismatched": sum(t.mismatched for t in told.values()),
        "devices": {
            t.device: {
                "model": t.model, "rounds": t.rounds, "versions": len(t.versions), "bytes_sent": t.sent, "whole_files_bytes": t.whole,
                "bytes": [v.size for v in t.versions], "card_bytes": [v.card for v in t.versions], "card": dict(t.data),
                "kinds": sorted({v.kind for v in t.versions}),
            }
            for t in told.values()
        },
    }  # fmt: skip


def travelled(told: Mapping[str, Told]) -> Table:
    """Return the table of what travelled."""
    title = "every version rebuilt at the centre, compared with the file that was served"
    names = ("device", "model", "rounds", "ver-\nsions", "bytes\nsent", "of them\ncards", "whole\nfiles", "ratio", "lost", "differ")
    rows = [
        (
            t.device, t.model, t.rounds, len(t.versions), f"{t.sent:,}", f"{sum(v.card for v in t.versions):,}", f"{t.whole:,}",
            f"1/{t.whole / max(1, t.sent):.0f}", t.lost, t.mismatched,
        )
        for t in told.values()
    ]  # fmt: skip
    return table(title, names, rows, left=2)


def cards(told: Mapping[str, Told]) -> Table:
    """Return the table of what the centre knows of each device's data, without a sample of it."""
    names = ("samples", "labels", "context", "x.mean", "runtime")
    rows = []
    for t in told.values():
        tags, labels, channels = t.data["tags"], t.data["labels"], {c["name"]: c for c in t.data["channels"]}
        mean = channels.get("x.mean")
        rows.append(
            (
                t.data["samples"], " ".join(f"{label}:{n}" for label, n in labels.items()),
                ", ".join(f"{value} {n}" for name, values in tags.items() if name not in FACTS for value, n in values.items()),
                f"{mean['mean']:.3f} ± {mean['deviation']:.3f}" if mean else "", ", ".join(tags.get("runtime", ())),
            )
        )  # fmt: skip
    said = [i for i in range(len(names)) if any(row[i] for row in rows)]
    cells = [(device, *(row[i] for i in said)) for device, row in zip(told, rows, strict=True)]
    return table("what the data cards told the centre", ("device", *(names[i] for i in said)), cells, left=6)


@contextmanager
def figure(path: Path, columns: int, *, width: float = 5.5, height: float = 4.6) -> Iterator[Any]:
    """Give the axes of a chart side by side, and write it as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    made, axes = pyplot.subplots(1, columns, figsize=(width * columns, height), layout="constrained", squeeze=False)
    try:
        yield axes[0]
        made.savefig(path, dpi=120)
    finally:
        pyplot.close(made)


def draw_bytes(axes: Any, told: Mapping[str, Told]) -> None:
    """Draw the bytes of each update, and say those of the file that it stands for: drawn, it would leave most of the panel empty."""
    for t in told.values():
        axes.plot([v.number for v in t.versions], [v.size for v in t.versions], marker="o", label=t.device)
    whole = ", ".join(f"{t.model} {t.stock:,}" for t in {t.model: t for t in told.values()}.values())
    axes.set_title(f"bytes of each update, signed and whole\n(a whole file: {whole})", fontsize=11)
    axes.set(xlabel="version", ylabel="bytes", ylim=(0, 1.1 * max((v.size for t in told.values() for v in t.versions), default=1)))
    count_whole(axes)
    axes.grid(alpha=0.3)
    legend_below(axes)


def run(name: str, doc: str, rounds: int, argv: Sequence[str] | None, tell: Tale) -> int:
    """Run a story from the command line; return 0 when it came out as it claims.

    tell(folder, rounds, say) gives the story's document and what of its claims failed. Beside the folder it leaves NAME.json and NAME.png.
    """
    begun = begin(name, doc, argv, folder=Path("build") / f"demo-{name}", rounds=rounds, help="rounds of each device")
    folder, say = begun.folder, begun.say
    document, failed = tell(folder, begun.rounds, say)
    document["seconds"] = round(time.monotonic() - begun.began, 1)
    failed += [f"{document[what]} versions {what}" for what in ("lost", "mismatched") if document[what]]
    folder.with_suffix(".json").write_text(json.dumps({**document, "failed": failed}, indent=1) + "\n")
    say(f"wrote {folder.with_suffix('.json')} and {folder.with_suffix('.png')}")
    for claim in failed:
        print(f"{name}: it did not come out: {claim}", file=sys.stderr)
    return 1 if failed else 0
