"""What the registry knows of every device at once, for a list of the fleet: a few queries, however many devices there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from edgecloud.intake import epochs
from edgecloud.intake.decision import Bounds
from edgecloud.registry import DeviceKey, LineageStanding, SqliteStore
from modelwire.errors import WireError
from modelwire.wire import cbor, records
from modelwire.wire.keys import fingerprint

from .. import losses
from ..answer import Document, now
from ..waiting import ADMITTED, REVOKED, line

ACCURACY = "accuracy_after"
RARE = frozenset({"epochs", "lost", "wish"})  # what few models have: those of `Lineages.remarkable`


def describe_all(store: SqliteStore) -> list[Document]:
    """Return what a document says of all devices and of their models; by name."""
    standings, witnesses = defaultdict[str, list[LineageStanding]](list), defaultdict[str, list[Document]](list)
    for standing in store.lineages.standings():
        standings[standing.lineage.device].append(standing)
    for witness in losses.witnesses_of(store):
        witnesses[witness["device"]].append(witness)
    some, unfit = store.lineages.remarkable(now() - epochs.DAY), _unfit(store, (one for of in standings.values() for one in of))
    return [
        _described(store, name, known, standings[name], witnesses[name], some, unfit)
        for name, known in sorted(store.devices.all_keys().items())
    ]


def describe_some(store: SqliteStore, names: Iterable[str]) -> dict[str, Document]:
    """Return the same of some devices by name: a few queries for each of them, however many others there are."""
    out = {}
    for name in names:
        standings = store.lineages.standings(name)
        out[name] = _described(
            store, name, store.devices.keys(name), standings, losses.witnesses_of(store, name), None, _unfit(store, standings)
        )  # fmt: skip
    return out


def _described(
    store: SqliteStore, name: str, known: list[DeviceKey], models: list[LineageStanding], witness: list[Document],
    some: Mapping[int, frozenset[str]] | None, unfit: Mapping[int, str],
) -> Document:  # fmt: skip
    """Return what a document says of a device. some: what few models have, by lineage; None: it is looked up. unfit: why, by lineage."""
    active = [k for k in known if k.revoked_at is None]
    told = [_model(store, m, active, RARE if some is None else some.get(m.lineage.id, frozenset()), unfit) for m in models]
    seen = [m.seen_at for m in models if m.seen_at is not None]
    return {
        "device": name, "status": ADMITTED if active else REVOKED, "keys": [line(k.key) for k in active],
        "fingerprints": [fingerprint(k.key) for k in active], "admitted_at": max((k.added_at for k in active), default=None),
        "seen_at": max(seen, default=None), "models": told, "witness": witness,
    }  # fmt: skip


def _unfit(store: SqliteStore, standings: Iterable[LineageStanding]) -> dict[int, str]:
    """Return which models' heads are unfit, and why, by lineage."""
    heads = {one.head_id: one.lineage.id for one in standings if one.head_id is not None}
    if not heads or not any(True for _ in store.probes.all()):
        return {}  # nothing was scored
    from edgecloud.feasibility import fitness  # which loads what rebuilds and runs models

    return {heads[id]: found.words for id, found in fitness.unfit(store, heads).items()}


def _model(
    store: SqliteStore, m: LineageStanding, active: list[DeviceKey], some: frozenset[str], unfit: Mapping[int, str]
) -> Document:  # fmt: skip
    """Return what a document says of a model. some: what the registry holds of it that few models have."""
    opened = None
    if "epochs" in some:
        opened = epochs.rate(store, m.lineage.id, _admitted_at(store, m.lineage.device, active), now(), Bounds())
    metrics = _metrics(m.extension)
    accuracy = metrics.get(ACCURACY)
    return {
        "model": m.lineage.model,
        "epoch": m.epoch,
        "epochs_of_a_day": opened.opened if opened else 0,
        "epochs_free_at": (opened.free_at or None) if opened else None,
        "head": m.head,
        "verified": m.verified,
        "last_version": m.lineage.last_version,
        "versions": m.versions,
        "bytes": m.size,
        "accuracy": accuracy if isinstance(accuracy, float) and 0 <= accuracy <= 1 else None,
        "unfit": unfit.get(m.lineage.id),
        "lost": losses.lost_of(store, m.lineage) if "lost" in some else [],
        "state": ("on line" if m.online else "off line") if m.boot else "",
        "seen_at": m.seen_at,
        "runtime": m.runtime,
        "agent": m.agent,
        "would_resume": (_wished(store, m) or None) if "wish" in some else None,
    }


def _wished(store: SqliteStore, m: LineageStanding) -> int:
    from .resuming import wished  # few models ask, and it loads what makes the way back

    return wished(store, m.lineage)


def _metrics(extension: bytes) -> Mapping[str, cbor.Value]:
    if not extension:
        return {}
    try:
        metrics = cbor.decode(extension, "extension")
    except WireError:  # of a row that was changed: `verify` tells which
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _admitted_at(store: SqliteStore, name: str, active: list[DeviceKey]) -> int:
    """Return when a key that speaks was last admitted, or the operator reset the device."""
    speaking = {k.key for k in active}
    acts = [records.parse(act.record).record.at for act in store.acts.of(name) if act.verb == "admit" and act.key in speaking]
    return max((*acts, *(k.added_at for k in active)), default=0)
