"""A registry and the decisions over it, driven by hand: what tests of the centre's logic stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import edgecloud
from edgecloud.intake.decision import Bounds, Decision, Reply
from edgecloud.intake.rebuilding import Judged, Rebuilder
from edgecloud.intake.routing import Ingest
from edgecloud.registry import Base as BaseRow
from edgecloud.registry import SqliteStore, create_registry, open_registry
from modelwire.wire import signing
from modelwire.wire.records import Level, Receipt, Record

from .device import FLEET, Base, ScriptedDevice, Sent

FLEET_KEY = signing.PrivateKey(b"f" * 32)


def make_registry(path: Path, base: Base | None, **options: int) -> SqliteStore:
    """Return a new registry, with a base if one is given. No power is cut here, so nothing waits for the disk."""
    create_registry(path, fleet=FLEET, public_key=FLEET_KEY.public, now=1, **options)
    store = open_registry(path, synchronous="OFF")
    if base is not None:
        add_base(store, base)
    return store


def add_base(store: SqliteStore, base: Base, name: str = "digits") -> None:
    store.bases.add(BaseRow(base.manifest.commit, name, base.manifest.encode(), store.blobs.put(base.file), len(base.file), 1))


@dataclass
class Centre:
    """Ingest and rebuild over one registry, driven by hand; it remembers every reply."""

    store: SqliteStore
    bounds: Bounds = field(default_factory=Bounds)
    now: int = 1000
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ingest = Ingest(self.store, self.bounds)
        self.rebuilder = Rebuilder(self.store, bounds=self.bounds)

    def _kept(self, outcome: Decision) -> Decision:
        self.replies += outcome.replies
        return outcome

    def take(self, message: tuple[str, bytes]) -> Decision:
        return self._kept(self.ingest.take(*message, self.now))

    def tick(self) -> list[Decision]:
        return [self._kept(o) for o in self.ingest.released(self.now)]

    def rebuild(self) -> list[Judged]:
        out: list[Judged] = []
        while judged := self.rebuilder.run(self.now):
            out += judged
        for one in out:
            self.replies += one.replies
        return out

    def said(self) -> list[Record]:
        """Return what was said since the last call."""
        records = [r.record for r in self.replies]
        self.replies.clear()
        return records

    def meet(self, device: ScriptedDevice) -> ScriptedDevice:
        """Register a device and exchange hello and welcome."""
        if self.store.devices.owner(device.key.public) is None:
            self.store.devices.add(device.name, device.key.public, self.now)
        self.take(device.hello())
        for record in self.said():
            device.hear(record)
        assert device.epoch > 0
        return device

    def deliver(self, device: ScriptedDevice, *sent: Sent) -> list[Decision]:
        return [self.take(device.update(s)) for s in sent]

    def receipts(self) -> list[tuple[int, Level]]:
        """Return version and level of the receipts since the last call of this or `said`."""
        return [(r.version, r.level) for r in self.said() if isinstance(r, Receipt)]

    def statuses(self, device: ScriptedDevice) -> dict[int, str]:
        lineage = self.store.lineages.get(device.name, device.model)
        return {v.version: v.status.value for v in self.store.versions.of(lineage.id)} if lineage else {}

    def head(self, device: ScriptedDevice) -> int:
        lineage = self.store.lineages.get(device.name, device.model)
        assert lineage is not None
        epoch = self.store.lineages.current(lineage.id)
        assert epoch is not None
        head = self.store.lineages.head(lineage.id, epoch.epoch)
        assert head is not None
        return head.version


def fleet_of(store: SqliteStore) -> edgecloud.Fleet:
    return edgecloud.open(store.database.path)


def damage(store: SqliteStore, sql: str, *values: object) -> None:
    """Change a row behind the registry's back."""
    for (name,) in store.database.all("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        store.database.run(f"DROP TRIGGER {name}")
    store.database.run("PRAGMA ignore_check_constraints = ON")
    store.database.run(sql, *values)
