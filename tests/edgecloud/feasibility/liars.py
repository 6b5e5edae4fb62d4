"""A small planted fleet with a probe set of all its worlds, and a car whose first version says what nobody finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecloud.probes import sets
from edgecloud.registry import SqliteStore
from modelwire.lattice.snap import snap
from modelwire.tensors import F32
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre
from tests.edgecloud.device import Base, ScriptedDevice
from tests.planted import WORLDS, Plan, fleet, probes
from tests.worlds import MODELS

SMALL = Plan(seed=5, per_world=2, rounds=2, steps=10)
PROBES, LIAR = "roads", "car-999"


def planted(folder: Path, rows: int = 60) -> SqliteStore:
    """Return the registry of a small fleet, with the probe set PROBES of `rows` rows of each world."""
    store = fleet(folder, SMALL).open()
    seen = [probes(world, rows) for world in WORLDS]
    tags = {name: np.concatenate([one.tags[name] for one in seen]).tolist() for name in seen[0].tags}
    made = sets.probe_set(np.concatenate([one.x for one in seen]), np.concatenate([one.y for one in seen]), tags)
    sets.add(store, PROBES, made, now=2_000)
    return store


class Car:
    """A car that sends whatever weights it is given, in the name of what it says of them."""

    def __init__(self, store: SqliteStore, name: str = LIAR) -> None:
        self.base = Base.of(MODELS / "digits.tflite")
        self.centre = Centre(store, now=3_000)
        self.device = self.centre.meet(ScriptedDevice(self.base, name=name))

    def send(self, flat: list[F32], **said: Any) -> None:
        made = snap(self.device.state, flat, self.device.residual, density=1.0, max_bytes=1 << 22)
        self.device.state, self.device.residual = made.state, made.residual
        self.centre.deliver(self.device, self.device.seal(Kind.DELTA, made.sections, extension=said))
        self.centre.rebuild()

    def wrong(self) -> list[F32]:
        """Return the base's weights, its last layer's classes each one too far: hardly a row is right."""
        flat = [weights.copy() for weights in self.base.weights]
        specs = self.base.manifest.schema.tensors
        for spec, weights in zip(specs, flat, strict=True):
            if spec.shape[-1] == 10:
                weights[:] = np.roll(weights.reshape(spec.shape), 1, -1).reshape(-1)
        return flat
