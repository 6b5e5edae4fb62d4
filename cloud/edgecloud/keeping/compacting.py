"""The compactor: keeps states of versions so that each comes back within the promise, and lets go of those that are no longer needed.

States are derived data. Each is proven by its version's root before it is kept, in a transaction of its own; those that it replaces go in a
later one, together with how far the compactor has come. Killed between any two of them it leaves a state too many, never one too few.
"""

from __future__ import annotations

import logging
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgecloud.registry import CompactedRow, SqliteStore, Status, Store, VersionLink, VersionRow
from edgecloud.registry.lock import lock_compactor
from edgecloud.versions import materialise, route, states
from modelwire import limits
from modelwire.errors import DiskUnwritable, KernelError, ModelWireError, RegistryDamaged, StateBusy
from modelwire.lattice.state import ModelState

from .promise import Measure, chosen, parse_promise

log = logging.getLogger("edgecloud.compactor")
ROOM = 4  # gaps of a window, in theta
WINDOW = 256  # versions that are looked at together
FIRST = 16  # of a model of which no state is kept yet: how large one is, is not known
SETTLE = 60  # seconds: a head that is younger is left for now
BEHIND = 64  # versions: unless it is so far ahead
STATES_KEPT = 256 * 1024 * 1024  # bytes of states in memory, with which the next window goes on


@dataclass(frozen=True, slots=True)
class Compacted:
    """What came of one window of versions of one epoch."""

    name: str  # DEVICE/MODEL
    versions: int  # that were looked at
    kept: int
    dropped: int
    error: str = ""  # what kept it from being done; it is not tried again by this compactor


@dataclass(slots=True)
class _Path:
    """Versions one after the other, behind something that a state can be had of for nothing more."""

    links: list[VersionLink]
    known: int  # how many of them, from the start, were compacted before


