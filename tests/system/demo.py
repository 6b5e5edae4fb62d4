"""The main job on real input, on one machine: `make demo`.

A broker, the ingester and four devices, each a process of its own, with two models on real data. Each device fine-tunes for
six rounds in a world that it alone sees. In the middle one device and the ingester are killed with SIGKILL and started again.
Then every version of every device is materialised from the registry and compared, byte for byte, with the file that the device
served at that version.

    python -m tests.system.demo [--folder build/demo] [--rounds 6]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import edgecloud
from edgecommon.runtime import Runtime, load
from modelwire import manifest_of
from modelwire.tensors import F32
from tests.charts import legend_below
from tests.system import telling
from tests.system.brokers import Broker, start_broker
from tests.system.fleet import Fleet
from tests.system.telling import begin
from tests.worlds import MODELS, World, world

FOLDER = Path("build/demo")
DEVICES = {"pi-1": ("digits", 0), "pi-2": ("digits", 1), "pi-3": ("motion", 0), "pi-4": ("motion", 2)}
KILLED = "pi-2"
TIMEOUT = 240.0  # seconds; the demo takes about a quarter of it
PATIENCE = 20.0  # seconds that the world waits for a round: one that a kill left unsaid must not hold it up for good


@dataclass(frozen=True)
class Task:
    """How a model is trained in the demo."""

    samples: int  # that arrive at once, and that make a round due
    settings: dict[str, str]


TASKS = {
    "digits": Task(240, {"train.learning_rate": "0.05", "train.epochs": "8"}),
    "motion": Task(48, {"train.learning_rate": "0.003", "train.epochs": "8"}),
}


@dataclass(frozen=True)
class Row:
    """What became of one device's model. Bytes are of whole signed containers; percent is of the float32 state."""

    id: str
    model: str
    versions: int
    accuracy_before: float
    accuracy_after: float
    bytes_sent: int
    snapshot_bytes: int  # had each version been sent as the whole file
    median_delta_percent: float
    lost: int
    mismatched: int
    accuracy: list[float]  # of each version, the base first
    bytes: list[int]  # of each version's container


def main(argv: list[str] | None = None) -> int:
    """Run the demo and return 0 when nothing was lost, nothing differs and every device got better."""
    begun = begin("demo", __doc__, argv, folder=FOLDER, rounds=6, help="rounds of fine-tuning of each device")
    folder, say = begun.folder, begun.say
    with start_broker(folder / "broker", say) as broker:
        fleet = Fleet(folder, broker.url)
        try:
            live(fleet, broker, begun.rounds, say)
        finally:
            fleet.close()
    say("materialising every version of every device from the registry")
    runtime = load()
    rows = [compare(fleet, runtime, device) for device in DEVICES]
    lost, mismatched = sum(r.lost for r in rows), sum(r.mismatched for r in rows)
    show(rows)
    draw(rows, folder.parent / "demo.png")
    document = {"lost": lost, "mismatched": mismatched, "devices": [public(r) for r in rows]}
    (folder.parent / "demo.json").write_text(json.dumps(document, indent=1) + "\n")
    better = all(r.accuracy_after > r.accuracy_before for r in rows)
    versions = sum(r.versions for r in rows)
    say(f"{versions} versions, {lost} lost, {mismatched} mismatched; wrote {folder.parent}/demo.json and demo.png")
    if lost or mismatched or not better or versions != begun.rounds * len(rows):
        print("demo: the fleet did not end as it should; the logs are in", folder, file=sys.stderr)
        return 1
    return 0


