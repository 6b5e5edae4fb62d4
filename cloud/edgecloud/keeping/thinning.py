"""Carries out the policy: what it does not keep is squashed away, proven first, in steps that a kill may end anywhere.

A step is one transaction: the squash, the header proofs, the log's entry, and a list of the bytes that are to go. Only then do they go, one
after the other; what is on the list and still there after a kill goes the next time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgecloud.audit.admissions import Admissions
from edgecloud.registry import CompactedRow, LineageRow, SqliteStore, SquashRow, Status, ThinnedRow, VersionRow
from edgecloud.versions import materialise
from modelwire import limits
from modelwire.errors import DiskUnwritable, ModelWireError, StateBusy
from modelwire.update.proof import header_proof
from modelwire.wire import records
from modelwire.wire.records import Command

from . import retention, squashing
from .retention import ALL, TAG, Job, Keep, Needed

MOST = 256  # versions that go in one transaction
AT_ONCE = 64  # blobs that go in one transaction
SLACK = 32  # beside an ingester: versions of one model that are let wait, so that each update does not cost a squash

Hook = Callable[[str], None]  # told of each step that was made: where a test may end it


@dataclass
class LetGo:
    """What came of some work."""

    gone: int = 0  # versions that are no longer recoverable
    squashed: int = 0  # versions that a squash leads to now
    dropped: int = 0  # blobs
    failed: dict[str, str] = field(default_factory=dict)  # by model: why it is left as it is


class Thinner:
    """Thins one registry; for one thread with a store of its own."""

    def __init__(self, store: SqliteStore, *, clock: Callable[[], float] = time.time, hook: Hook = lambda step: None) -> None:
        self.store, self._clock, self._hook = store, clock, hook
        self._admissions = Admissions(store.identity)
        self._bases = materialise.LoadedBases(store)
        self._looked: dict[int, tuple[int, int]] = {}  # by lineage: for which policy it was planned last, and with how many versions

    def policy(self) -> tuple[int, Keep]:
        """Return the number of the operator's newest sealed word on what is kept, and what that says. A row alone says nothing."""
        self._admissions.catch_up(self.store.log, self.store.database.path)
        held = self._admissions.policy
        return (held.number, retention.parse_keep(held.keep)) if held is not None else (0, Keep(everything=True))

    def plan(self, lineage: LineageRow, keep: Keep) -> list[Job]:
        """Return the steps that one model takes to the policy."""
        versions = self.store.versions.of(lineage.id)
        gone = {id for id, is_gone in self.store.thinnings.of(lineage.id).items() if is_gone}
        stay = retention.kept(versions, keep, self._needed(lineage, versions, keep)) - gone
        return [*retention.jobs(versions, stay, gone, self.store.thinnings.squashes(lineage.id), MOST)]

    def run(self, lineages: Sequence[LineageRow] | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> LetGo:
        """Carry the policy out, and return what came of it. A model that can't be rebuilt is left as it is, and named."""
        out = LetGo()
        self._drop(out)
        number, keep = self.policy()
        if keep.everything:
            return out
        plans = [(lineage, self.plan(lineage, keep)) for lineage in (self.store.lineages.all() if lineages is None else lineages)]
        total, done = sum(len(job.gone) for _, plan in plans for job in plan), 0
        for lineage, plan in plans:
            for job in plan:
                if not self._try(lineage, job, number, out):
                    break
                done += len(job.gone)
                progress(done, total)
        return out

    def work(self, seconds: float = 1.0, stopping: Callable[[], bool] = lambda: False) -> LetGo:
        """Do some of it beside an ingester, and return what came of it: models of which only a few versions are to go wait."""
        out, end = LetGo(), time.monotonic() + seconds
        self._drop(out)
        number, keep = self.policy()
        if keep.everything:
            return out
        for lineage, plan in self._due(number, keep):
            for job in plan:
                if not self._try(lineage, job, number, out) or time.monotonic() > end or stopping():
                    break
            if time.monotonic() > end or stopping():
                break
        return out

    def purge(self, lineage: LineageRow, by: int, versions: Sequence[VersionRow]) -> LetGo:
        """Put the deltas that recipes came to in the place of the recipes. by: number of the operator's word. Raises as `rebuild`."""
        out = LetGo()
        self._drop(out)
        for version in versions:
            self._step(lineage, Job((), self._parent(version), version), by, out)
        return out

    def _due(self, number: int, keep: Keep) -> Iterator[tuple[LineageRow, list[Job]]]:
        for lineage in self.store.lineages.all():
            count = self.store.versions.count(lineage.id)
            policy, before = self._looked.get(lineage.id, (0, 0))
            if policy == number and count - before <= SLACK:
                continue
            plan = self.plan(lineage, keep)
            if sum(len(job.gone) for job in plan) > SLACK:
                yield lineage, plan
            else:
                self._looked[lineage.id] = number, count

    def _try(self, lineage: LineageRow, job: Job, by: int, out: LetGo) -> bool:
        try:
            return self._step(lineage, job, by, out)
        except (StateBusy, DiskUnwritable):
            raise  # it passes; nothing is lost but the work
        except ModelWireError as error:
            out.failed[str(lineage)] = error.message
            return False

    def _step(self, lineage: LineageRow, job: Job, by: int, out: LetGo) -> bool:
        """Do one step: prove first, then write, then drop. Return whether it was done: the registry may have moved on meanwhile."""
        data = None if job.end is None else self._squash(lineage, job, job.end)
        touched = [*job.gone, *([job.end] if job.end is not None else [])]
        proofs = {v.id: self._proof(lineage, v) for v in touched}
        self._hook("proven")
        with self.store.transaction():
            if not self._still(lineage, job, by):
                return False
            self._write(lineage, job, data, proofs, by)
        self._hook("written")
        out.gone += len(job.gone)
        out.squashed += job.end is not None
        self._drop(out)
        return True

    def _squash(self, lineage: LineageRow, job: Job, end: VersionRow) -> bytes:
        run = [*job.gone, end]
        start = squashing.require_start(self.store, job.start, run[0].base, self._bases)
        parent = job.start.commit if job.start is not None else run[0].base
        return squashing.squash(lineage, end, parent, start, squashing.walk(self.store, lineage, start, run, self._bases))

    def _proof(self, lineage: LineageRow, version: VersionRow) -> bytes:
        """Return what will be left of a version's container: read from it, proven by its row, or kept before."""
        held = self.store.thinnings.get(version.id)
        if held is not None:
            return held.proof
        sent = materialise.open_container(self.store, lineage, version)
        materialise.check_signature(self.store, lineage, sent)
        return header_proof(self.store.blobs.get(version.blob), limits.LARGE)

    def _write(self, lineage: LineageRow, job: Job, data: bytes | None, proofs: dict[int, bytes], by: int) -> None:
        """Within a transaction: keep what replaces them, note what goes, enter it in the log, and list the bytes."""
        thinnings, now = self.store.thinnings, int(self._clock())
        touched = [*job.gone, *([job.end] if job.end is not None else [])]
        before = [squash.blob for v in touched if (squash := thinnings.squash(v.id)) is not None]
        own = [v.blob for v in touched if thinnings.get(v.id) is None]
        squashed = []
        for version in job.gone:
            thinnings.drop(ThinnedRow(version.id, True, now, proofs[version.id]))
        if job.end is not None:
            assert data is not None  # made for it
            kind = squashing.kind_in(data)
            start = job.start.id if job.start is not None and kind != "snapshot" else None
            digest = self.store.blobs.put(data)
            thinnings.put(SquashRow(job.end.id, start, kind, digest, len(data)))
            thinnings.drop(ThinnedRow(job.end.id, False, now, proofs[job.end.id]))
            squashed.append((job.end.commit, digest))
        thinnings.enter(by, [v.commit for v in job.gone], squashed)
        if dropped := self.store.states.sizes([v.id for v in job.gone]):
            self.store.states.drop([*dropped])
            for epoch in {v.epoch for v in job.gone}:  # others may be far from a state now: the compactor looks at all of it again
                self.store.states.set_compacted(CompactedRow(lineage.id, epoch, -1, 0))
        for blob in (*own, *before):
            if not thinnings.needed(blob):
                thinnings.discard(blob)

    def _still(self, lineage: LineageRow, job: Job, by: int) -> bool:
        """Return, within the transaction, whether what was planned may still be done: heads and words of the operator move on."""
        self._admissions.catch_up(self.store.log, self.store.database.path)
        held = self._admissions.policy
        if by not in self._admissions.purges and (held is None or held.number != by or held.keep == ALL):
            return False
        if lineage.device in self.store.erasures.under_way():
            return False
        all_of = [*job.gone, *(v for v in (job.start, job.end) if v is not None)]
        rows = [self.store.versions.by_id(v.id) for v in all_of]
        if any(row is None or row.status is not Status.VERIFIED for row in rows):
            return False
        if any(left.gone for v in all_of if (left := self.store.thinnings.get(v.id)) is not None):
            return False
        keep = retention.parse_keep(held.keep) if held is not None else Keep()
        needed = self._needed(lineage, job.gone, keep)
        going = {v.id: v for v in job.gone}
        waiting = [v.parent_id for v in self.store.versions.unverified(1 << 30) if v.lineage == lineage.id] if going else []
        return not (going.keys() & {*needed.heads, *needed.tagged, *waiting}) and not ({v.commit for v in job.gone} & {*needed.commits})

    def _needed(self, lineage: LineageRow, versions: Sequence[VersionRow], keep: Keep) -> Needed:
        store = self.store
        newest = store.lineages.current(lineage.id)
        heads = [store.lineages.head(lineage.id, epoch) for epoch in range(1, (newest.epoch if newest else 0) + 1)]
        commits = {orphan.parent for orphan in store.inbox.orphans(lineage.device) if orphan.lineage == lineage.id}
        for request in store.requests.open(int(self._clock()), lineage.id):
            try:
                commits.add(records.expect(records.parse(request.record), Command).parent)
            except ModelWireError:
                continue  # a row that holds none
        tagged = [v.id for v in versions if self._is_tagged(lineage, v)] if keep.tagged else []
        return Needed({head.version_id for head in heads if head is not None and head.version_id is not None}, tagged, commits)

    def _is_tagged(self, lineage: LineageRow, version: VersionRow) -> bool:
        return any(note.text.startswith(TAG) for note in self.store.annotations.of("version", f"{lineage}@{version.version}"))

    def _parent(self, version: VersionRow) -> VersionRow | None:
        return self.store.versions.by_id(version.parent_id) if version.parent_id is not None else None

    def _drop(self, out: LetGo) -> None:
        """Let go what is on the list: rows of the database in transactions, files after it is sure that nobody needs them."""
        out.dropped += drop_discards(self.store, self._hook)


def drop_discards(store: SqliteStore, hook: Hook = lambda step: None) -> int:
    """Let the bytes go that are listed for it, and return how many those were."""
    dropped = 0
    while listed := store.thinnings.discards(AT_ONCE):
        with store.transaction():
            for blob in listed:
                if not store.thinnings.needed(blob):
                    store.blobs.drop(blob)
                    dropped += 1
                store.thinnings.discarded(blob)
                hook("dropped one")
        hook("dropped")
    return dropped

