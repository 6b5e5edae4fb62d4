"""A small registry with something of everything, to be ended and damaged at every place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edgecloud.registry import SqliteStore
from tests.edgecloud.centre import Centre, add_base, make_registry, sign
from tests.edgecloud.device import BULK, PART, ScriptedDevice, Sent
from tests.simulator.audit import Remembered
from tests.simulator.made import GIVEN_UP, VERIFIED, WAITING, Made
from tests.simulator.simulation import bases

NOW = 2000  # Unix seconds of the centre's clock
Message = tuple[str, bytes]


@dataclass
class SmallFleet:
    """A registry that nobody has open, what its devices remember, and what they would say next."""

    path: Path
    devices: list[ScriptedDevice] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)
    lies: set[bytes] = field(default_factory=set)

    def remembered(self) -> Remembered:
        return {f"{d.name}/{d.model}": list(self._past(d)) for d in self.devices}

    def keys(self) -> dict[str, bytes]:
        return {d.name: d.key.public for d in self.devices}

    def _past(self, d: ScriptedDevice) -> list[Made]:
        out = []
        for version, sent in d.made.items():
            fate = GIVEN_UP if version in d.refused else WAITING if version in d.waiting else VERIFIED
            out.append(Made(version, sent.commit, sent.root, sent.file_sha256, fate, sent.commit in self.lies))
        return out


def small_fleet(folder: Path, *, devices: int = 3, versions: int = 10, unjudged: int = 0) -> SmallFleet:
    """Make a registry of some devices with so many verified versions each, of all kinds, and messages that they say next.

    unjudged: so many more of each are stored and not rebuilt yet.
    """
    first, other = bases()
    store = make_registry(folder / "fleet.db", first, files_from=4096)
    add_base(store, other, "digits-2")
    centre, fleet = Centre(store, now=NOW - 500), SmallFleet(folder / "fleet.db")
    for i in range(devices):
        device = centre.meet(ScriptedDevice(first, name=f"pi-{i}", seed=i))
        fleet.devices.append(device)
        for n in range(versions):
            centre.deliver(device, _one(device, n))
        centre.rebuild()
        for record in centre.said():
            device.hear(record)
    for device in fleet.devices:
        for n in range(unjudged):
            centre.deliver(device, _one(device, n + 1))
    store.close()
    for device in fleet.devices:
        fleet.said += _next(fleet, device)
    return fleet


def _one(device: ScriptedDevice, n: int) -> Sent:
    """Return the n-th update of a device: a kind each in its turn."""
    if n % 10 == 4:
        return device.snapshot()
    if n % 10 == 6:
        return device.learn(range(20 * n, 20 * n + 12))
    if n % 10 == 7:
        return device.train(extension=BULK)
    return device.train(density=0.3 if n % 2 else 0.02)


def _next(fleet: SmallFleet, device: ScriptedDevice) -> list[Message]:
    """Return what a device says after all this: updates in and out of order, one in parts, one that lies, and one without a parent."""
    a, b, c = device.train(), device.train(), device.train()
    out = [device.hello(), device.presence(True, 2), device.update(a), device.update(c), device.update(b)]
    large = device.train(extension=BULK)
    _, manifest, pieces = device.transfer(large, PART)
    out += [manifest, *pieces]
    lie = device.train(fingerprint=(1, 2))
    fleet.lies.add(lie.commit)
    return [*out, device.update(lie), device.update(device.train())]


def take_all(said: list[Message], *, batch: int = 4) -> Callable[[SqliteStore], None]:
    """Return the work of taking messages in, so many a commit. Done again, they all come again: none of them was acknowledged."""

    def work(store: SqliteStore) -> None:
        centre = Centre(store, now=NOW)
        for i in range(0, len(said), batch):
            with store.transaction():
                centre.ingest.catch_up()
                for message in said[i : i + batch]:
                    centre.ingest.take(*message, NOW)
                sign(store)

    return work


def judge_all(store: SqliteStore) -> None:
    """Rebuild whatever waits."""
    centre = Centre(store, now=NOW)
    while centre.rebuilder.run(NOW, limit=4):
        pass


def take_and_judge(said: list[Message]) -> Callable[[SqliteStore], None]:
    """Return the work of an ingester: take messages in, and rebuild what they brought."""
    take = take_all(said)

    def work(store: SqliteStore) -> None:
        take(store)
        judge_all(store)

    return work
