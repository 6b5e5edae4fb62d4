"""A device in a temporary folder for tests: made as `init` makes it, with a model whose training is scripted."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.features.gathering import Extractors
from edgeagent.rounds.standing import OpenModel, Standing
from edgeagent.service.agent import Agent
from edgeagent.service.goal import Goal
from edgeagent.settings import reading, template
from edgeagent.settings.reading import Loaded
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.state.new_folder import create_folder
from edgeagent.system.clock import Clock
from edgeagent.training.batches import Trainable
from modelwire.tensors import F32, Weights
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire import signing
from modelwire.wire.claims import write_token
from modelwire.wire.records import Command
from tests import keys

from .centre import FAR, Centre, FakeClock

TINY = (Path(__file__).parents[1] / "models" / "tiny.tflite").read_bytes()
DEVICE_SEED = bytes(range(32, 64))
TOKEN = write_token(b"\x0c" * 16, b"\xc1" * 32)  # of a claim
PUBLIC = signing.PrivateKey(DEVICE_SEED).public

SETTINGS = {
    "device.name": "pi-7", "device.fleet": "home", "link.resend": "10s", "link.resend_max": "1h", "train.min_samples": "8",
    "train.min_new_samples": "0", "train.every": "30d", "train.epochs": "1", "train.margin": "100", "update.density": "0.2",
    "store.history": "50",
}  # fmt: skip


class ScriptedModel:
    """A model whose steps add noise, and whose answers are even: any round is accepted."""

    batch = 16
    runtime_key = "scripted 1 threads=1"
    state_is_whole = True

    def __init__(self, file: bytes, *, scale: float = 0.02, answer: Callable[[F32, Weights], F32] | None = None) -> None:
        self.weights = read_weights(file)
        self._seed, self._taken = zlib.crc32(file), 0
        self._scale = scale
        self._answer = answer

    def use(self, signature: str) -> None:
        assert signature in ("train", "")

    def close(self) -> None:
        pass

    def train(self, x: F32, y: F32, lr: float) -> float:
        rng = np.random.default_rng([self._seed, self._taken])
        self._taken += 1
        for w in self.weights.values():
            w += rng.normal(0, self._scale, w.shape).astype(np.float32)
        return 1.0

    def evaluate(self, x: F32) -> F32:
        if self._answer is not None:
            return self._answer(x, self.weights)
        return np.full((len(x), 3), 1 / 3, np.float32)

    def get_weights(self) -> Weights:
        return {name: w.copy() for name, w in self.weights.items()}

    def set_weights(self, weights: Weights) -> None:
        self.weights = {name: w.copy() for name, w in weights.items()}

    def get_state(self) -> Mapping[str, NDArray[Any]]:
        return {"taken": np.array([self._taken], np.int64)}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._taken = int(state["taken"][0])


def scripted(file: bytes, name: str) -> Trainable:
    return ScriptedModel(file)


def make(folder: Path, models: dict[str, bytes] | None = None, **changes: str) -> Loaded:
    """Make a device in `folder` and return its settings. changes: section__key="text"."""
    return make_with(folder, {k.replace("__", "."): v for k, v in changes.items()}, models)


def make_with(
    folder: Path, changes: dict[str, str], models: dict[str, bytes] | None = None, *, resume: bool = False, seed: bytes = DEVICE_SEED
) -> Loaded:
    given, models = {**SETTINGS, **changes}, models or {"tiny": TINY}
    path = folder / reading.FILE
    loaded = reading.build(
        reading.parse(template.render(given, list(models))), where="test", path=path, environment={}, flags={}
    )
    create_folder(folder, loaded, template.render(given, list(models)), models=models, seed=seed, fleet=keys.FLEET, resume=resume)
    return reading.load(path, environment={}, flags={})


def give_token(folder: Path) -> Path:
    """Make a device in `folder` that has the token of a claim beside its key, and return the token's file."""
    make(folder)
    path = folder / "device.claim"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def fill(opened: DeviceFolder, count: int = 40, model: str = "tiny", seed: int = 0) -> None:
    """Append `count` samples whose class is the largest of the first three numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    opened.spool.extend(model, x, x[:, :3].argmax(1))


def centre(clock: FakeClock, *, known: bool = True, file: bytes = TINY) -> Centre:
    """Return a centre that holds the tiny base, and the device's key when it is `known`."""
    made = Centre(clock)
    manifest = manifest_of(file)
    made.bases[manifest.commit] = (manifest, manifest.schema.flat(read_weights(file)))
    if known:
        made.keys["pi-7"] = PUBLIC
    return made


def command(r: Rig, number: int, verb: str = "snapshot", **said: Any) -> Command:
    """Return a command that holds for the device as it is now. said: what it says instead."""
    fields: dict[str, Any] = {
        "number": number, "expiry": FAR, "state": r.device.state, "epoch": r.lineage.head().epoch, "parent": b"", "verb": verb, "body": {},
    }  # fmt: skip
    return Command("home", "pi-7", r.lineage.name, 0, **{**fields, **said})


def standing(
    opened: DeviceFolder, open_model: OpenModel = scripted, model: str = "tiny", *, now: Callable[[], float] = lambda: 0.0,
    settings: Any = None, extractors: Extractors | None = None, **others: Any,
) -> Standing:  # fmt: skip
    """Return what rounds of a model stand on. now: Unix seconds; settings: in place of the device's."""
    given = {"clock": Clock(wall=now), **others}
    return Standing(opened.lineages[model], opened.spool, settings or opened.settings.model(model), open_model, extractors, **given)


class Rig:
    """An agent on an opened folder, with a centre in memory."""

    def __init__(self, opened: DeviceFolder, centre: Centre, open_model: Callable[[bytes, str], Trainable] = scripted) -> None:
        self.device, self.centre = opened, centre
        self.agent = Agent(
            opened, centre, open_model, "test", clock=Clock(centre.clock.monotonic, centre.clock.wall), rng=random.Random(1)
        )
        self.lineage = next(iter(opened.lineages.values()))

    def run(self, goal: Goal) -> None:
        self.agent.run(goal)

    def serve(self, seconds: float) -> None:
        """Run the service for so long."""
        self.centre.after(seconds, lambda: self.agent.stop("test"))
        self.agent.stopping = ""
        self.agent.run(Goal())

    def states(self) -> dict[int, str]:
        """Return the state of each version."""
        return {r["version"]: r["state"] for r in reversed(self.lineage.versions()) if r["version"] is not None}


@contextmanager
def rig(folder: Path, centre: Centre, open_model: Callable[[bytes, str], Trainable] = scripted, **changes: str) -> Iterator[Rig]:
    """Make a device when there is none in `folder`, open it and yield it with an agent."""
    path = folder / reading.FILE
    if not path.exists():
        make_with(folder, {k.replace("__", "."): v for k, v in changes.items()})
    loaded = reading.load(path, environment={}, flags={})
    with open_folder(loaded, alone=True) as opened:
        yield Rig(opened, centre, open_model)
