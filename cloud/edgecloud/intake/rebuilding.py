"""Rebuilds what was stored, in lineage order, and says verified or refused. Never on the way to an acknowledgement."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from edgecloud.registry import HeadRow, LineageRow, Store, VersionRow
from edgecloud.versions import materialise
from modelwire.errors import DiskUnwritable, LineageError, ModelWireError, StateBusy
from modelwire.lattice.state import ModelState

from . import linking
from .decision import OURS, Bounds, Context, Reply, clean

log = logging.getLogger("edgecloud.rebuild")


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one stored version."""

    name: str
    ok: bool
    reason: str
    replies: tuple[Reply, ...]


class Rebuilder:
    """The rebuild of one registry, for one thread with a store of its own. Keeps the newest states in memory, bounded."""

    def __init__(
        self, store: Store, *, kept_bytes: int = 512 * 1024 * 1024, bounds: Bounds | None = None, seconds: float = 2.0,
        sign: Callable[[Store], None] = lambda store: None,
    ) -> None:  # fmt: skip
        """seconds: after so much work what is proven is committed; a version deep in its chain may take that long alone.

        sign: called in the transaction of what was judged, last: signs the end of the log.
        """
        self.store, self._sign = store, sign
        self._seconds = seconds
        self._bounds = bounds if bounds is not None else Bounds()
        self._bases = materialise.LoadedBases(store)
        self._kept: OrderedDict[bytes, ModelState] = OrderedDict()
        self._room, self._held = kept_bytes, 0
        self._damaged: set[int] = set()  # lineages that this registry can't rebuild: set aside until it is restored
        self._slow: dict[int, float] = {}  # lineages whose versions took long, and how long: all others come first

    def run(self, now: int, limit: int = 64, stopping: Callable[[], bool] = lambda: False) -> list[Judged]:
        """Return what came of the next stored versions, committed in one transaction; empty when nothing waits."""
        end = time.monotonic() + self._seconds
        results: list[tuple[VersionRow, LineageRow, ModelWireError | None]] = []
        bad: set[int] = set()
        for version in self._waiting(limit):
            if results and (time.monotonic() > end or stopping()):
                break
            if version.parent_id in bad:  # refused together with its parent, below
                bad.add(version.id)
                continue
            try:
                lineage = self.store.lineages.by_id(version.lineage)
            except LineageError:
                continue  # its device was erased meanwhile
            began = time.monotonic()
            try:
                self._build(lineage, version)
                results.append((version, lineage, None))
            except (StateBusy, DiskUnwritable):
                raise  # it passes; nothing is lost but the work
            except OURS as error:
                # The registry is at fault, not the device: its versions stay stored, everybody else's go on.
                log.error("%s can't be rebuilt and is set aside: %s", lineage, error)
                self._damaged.add(lineage.id)
            except ModelWireError as error:
                bad.add(version.id)
                results.append((version, lineage, error))
            except Exception:
                # An update that finds a bug would otherwise stop the whole fleet, and again after each start.
                log.exception("%s met a fault of this program and is set aside", f"{lineage}@{version.version}")
                self._damaged.add(lineage.id)
            self._took(lineage.id, time.monotonic() - began)
        context = Context(self.store, self._bounds, now)
        out: list[Judged] = []
        if results:
            with self.store.transaction():
                erased = self.store.erasures.under_way()
                for version, lineage, refused in results:
                    if lineage.device in erased or self.store.versions.by_id(version.id) is None:
                        continue  # its device was erased meanwhile
                    out += [self._accept(context, lineage, version)] if refused is None else refuse_tree(context, version, refused)
                self._sign(self.store)
        return out

    def _waiting(self, limit: int) -> list[VersionRow]:
        """Return versions that wait, each lineage's in their order: one whose trainings take long keeps nobody else waiting."""
        after, slow = 0, list[VersionRow]()
        while batch := self.store.versions.unverified(limit, after):
            after = batch[-1].id
            sound = [v for v in batch if v.lineage not in self._damaged]
            slow += [v for v in sound if v.lineage in self._slow][: limit - len(slow)]
            if out := [v for v in sound if v.lineage not in self._slow]:
                return out
        return sorted(slow, key=lambda v: self._slow[v.lineage])

    def _took(self, lineage: int, seconds: float) -> None:
        took = self._slow.pop(lineage, 0.0) / 2 + seconds
        if took > self._seconds:
            self._slow[lineage] = took

    def _build(self, lineage: LineageRow, version: VersionRow) -> None:
        state = self._kept.pop(version.parent, None)
        self._held -= _size(state) if state is not None else 0
        if version.kind == "snapshot":
            state = self._bases[version.base].state()
        if state is None:
            materialise.require_served(lineage, version)
            state = materialise.rebuild(self.store, version, self._bases)
        else:
            materialise.step(self.store, lineage, version, state)
        self._kept[version.commit] = state
        self._held += _size(state)
        while len(self._kept) > 1 and self._held > self._room:  # models of all sizes share the room
            self._held -= _size(self._kept.popitem(last=False)[1])

    def _accept(self, context: Context, lineage: LineageRow, version: VersionRow) -> Judged:
        self.store.versions.verify(version.id)
        row = self.store.versions.by_id(version.id)
        assert row is not None
        return Judged(f"{lineage}@{version.version}", True, "", (linking.current_receipt(context, row),))


def _size(state: ModelState) -> int:
    return 12 * state.manifest.schema.size  # weights, integers, and a share of the base


def refuse_tree(context: Context, version: VersionRow, error: ModelWireError) -> list[Judged]:
    """Refuse a version and all that were built on it, and move the head back to the last good commit, in one transaction."""
    store = context.store
    lineage = store.lineages.by_id(version.lineage)
    condemned = [version]
    for one in condemned:
        condemned += store.versions.served_children(one.id)
    reason = clean(str(error))
    reasons = [reason] + [clean(f"version {version.version}, before it, was refused: {reason}")] * (len(condemned) - 1)
    for one, reason in zip(condemned, reasons, strict=True):
        store.versions.refuse(one.id, reason)
    head = store.lineages.head(lineage.id, version.epoch)
    if head is not None and head.version_id in {one.id for one in condemned}:
        parent = store.versions.by_id(version.parent_id) if version.parent_id is not None else None
        good = HeadRow(parent.id, parent.commit, parent.version) if parent else HeadRow(None, version.parent, 0)
        store.lineages.move_head(lineage.id, version.epoch, head.commit, good)
    out = []
    for one, reason in zip(condemned, reasons, strict=True):
        receipt = linking.refused_receipt(context, linking.Subject.of_row(lineage, one), reason)
        orphans = linking.refuse_orphans(context, one.commit, f"version {one.version} was refused")
        out.append(Judged(f"{lineage}@{one.version}", False, reason, (receipt, *orphans)))
    return out