def live(fleet: Fleet, broker: Broker, rounds: int, say: Callable[[str], None]) -> None:
    """Let the devices live through their rounds, with a kill -9 of one of them and of the ingester in the middle."""
    say(f"broker: {broker.name} on {broker.url}")
    for model in TASKS:
        fleet.add_base(model, rehearse=True)
    stop = threading.Event()
    sensors = []
    for device, (model, seed) in DEVICES.items():
        task = TASKS[model]
        settings = {
            "link.resend": "2s", "link.reconnect_max": "2s", "train.min_new_samples": str(task.samples),
            "store.history": str(rounds + 1), **task.settings,
        }  # fmt: skip
        fleet.add_device(
            device, {model: MODELS / f"{model}.tflite"}, settings, "--rounds", str(rounds), "--fresh", "--timeout", f"{TIMEOUT:g}s"
        )
        sensors.append(threading.Thread(target=sense, args=(fleet, device, world(model, seed), task.samples, stop), daemon=True))
    say(f"registered {', '.join(DEVICES)}; starting the ingester and the devices")
    fleet.ingester.start()
    for thread, process in zip(sensors, fleet.devices.values(), strict=True):
        process.start()
        thread.start()
    try:
        wait(fleet, say, lambda: stored(fleet, KILLED) >= rounds // 2, f"{KILLED} has sent half of its versions")
        fleet.devices[KILLED].kill()
        fleet.ingester.kill()
        say(f"kill -9: {KILLED} and the ingester")
        time.sleep(1.0)
        fleet.ingester.start()
        fleet.devices[KILLED].start()
        say("both are started again")
        wait(fleet, say, lambda: not any(p.running for p in fleet.devices.values()), "all devices are done")
    finally:
        stop.set()
    for device, process in fleet.devices.items():
        if process.code:
            raise SystemExit(f"demo: {device} ended with {process.code}:\n{process.tail()}")
    fleet.ingester.stop()


def sense(fleet: Fleet, device: str, surroundings: World, n: int, stop: threading.Event) -> None:
    """Be the application on the device: append labelled samples as they come in, whatever becomes of the agent.

    The world waits for a device that learns slowly: with more samples a round a slow machine would tell another story than a fast one.
    """
    with fleet.spool(device) as spool:
        for round in itertools.count():
            x, y = surroundings.stream(round, n)
            spool.extend(surroundings.model, x, y.tolist())
            patience = time.monotonic() + PATIENCE
            stop.wait(1.0)
            while rounds_of(fleet, device, surroundings.model) <= round and time.monotonic() < patience and not stop.is_set():
                stop.wait(0.1)
            if stop.is_set():
                return


def rounds_of(fleet: Fleet, device: str, model: str) -> int:
    """Return how many rounds a device has done: those that became a version, and those that its guard took back."""
    history = fleet.home(device) / "state" / "models" / model / "history"
    versions = [int(file.stem) for file in history.glob("*.tflite")]
    log = fleet.devices[device].log
    taken_back = re.findall(r"WARNING .* rejected: ", log.read_text()) if log.exists() else []  # the answer on standard output says it too
    return max(versions, default=0) + len(taken_back)


def wait(fleet: Fleet, say: Callable[[str], None], reached: Callable[[], bool], what: str) -> None:
    """Return when it is reached; say how far all are meanwhile. Ends the demo when it takes too long or a device fails."""
    end, said = time.monotonic() + TIMEOUT, ""
    while not reached():
        now = ", ".join(f"{device} @{stored(fleet, device)}" for device in DEVICES)
        if now != said:
            say(f"at the centre: {now}")
            said = now
        if time.monotonic() > end:
            raise SystemExit(f"demo: timed out before {what}; the logs are in {fleet.folder}")
        time.sleep(0.5)
    say(what)


def stored(fleet: Fleet, device: str) -> int:
    """Return how many versions of a device the registry holds."""
    with edgecloud.open(fleet.db) as registry:
        if device not in [d.name for d in registry.devices()]:
            return 0
        return sum(len(m.versions()) for m in registry.device(device).models())


def compare(fleet: Fleet, runtime: Runtime, device: str) -> Row:
    """Materialise all versions of a device, compare them with what it served, and judge them on what it never saw."""
    model, seed = DEVICES[device]
    place = world(model, seed)
    base = (MODELS / f"{model}.tflite").read_bytes()
    state_bytes = manifest_of(base).schema.nbytes
    history = fleet.home(device) / "state" / "models" / model / "history"
    rows = fleet.agent(device, "log", model)["models"][0]["versions"]
    log = sorted((r for r in rows if r["version"]), key=lambda r: r["version"])
    accuracy, sizes, lost, mismatched = [judge(runtime, base, place)], [], 0, 0
    with edgecloud.open(fleet.db) as registry:
        held = {v.number: v for v in registry.device(device).model(model).versions()}
        for entry in log:
            served = (history / f"{entry['version']}.tflite").read_bytes()
            if hashlib.sha256(served).hexdigest() != entry["file_sha256"]:
                raise SystemExit(f"demo: {device}@{entry['version']}: the device's own copy is not what it says it served")
            version = held.get(entry["version"])
            if version is None or version.status != "verified":
                lost += 1
                continue
            mismatched += version.file() != served
            accuracy.append(judge(runtime, version.file(), place))
            sizes.append(version.size)
    return Row(
        device, model, len(log), accuracy[0], accuracy[-1], sum(sizes), len(base) * len(sizes),
        round(100 * statistics.median(sizes) / state_bytes, 3), lost, mismatched, accuracy, sizes,
    )  # fmt: skip


def judge(runtime: Runtime, file: bytes, place: World) -> float:
    """Return the accuracy, 0 to 1, of a served file on the held-out side of a world, by the real runtime."""
    output: F32 = runtime.open(file, model=place.model).evaluate(place.test_x)
    return round(float(np.mean(output.argmax(-1) == place.test_y)), 4)


def public(row: Row) -> dict[str, object]:
    """Return the row as build/demo.json holds it."""
    return {k: v for k, v in asdict(row).items() if k not in ("lost", "mismatched", "accuracy", "bytes")}


def show(rows: list[Row]) -> None:
    """Print what happened."""
    cells = [
        (
            r.id, r.model, r.versions, f"{r.accuracy_before:.3f} -> {r.accuracy_after:.3f}", f"{r.bytes_sent:,}",
            f"{r.snapshot_bytes:,}", f"1/{r.snapshot_bytes / max(1, r.bytes_sent):.0f}", r.lost, r.mismatched,
        )
        for r in rows
    ]  # fmt: skip
    names = ("device", "model", "versions", "accuracy", "bytes\nsent", "snapshot\nbytes", "ratio", "lost", "differ")
    telling.show(telling.table("every version rebuilt at the centre, compared with the file that was served", names, cells, left=2))


def draw(rows: list[Row], path: Path) -> None:
    """Write the chart of accuracy and bytes per round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for r in rows:
        left.plot(range(len(r.accuracy)), r.accuracy, marker="o", label=f"{r.id} ({r.model})")
        right.plot(range(1, len(r.bytes) + 1), r.bytes, marker="o", label=f"{r.id} ({r.model})")
    left.set(title="accuracy on what the device never saw", xlabel="version (0 is the base)", ylabel="accuracy", ylim=(0, 1.02))
    right.set(title="bytes of each update, signed and whole", xlabel="version", ylabel="bytes", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        legend_below(axes, columns=2)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
