"""The planted fleet: each car trains on what it sees, and its updates, with cards, land in a registry through the update path."""

from __future__ import annotations

import fcntl
import functools
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecloud.registry import SqliteStore, open_registry
from edgecommon.runtime import RuntimeModel
from modelwire.cards.card import Card
from modelwire.lattice.snap import snap, training_start
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.kept import name_of
from tests.stock import ROOT, runtime
from tests.worlds import MODELS, Rng, model_file

from .worlds import BIASES, CLASSES, WORLDS, PlantedWorld, SeenRows, seen

KEPT = ROOT / "build" / "planted"
MODEL, REGISTRY, FACTS = "digits", "fleet.db", "planted.json"
BATCH, RATE = 32, 0.05
HELD_OUT = 200  # rows on which a car judges its model
DAY = 86_400
DENSITY = 0.05  # of the weights, a round


@dataclass(frozen=True, slots=True)
class Plan:
    """What fleet is made. A world that is not among `biased` has its devices and name, and sees what `plain` sees."""

    seed: int = 0
    per_world: int = 10
    rounds: int = 4  # each a version, a day after the one before
    steps: int = 20  # of 32 rows, a round
    biased: tuple[str, ...] = BIASES  # () is a fleet without bias
    streaky: float = 0.0  # how much days differ: see `worlds.seen`

    @property
    def devices(self) -> dict[str, str]:
        """World by name of device, in an order that tells no world."""
        names = [world for world in WORLDS for _ in range(self.per_world)]
        order = np.random.default_rng([7, self.seed]).permutation(len(names))
        return {f"car-{n:03}": names[i] for n, i in enumerate(order)}

    def world(self, name: str) -> PlantedWorld:
        return WORLDS[name] if name in self.biased else WORLDS["plain"]


@dataclass(frozen=True, slots=True)
class PlantedFleet:
    """A registry of a planted fleet, the caller's own copy. worlds: by device; accuracies: of each device's newest model in its world."""

    plan: Plan
    path: Path
    worlds: dict[str, str]
    accuracies: dict[str, float]

    def open(self) -> SqliteStore:
        return open_registry(self.path, synchronous="OFF")


def fleet(folder: Path, plan: Plan = Plan()) -> PlantedFleet:
    """Return the planned fleet in an own folder. It is made once and kept under build/planted; tests skip where no runtime is."""
    kept = _kept(plan)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    facts = json.loads((folder / FACTS).read_text())
    return PlantedFleet(plan, folder / REGISTRY, facts["worlds"], facts["accuracies"])


def cards(plan: Plan, *, channels: bool = True) -> dict[str, list[Card]]:
    """Return each device's cards, one a round, without any training: those that `fleet` sends.

    channels: False leaves them out, which is some ten times as fast.
    """
    return {
        device: [car.rows(round, pictures=channels).card(car.world.board) for round in range(plan.rounds)]
        for device, car in _cars(plan).items()
    }  # fmt: skip


def probes(world: str, n: int, seed: int = 0, *, jitter: float = 0.0) -> SeenRows:
    """Return n held-out rows of a world with their tags: of pictures that no training has seen."""
    return seen(WORLDS[world], np.random.default_rng([11, seed, list(WORLDS).index(world)]), n, side="test", jitter=jitter)


@dataclass(frozen=True, slots=True)
class _Car:
    number: int
    plan: Plan
    world: PlantedWorld
    jitter: float

    def rng(self, part: int, round: int) -> Rng:
        return np.random.default_rng([self.plan.seed, self.number, part, round])

    def rows(self, round: int, *, pictures: bool = True) -> SeenRows:
        n = BATCH * self.plan.steps
        return seen(self.world, self.rng(1, round), n, jitter=self.jitter, streaky=self.plan.streaky, pictures=pictures)

    def held_out(self) -> SeenRows:
        return seen(self.world, self.rng(2, 0), HELD_OUT, side="test", jitter=self.jitter)


def _cars(plan: Plan) -> dict[str, _Car]:
    turns = np.random.default_rng([8, plan.seed]).normal(0, 2.0, len(plan.devices))
    return {
        device: _Car(number, plan, plan.world(world), float(turns[number])) for number, (device, world) in enumerate(plan.devices.items())
    }  # fmt: skip


@functools.cache
def _kept(plan: Plan) -> Path:
    """Return the folder that holds the fleet, made by whoever comes first. Another text of what makes it is another fleet."""
    here = Path(__file__).parent
    said = model_file(MODEL) + json.dumps(asdict(plan), sort_keys=True).encode()
    folder = KEPT / name_of([here / "worlds.py", here / "fleet.py"], said)
    KEPT.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=KEPT))
            _make(partial, plan)
            partial.rename(folder)
    return folder


def _make(folder: Path, plan: Plan) -> None:
    base = Base.of(MODELS / f"{MODEL}.tflite")
    model = runtime().open(base.file, model=MODEL)
    store = make_registry(folder / REGISTRY, base)
    centre, accuracies = Centre(store), dict[str, float]()
    cars = _cars(plan)
    devices = {name: centre.meet(ScriptedDevice(base, name=name, seed=plan.seed)) for name in cars}
    for round in range(plan.rounds):
        for name, car in cars.items():
            centre.now = 1000 + DAY * round + car.number
            accuracies[name] = _round(centre, devices[name], car, model, round)
        centre.rebuild()
    assert all(device.verified == 0 for device in devices.values())  # receipts are heard by nobody: the registry alone says
    store.close()
    (folder / FACTS).write_text(json.dumps({"worlds": plan.devices, "accuracies": accuracies}))


def _round(centre: Centre, device: ScriptedDevice, car: _Car, model: RuntimeModel, round: int) -> float:
    """Train one round, deliver the update with its card, and return the accuracy that it says."""
    rows, held = car.rows(round), car.held_out()
    eye, schema_ = np.eye(CLASSES, dtype=np.float32), device.base.manifest.schema
    start, residual = training_start(device.state, device.residual)
    model.set_weights(schema_.shaped(start))
    for at in range(0, len(rows), BATCH):
        model.train(rows.x[at : at + BATCH], eye[rows.y[at : at + BATCH]], RATE)
    trained = schema_.flat(model.get_weights())
    made = snap(device.state, trained, residual, density=DENSITY, max_bytes=1 << 20)
    device.state, device.residual = made.state, made.residual
    model.set_weights(device.state.named())
    accuracy = float((model.evaluate(held.x).argmax(1) == held.y).mean())
    said: dict[str, Any] = {"samples": len(rows), "steps": car.plan.steps, "accuracy_after": accuracy}
    sent = device.seal(Kind.DELTA, made.sections, extension={**said, "card": rows.card(car.world.board).encode()})
    centre.deliver(device, sent)
    return accuracy
