"""A registry and the decisions over it, driven by hand: what tests of the centre's logic stand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import edgecloud
from edgecloud import keys
from edgecloud.audit.signing import sign_end
from edgecloud.intake.decision import Bounds, Decision, Reply, Result
from edgecloud.intake.rebuilding import Judged, Rebuilder
from edgecloud.intake.routing import Ingest
from edgecloud.keys import load_key
from edgecloud.registry import ActRow, LineageRow, Request, SqliteStore, Store, TrustRow, create_registry, open_registry
from edgecloud.registry import Base as BaseRow
from modelwire.wire.records import Act, Command, Level, Receipt, Record, encode
from modelwire.wire.signing import PrivateKey
from tests.keys import COMMAND, FLEET_ID, RECEIPT, ROOT, trust
from tests.keys import FLEET as IDENTITY

from .device import FLEET, Base, ScriptedDevice, Sent

SECRET = bytes(range(32))  # of the challenges
TRUST = TrustRow(1, encode(trust(FLEET), ROOT, FLEET_ID))


def make_registry(path: Path, base: Base | None, **options: int) -> SqliteStore:
    """Return a new registry, with a base if one is given. No power is cut here, so nothing waits for the disk."""
    create_registry(path, fleet=FLEET, identity=IDENTITY, trust=TRUST, now=1, **options)
    store = open_registry(path, synchronous="OFF")
    if base is not None:
        add_base(store, base)
    return store


def add_base(store: SqliteStore, base: Base, name: str = "digits") -> None:
    store.bases.add(BaseRow(base.manifest.commit, name, base.manifest.encode(), store.blobs.put(base.file), len(base.file), 1))


def ask(
    store: SqliteStore, lineage: LineageRow, *, number: int = 77, verb: str = "snapshot", at: int = 5, expiry: int = 1 << 40
) -> Request:
    """Keep a command that the operator's key has sealed, as `edgecloud snapshot request` does, and return it."""
    epoch = store.lineages.current(lineage.id)
    state, granted = (epoch.state, epoch.epoch) if epoch else (bytes(16), 1)
    said = Command(store.fleet, lineage.device, lineage.model, at, number, expiry, state, granted, b"", verb, {})
    request = Request(number, lineage.id, verb, encode(said, _key(store, keys.COMMAND, COMMAND), store.identity.id), expiry, at)
    store.requests.add(request)
    return request


def admit(store: SqliteStore, device: str, key: bytes, now: int) -> None:
    """Let a key speak for a device, as `edgecloud devices add` does: sealed, entered in the log, and listed."""
    with store.transaction():
        _decide(store, device, "admit", key, now)
        store.devices.add(device, key, now)


def revoke(store: SqliteStore, device: str, now: int) -> None:
    """End what speaks for a device, as `edgecloud devices revoke` does."""
    with store.transaction():
        for one in store.devices.keys(device):
            if one.revoked_at is None:
                _decide(store, device, "revoke", one.key, now)
        store.devices.revoke(device, now)


def _decide(store: SqliteStore, device: str, verb: str, key: bytes, now: int) -> None:
    number = max(store.acts.last(), store.policies.current().number, *(one.number for one in store.erasures.all()), 0) + 1
    said = Act(store.fleet, device, "all", now, number, verb, key)
    store.acts.add(ActRow(number, device, verb, key, encode(said, _key(store, keys.COMMAND, COMMAND), store.identity.id)))


def sign(store: Store) -> None:
    """Sign the end of the log, as the ingester does in each of its transactions."""
    sign_end(store, _key(store, keys.RECEIPT, RECEIPT), "the registry")


def _key(store: Store, name: str, ours: PrivateKey) -> PrivateKey:
    """Return the key that lies beside the registry, as `edgecloud init` makes it; ours where there is none."""
    assert isinstance(store, SqliteStore)
    path = store.database.path.parent / name
    return load_key(path, keys.SECRET[name]) if path.exists() else ours


@dataclass
class Centre:
    """Ingest and rebuild over one registry, driven by hand; it remembers every reply."""

    store: SqliteStore
    bounds: Bounds = field(default_factory=Bounds)
    now: int = 1000
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ingest = Ingest(self.store, self.bounds, secret=SECRET)
        self.rebuilder = Rebuilder(self.store, bounds=self.bounds, sign=sign)

    def _kept(self, outcome: Decision) -> Decision:
        self.replies += outcome.replies
        return outcome

    def take(self, message: tuple[str, bytes]) -> Decision:
        with self.store.transaction():
            self.ingest.catch_up()
            outcome = self.ingest.take(*message, self.now)
            sign(self.store)
        return self._kept(outcome)

    def tick(self) -> list[Decision]:
        with self.store.transaction():
            self.ingest.catch_up()
            outcomes = self.ingest.released(self.now)
            sign(self.store)
        return [self._kept(o) for o in outcomes]

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
            admit(self.store, device.name, device.key.public, self.now)
        self.greet(device)
        for record in self.said():
            device.hear(record)
        assert device.epoch > 0
        return device

    def greet(self, device: ScriptedDevice) -> Decision:
        """Take a device's hello, and the next one, which answers the challenge, where it is challenged."""
        device.fleet_id = self.store.identity.id
        outcome = self.take(device.hello())
        if outcome.result is Result.CHALLENGED:
            for record in self.said():
                device.hear(record)
            outcome = self.take(device.hello())
        return outcome

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


def fleet_of(store: SqliteStore) -> edgecloud.Registry:
    return edgecloud.open(store.database.path)


def damage(store: SqliteStore, sql: str, *values: object) -> None:
    """Change a row behind the registry's back, and leave its schema as it was."""
    triggers = store.database.all("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    for name, _ in triggers:
        store.database.run(f"DROP TRIGGER {name}")
    store.database.run("PRAGMA ignore_check_constraints = ON")
    store.database.run(sql, *values)
    for _, made in triggers:
        store.database.run(made)
