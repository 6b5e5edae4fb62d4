"""What works at a simulated centre beside the ingest, compaction and thinning, and what its operator does: policies, and erasure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from edgecloud.audit.admissions import Admissions
from edgecloud.keeping import deciding, erasing, purging
from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import LineageRow, SqliteStore
from modelwire.errors import ModelWireError
from tests.keys import COMMAND
from tests.simulator.centre import Work

POLICIES = ("last 40", "last 20", "daily", "all", "last 5")
Clock = Callable[[], float]


def thinning(store: SqliteStore, clock: Clock) -> Callable[[], object]:
    """Return the thinner's turn beside an ingester, without its slack: here each version that may go is to go soon."""
    thinner = Thinner(store, clock=clock)
    return lambda: thinner.run(_some(store, int(clock())))


def compaction(store: SqliteStore, clock: Clock) -> Callable[[], object]:
    """Return the compactor's turn: all the windows that want one."""
    compactor = Compactor(store, clock=clock, settle=30, behind=8)
    return lambda: compact(compactor)


def compact(compactor: Compactor) -> int:
    """Let a compactor do all that waits, and return how many windows that were."""
    windows = 0
    while compactor.run() is not None:
        windows += 1
    return windows


def erasures(store: SqliteStore, clock: Clock) -> Callable[[], object]:
    """Return the turn that ends what erasures were begun."""
    return lambda: erasing.resume(store)


WORKS = (Work("compaction", 200.0, compaction), Work("thinning", 240.0, thinning), Work("erasure", 60.0, erasures))


def set_policy(store: SqliteStore, what: str, now: int) -> None:
    """Let the operator seal what is kept."""
    deciding.decide_keep(store, COMMAND, what, _number(store), now)


def purge(store: SqliteStore, device: str, now: int) -> None:
    """Let the operator seal that the rows of a device's recipes go, and drop them: the deltas that they came to take their place."""
    with suppress(ModelWireError):  # nothing is held of it, or it is erased
        number = deciding.decide_purge(store, COMMAND, device, _number(store), now).number
        for lineage in store.lineages.of(device):
            purging.purge(store, lineage, number, purging.find(store, lineage, every=True).recipes, clock=lambda: now)


def erase(store: SqliteStore, device: str, now: int) -> bool:
    """Let the operator seal that a device is erased; return whether it could be."""
    try:
        erasing.begin(store, COMMAND, device, _number(store), now)
    except ModelWireError:  # nothing is held of it, or it was begun before
        return False
    return True


def _number(store: SqliteStore) -> int:
    held = Admissions(store.identity)
    held.catch_up(store.log, store.database.path)
    return held.act + 1


def _some(store: SqliteStore, now: int) -> Sequence[LineageRow]:
    """Return a share of the models that changes from turn to turn: planning takes a look at each version."""
    lineages = store.lineages.all()
    count = max(1, len(lineages) // 40)
    start = now // 240 * count % max(1, len(lineages))
    return lineages[start : start + max(count, 8)]