@dataclass(slots=True)
class Compactor:
    """Compacts one registry, on one thread with a store of its own. `run` does a bounded piece of work; what is left waits."""

    store: Store
    clock: Callable[[], float] = time.time
    settle: int = SETTLE
    behind: int = BEHIND
    stopping: Callable[[], bool] = lambda: False
    window: int = WINDOW
    _bases: materialise.LoadedBases = field(init=False)
    _states: OrderedDict[int, ModelState] = field(init=False, default_factory=OrderedDict)  # by version
    _aside: set[tuple[int, int]] = field(init=False, default_factory=set)  # epochs that can't be compacted: their registry is damaged
    _again: set[tuple[int, int]] = field(init=False, default_factory=set)  # epochs of which a damaged state was dropped
    _rates: route.Rates = field(init=False)

    def __post_init__(self) -> None:
        self._bases = materialise.LoadedBases(self.store)
        self._rates = route.rates_of(self.store)

    def run(self) -> Compacted | None:
        """Compact the next window of versions that wants it. None when there is none, or when it was asked to stop.

        Raises StateBusy and DiskUnwritable, after which nothing is lost but the work.
        """
        after = (0, 0)
        policy = self.store.policies.current()
        self._rates = route.rates_of(self.store)  # they may have been measured since
        while due := self.store.states.due(policy.number, 64, int(self.clock()) - self.settle, self.behind, after):
            for row in due:
                after = row.lineage, row.epoch
                if after in self._aside or self.stopping():
                    continue
                done = self._compact(row, policy.number, policy.recover_within)
                if done is not None:
                    return done
        return None

    def waiting(self) -> bool:
        """Return whether any epoch wants work now."""
        policy = self.store.policies.current()
        return bool(self.store.states.due(policy.number, 1, int(self.clock()) - self.settle, self.behind))

    def _compact(self, row: CompactedRow, policy: int, promised: str) -> Compacted | None:
        lineage = self.store.lineages.by_id(row.lineage)
        begin = row.version_id if row.policy == policy else 0
        new: list[VersionLink] = []
        try:
            path = self._path(row, begin, promised)
            new = path.links[path.known :]
            if not new:
                return None
            done = self._keep(path, row.lineage, promised)
            if done is None:
                return None
            kept, dropped = done
            with self.store.transaction():
                self.store.states.drop(dropped)
                again = (row.lineage, row.epoch) in self._again
                self.store.states.set_compacted(CompactedRow(row.lineage, row.epoch, -1 if again else policy, new[-1].id))
                self._again.discard((row.lineage, row.epoch))
            return Compacted(str(lineage), len(new), kept, len(dropped))
        except (StateBusy, DiskUnwritable, KernelError):
            raise
        except ModelWireError as error:
            self._aside.add((row.lineage, row.epoch))
            log.error("%s can't be compacted and is set aside: %s", lineage, error)
            return Compacted(str(lineage), len(new), 0, 0, str(error))

    def _path(self, row: CompactedRow, begin: int, promised: str) -> _Path:
        """Return the versions to look at, behind those before them back to a kept state that stays."""
        new = self.store.states.following(row.lineage, row.epoch, begin, self.window)
        if not new:
            return _Path([], 0)
        before = self._before(new[0].parent_id) if new[0].parent_id is not None and new[0].kind != route.SNAPSHOT else []
        size = self._size_of(before + new)
        new = self._few(new, size, promised) if size else new[:FIRST]
        # A second line of descent within the epoch is taken up where it left the first.
        for i in range(1, len(new)):
            if new[i].parent_id != new[i - 1].id and new[i].kind != route.SNAPSHOT:
                new = new[:i]
                break
        return _Path(before + new, len(before))

    def _few(self, new: list[VersionLink], size: int, promised: str) -> list[VersionLink]:
        """Return as many of the first versions as two gaps or so hold: a model's states grow at first, and the next window knows better."""
        room = ROOM * max(1.0, self._measure(size, new[0].base, promised).theta) * size
        for i, one in enumerate(new):
            room -= one.size
            if room < 0:
                return new[: i + 1]
        return new

    def _before(self, version_id: int) -> list[VersionLink]:
        """Return a version and those before it, oldest first, down to one behind the second kept state, a snapshot or the base."""
        out: list[VersionLink] = []
        found, seen = version_id, 0
        while True:
            some = self.store.states.above(found, self.window)
            for link in some:
                out.append(link)
                seen += bool(link.state_size)
                if link.kind == route.SNAPSHOT or link.parent_id is None or seen == 2:
                    return out[::-1]
            found = some[-1].parent_id or 0

    def _keep(self, path: _Path, lineage: int, promised: str) -> tuple[int, list[int]] | None:
        """Keep what is to be kept of a path, and return how many states those are, and which may go then. None when asked to stop."""
        links, new = path.links, path.links[path.known :]
        size = self._size_of(links)
        wanted: list[int] = []
        if size:
            wanted = self._wanted(path, size, promised)
        kept, head = 0, new[-1]
        now = self._state_before(new[0])
        for i, link in enumerate(new):
            if self.stopping():
                return None
            version = self._row(link.id)
            line = self.store.lineages.by_id(lineage)
            now = now if link.kind != route.SNAPSHOT else self._bases[link.base].state()
            materialise.step(self.store, line, version, now, prove=False)
            if i + path.known in wanted or (link is head and link.kind != route.SNAPSHOT):
                kept += self._put(version, now)
        self._remember(head.id, now)
        if not size:
            size = max(1, self._kept_size(head))
            wanted = self._wanted(path, size, promised)
        for i in wanted:
            if self.stopping():
                return None
            if not self._kept_size(links[i]):
                version = self._row(links[i].id)
                kept += self._put(version, self._rebuilt(version))
        stays = {links[i].id for i in wanted} | {head.id}
        start = self._start(path)
        return kept, [one.id for i, one in enumerate(links) if i > start and one.id not in stays and self._kept_size(one)]

    def _wanted(self, path: _Path, size: int, promised: str) -> list[int]:
        """Return the places on a path whose states are to be kept."""
        links, start = path.links, self._start(path)
        measure = self._measure(size, links[-1].base, promised)
        some = links[start + 1 :]
        work = [measure.work(one.size, self._multiplies(one)) for one in some]
        fixed = [one.kind not in route.INVERTIBLE for one in some]
        return [start + 1 + i for i in chosen(work, fixed, [one.kind == route.SNAPSHOT for one in some], measure.theta)]

    def _start(self, path: _Path) -> int:
        """Return the place of the state that a path begins behind; -1 for the base. That of the head of before does not stay for good."""
        for i in range(path.known - 2, -1, -1):
            if path.links[i].state_size or path.links[i].kind == route.SNAPSHOT:
                return i
        first = path.links[0]
        if path.known and first.kind == route.SNAPSHOT:
            return 0
        return -1 if first.parent_id is None or first.kind == route.SNAPSHOT else path.known - 1

    def _state_before(self, link: VersionLink) -> ModelState:
        """Return the state that a version was built on; a snapshot's is the base's."""
        if link.kind == route.SNAPSHOT or link.parent_id is None:
            return self._bases[link.base].state()
        held, parent = self._states.pop(link.parent_id, None), self._row(link.parent_id)
        if held is not None and struct.pack("<QQ", *held.fingerprint) == parent.fingerprint:  # an erased version's id is given again
            return held
        return self._rebuilt(parent)

    def _rebuilt(self, version: VersionRow) -> ModelState:
        """Return the state of a version. Kept states that turn out to be damaged are dropped, and made again when all is looked at anew."""
        avoid: set[route.Part] = set()
        state = materialise.rebuild(self.store, version, self._bases, avoid=avoid)
        damaged = [part[1] for part in avoid if part[0] == "state"]
        if damaged:
            with self.store.transaction():
                self.store.states.drop(damaged)
                self._again.add((version.lineage, version.epoch))
        return state

    def _remember(self, version_id: int, state: ModelState) -> None:
        self._states[version_id] = state
        while len(self._states) > 1 and sum(12 * one.manifest.schema.size for one in self._states.values()) > STATES_KEPT:
            self._states.popitem(last=False)

    def _put(self, version: VersionRow, state: ModelState) -> int:
        """Keep a state, proven, and return 1; 0 when it is kept already."""
        if self.store.states.row(version.id) is not None:
            return 0
        data = states.encode(state, self.store.lineages.by_id(version.lineage), version)
        with self.store.transaction():
            self.store.states.put(version.id, version.lineage, data, int(self.clock()))
        return 1

    def _kept_size(self, link: VersionLink) -> int:
        row = self.store.states.row(link.id)
        return row.size if row is not None else link.size if link.kind == route.SNAPSHOT else 0

    def _size_of(self, links: Sequence[VersionLink]) -> int:
        """Return the bytes of the newest state on a path that is kept, or of a snapshot; 0 where there is none."""
        return next((one.state_size or one.size for one in reversed(links) if one.state_size or one.kind == route.SNAPSHOT), 0)

    def _multiplies(self, link: VersionLink) -> int:
        if link.kind != route.RECIPE:
            return 0
        recipe = self.store.blobs.container(link.blob, limits.LARGE).recipe(limits.LARGE)
        return recipe.head.work(len(recipe.rows))

    def _measure(self, size: int, base: bytes, promised: str) -> Measure:
        return Measure(parse_promise(promised), self._rates, size, self._bases[base].manifest.schema.size)

    def _row(self, version_id: int) -> VersionRow:
        row = self.store.versions.by_id(version_id)
        if row is None or row.status is Status.REFUSED:
            raise RegistryDamaged(path="the registry", reason=f"version row {version_id} is gone", fix=materialise.BACK)
        return row


def drop_damaged(store: Store) -> list[str]:
    """Drop every kept state whose bytes are not what was kept, and return their names. The compactor makes again what is wanted."""
    out: list[str] = []
    for lineage in store.lineages.all():
        for kept in store.states.of(lineage.id):
            version = store.versions.by_id(kept.version_id)
            if version is None:
                continue
            try:
                store.states.get(kept.version_id)
            except RegistryDamaged:
                out.append(f"{lineage}@{version.version}")
                with store.transaction():
                    store.states.drop([kept.version_id])
                    store.states.set_compacted(CompactedRow(lineage.id, version.epoch, -1, 0))
    return out


@contextmanager
def compacting(store: SqliteStore, path: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Be the one who compacts a registry, and sweep what a killed one has left. Raises StateBusy while another one is at work."""
    with lock_compactor(path, wait):
        store.states.sweep()
        try:
            yield
        finally:
            store.states.sweep()
