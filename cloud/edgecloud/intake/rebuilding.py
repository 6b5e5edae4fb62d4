"""Rebuilds what was stored, in lineage order, and says verified or refused. Never on the way to an acknowledgement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgecloud.registry import HeadRow, LineageRow, Status, Store, VersionRow
from edgecloud.workers import worker
from edgecloud.workers.building import Builder
from edgecloud.workers.pool import WorkerPool, WorkOutcome
from modelwire.errors import DiskUnwritable, LineageError, ModelWireError, StateBusy

from . import linking
from .decision import OURS, Bounds, Context, Reply, clean
from .quotas.trainings import Trainings
from .quotas.turns import VersionTurns

log = logging.getLogger("edgecloud.rebuild")
FAULTY = "%s met a fault of this program and is set aside"
POLL = 1.0  # seconds between two looks whether it is to stop, while workers work
TRAINED = 0.1  # seconds that this waits for a training where nothing else is to be done
SCANNED = 256  # versions that are looked at together
TOGETHER = 0.02  # seconds that what was proven waits for more, to be committed with it


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one stored version."""

    id: int  # its row's
    name: str
    ok: bool
    reason: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class _Built:
    """What came of the work on one version. error: why it is refused; empty otherwise."""

    version: VersionRow
    lineage: LineageRow
    error: str
    sketch: bytes = b""


class _SetAside:
    """Lineages that this registry can't rebuild: left alone until it is restored, or until their board sends all of its state anew."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}  # by lineage: the last version that failed
        self._since: dict[int, int] = {}  # by lineage: the snapshot behind it, which needs nothing of what came before

    def add(self, version: VersionRow) -> None:
        """Leave the lineage of a version alone that can't be rebuilt for no fault of its own."""
        self._last[version.lineage] = max(version.id, self._last.get(version.lineage, 0))
        self._since.pop(version.lineage, None)

    def holds(self, version: VersionRow) -> bool:
        """Return whether a version is left alone."""
        last = self._last.get(version.lineage)
        if last is None:
            return False
        if version.kind == "snapshot" and version.id > last:
            self._since.setdefault(version.lineage, version.id)
        return version.id < self._since.get(version.lineage, version.id + 1)


class Rebuilder:
    """The rebuild of one registry, for one thread with a store of its own. Keeps the newest states in memory, bounded."""

    def __init__(
        self, store: Store, *, kept_bytes: int = 512 * 1024 * 1024, bounds: Bounds | None = None, seconds: float = 2.0,
        sign: Callable[[Store], None] = lambda store: None, pool: WorkerPool | None = None, beat: Callable[[], None] = lambda: None,
        trainings: Trainings | None = None,
    ) -> None:  # fmt: skip
        """seconds: after so much work what is proven is committed; a version deep in its chain may take that long alone.

        sign: called in the transaction of what was judged, last: signs the end of the log.
        pool: processes that do the work; without them this thread does. beat: called while it waits for them. trainings: take recipes
        off both; without them they are work like any other.
        """
        self.store, self._sign = store, sign
        self._seconds, self._pool, self._beat = seconds, pool, beat
        self._bounds = bounds if bounds is not None else Bounds()
        self._builder = Builder(store, kept_bytes)
        self._kept = self._builder.kept
        self._aside = _SetAside()
        self._slow: dict[int, float] = {}  # lineages whose versions took long, and how long: all others come first
        self._dealt: dict[int, VersionRow] = {}  # to the pool, and not judged yet
        self._void: set[int] = set()  # dealt, and refused with their parent meanwhile
        self._trainings, self._turns = trainings, VersionTurns()
        self._now = 0  # of the centre's clock, of this run
        self._after = 0  # the last version that was looked at for a turn
        self._seconds_of: dict[str, float] = {}  # that were worked for a device, and are not counted yet

    def run(self, now: int, limit: int = 64, stopping: Callable[[], bool] = lambda: False) -> list[Judged]:
        """Return what came of the next stored versions, committed in one transaction; empty when nothing waits."""
        self._now = now
        built = self._build_here(limit, stopping) if self._pool is None else self._build_there(self._pool, limit, stopping)
        context = Context(self.store, self._bounds, now)
        out: list[Judged] = []
        if built:
            with self.store.transaction():
                erased = self.store.erasures.under_way()
                for one in built:
                    if one.version.id in self._void:
                        self._void.discard(one.version.id)
                    elif one.lineage.device in erased:
                        continue
                    elif one.error:
                        if (row := self.store.versions.by_id(one.version.id)) is not None and row.commit == one.version.commit:
                            out += refuse_tree(context, one.version, one.error)
                        training = self._trainings.dealt if self._trainings is not None else {}
                        self._void |= {judged.id for judged in out} & (self._dealt.keys() | training.keys())
                    else:
                        out += self._accept(context, one)
                for device, seconds in self._seconds_of.items():
                    if device not in erased:
                        self.store.quotas.count(device, now, cpu=seconds)
                self._sign(self.store)
            self._seconds_of = {}
        return out

    @property
    def busy(self) -> bool:
        """Whether a recipe is being trained: something will come of it."""
        return self._trainings is not None and self._trainings.busy

    def _build_here(self, limit: int, stopping: Callable[[], bool]) -> list[_Built]:
        """Return what came of some versions, rebuilt by this thread."""
        end = time.monotonic() + self._seconds
        results: list[_Built] = []
        bad: set[int] = set()
        for version in self._next(limit):
            if results and (time.monotonic() > end or stopping()):
                self._look_again()
                break
            if version.parent_id in bad:  # refused together with its parent
                bad.add(version.id)
                continue
            try:
                lineage = self.store.lineages.by_id(version.lineage)
            except LineageError:
                continue  # its device was erased meanwhile
            began = time.monotonic()
            try:
                self._build(lineage, version)
                results.append(_Built(version, lineage, "", self._builder.sketch(version)))
            except (StateBusy, DiskUnwritable):
                self._look_again()
                raise  # it passes; nothing is lost but the work
            except OURS as error:
                self._set_aside(lineage, version, worker.OURS, str(error))
            except ModelWireError as error:
                bad.add(version.id)
                results.append(_Built(version, lineage, str(error)))
            except Exception:
                # An update that finds a bug would otherwise stop the whole fleet, and again after each start.
                log.exception(FAULTY, f"{lineage}@{version.version}")
                self._aside.add(version)
            self._took(lineage, time.monotonic() - began)
        return results + self._train(0.0 if results else TRAINED)

    def _build_there(self, pool: WorkerPool, limit: int, stopping: Callable[[], bool]) -> list[_Built]:
        """Return what came of some versions, rebuilt by other processes, which have the next ones in hand by then."""
        results: list[_Built] = []
        heard = set[int]()  # whose outcome is here: until it is committed, the registry says that they wait
        end = float("inf")
        while not stopping():
            self._beat()
            self._deal(pool, limit, heard, again=not results)
            results += self._train(0.0 if results or pool.waiting else TRAINED)
            if not pool.waiting:
                break
            for outcome in pool.take(min(POLL, max(0.0, end - time.monotonic()))):
                heard.add(outcome.id)
                results += self._heard(self._dealt.pop(outcome.id), outcome)
            if len(results) >= limit or time.monotonic() >= end:
                break
            if results and end == float("inf"):
                end = time.monotonic() + TOGETHER
        return results

    def _deal(self, pool: WorkerPool, limit: int, heard: set[int], again: bool) -> None:
        """Keep the pool busy. Slow lineages are dealt to it when nothing else waits. again: nothing is judged and not yet committed."""
        if pool.waiting >= 2 * limit:
            return
        versions = [v for v in self._fresh(limit) if v.id not in self._dealt and v.id not in heard]
        if again and not versions and not self._dealt:
            versions = self._left_over(limit)
        for version in versions:
            self._dealt[version.id] = version
            pool.give(version.id, version.lineage)

    def _train(self, seconds: float) -> list[_Built]:
        """Return what came of recipes, having waited for one for so long at most, and let the next be trained."""
        if self._trainings is None:
            return []
        self._trainings.deal(self._now)
        results: list[_Built] = []
        for version, outcome in self._trainings.hear(seconds):
            results += self._heard(version, outcome)
            if (device := self._device_of(version.lineage)) is not None:
                self._trainings.took(device.device, outcome.seconds)
        self._trainings.deal(self._now)
        return results

    def _next(self, limit: int) -> list[VersionRow]:
        """Return the next versions for this thread."""
        return self._fresh(limit) or self._left_over(limit)

    def _left_over(self, limit: int) -> list[VersionRow]:
        """Return what the turns have left out, when nothing else waits."""
        self._look_again()
        return self._waiting(limit)

    def _look_again(self) -> None:
        """Forget whose turn it was: the registry knows what waits."""
        self._turns.clear()
        self._after = 0

    def _fresh(self, limit: int) -> list[VersionRow]:
        """Return the next versions, a device after the other, without those of slow lineages and those that trainings have taken on."""
        while not self._turns.full and (batch := self.store.versions.unverified(SCANNED, self._after)):
            self._after = batch[-1].id
            for version in batch:
                if self._aside.holds(version) or version.lineage in self._slow:
                    continue
                lineage = self._device_of(version.lineage)
                if lineage is not None and not self._trained(lineage, version):
                    self._turns.add(lineage.device, version.id)
        rows = (self.store.versions.by_id(id) for id in self._turns.next(limit))
        return [v for v in rows if v is not None and v.status is Status.STORED and not self._aside.holds(v)]

    def _device_of(self, lineage: int) -> LineageRow | None:
        """Return a lineage, None where its device was erased meanwhile."""
        try:
            return self.store.lineages.by_id(lineage)
        except LineageError:
            return None

    def _trained(self, lineage: LineageRow, version: VersionRow) -> bool:
        return self._trainings is not None and self._trainings.take_on(lineage, version)

    def _heard(self, version: VersionRow, outcome: WorkOutcome) -> list[_Built]:
        """Return what the outcome means for its version; empty when its lineage is set aside, or it comes again."""
        if self._aside.holds(version) or outcome.word == worker.SKIPPED:
            self._void.discard(version.id)
            return []
        row = self.store.versions.by_id(version.id) if outcome.word != worker.OK else version
        try:
            lineage = self.store.lineages.by_id(version.lineage)
        except LineageError:
            row = None
        if row is None or row.commit != version.commit:
            return []  # its device was erased meanwhile
        if self._trainings is None or not self._trainings.takes(lineage, version):
            self._took(lineage, outcome.seconds)
        else:
            self._count_work(lineage, outcome.seconds)
        if outcome.word == worker.AGAIN:
            log.warning("%s@%d is rebuilt again: %s", lineage, version.version, outcome.text)
            return []
        if outcome.word in (worker.OURS, worker.FAULT):
            self._set_aside(lineage, version, outcome.word, outcome.text)
            return []
        return [_Built(version, lineage, outcome.text or "refused" if outcome.word == worker.REFUSED else "", outcome.sketch)]

    def _set_aside(self, lineage: LineageRow, version: VersionRow, word: str, text: str) -> None:
        """Leave a lineage alone; its versions stay stored, everybody else's go on; so does it with its next snapshot or start."""
        if word == worker.OURS:
            # The registry is at fault, not the device.
            log.error("%s can't be rebuilt and is set aside: %s", lineage, text)
        else:
            log.error(f"{FAULTY}: %s", f"{lineage}@{version.version}", text)
        self._aside.add(version)

    def _waiting(self, limit: int) -> list[VersionRow]:
        """Return versions that wait, each lineage's in their order: one whose trainings take long keeps nobody else waiting."""
        after, slow = 0, list[VersionRow]()
        while batch := self.store.versions.unverified(limit, after):
            after = batch[-1].id
            sound = [v for v in batch if not self._aside.holds(v) and not self._is_for_training(v)]
            slow += [v for v in sound if v.lineage in self._slow][: limit - len(slow)]
            if out := [v for v in sound if v.lineage not in self._slow]:
                return out
        return sorted(slow, key=lambda v: self._slow[v.lineage])

    def _is_for_training(self, version: VersionRow) -> bool:
        lineage = self._device_of(version.lineage) if self._trainings is not None else None
        return lineage is not None and self._trained(lineage, version)

    def _took(self, lineage: LineageRow, seconds: float) -> None:
        self._count_work(lineage, seconds)
        took = self._slow.pop(lineage.id, 0.0) / 2 + seconds
        if took > self._seconds:
            self._slow[lineage.id] = took

    def _count_work(self, lineage: LineageRow, seconds: float) -> None:
        self._seconds_of[lineage.device] = self._seconds_of.get(lineage.device, 0.0) + seconds

    def _build(self, lineage: LineageRow, version: VersionRow) -> None:
        self._builder.build(lineage, version)

    def _accept(self, context: Context, built: _Built) -> list[Judged]:
        lineage, version = built.lineage, built.version
        place = self.store.versions.verify(version.id, version.commit)
        if not place:
            return []  # its device was erased meanwhile
        if built.sketch:
            self.store.sketches.put(version.id, built.sketch)
        receipt = linking.verified_receipt(context, linking.Subject.of_row(lineage, version), place)
        return [Judged(version.id, f"{lineage}@{version.version}", True, "", (receipt,))]


def refuse_tree(context: Context, version: VersionRow, error: str) -> list[Judged]:
    """Refuse a version and all that were built on it, and move the head back to the last good commit, in one transaction."""
    store = context.store
    lineage = store.lineages.by_id(version.lineage)
    condemned = [version]
    for one in condemned:
        condemned += store.versions.served_children(one.id)
    reason = clean(error)
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
        out.append(Judged(one.id, f"{lineage}@{one.version}", False, reason, (receipt, *orphans)))
    return out
