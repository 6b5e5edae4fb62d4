"""The centre of a fleet that is simulated for days: its registry has one name, and a director works beside the ingest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from time import process_time

from edgecloud.keeping.compacting import Compactor
from edgecloud.registry import FILES_FROM, SqliteStore
from tests.edgecloud.centre import add_base, make_registry
from tests.edgecloud.device import Base
from tests.simulator.broker import Broker
from tests.simulator.centre import SimulatedCentre, Work
from tests.simulator.crashes import Steps
from tests.simulator.timeline import Timeline
from tests.simulator.works import compact

from .rolling import RollingDirector

PAUSE = 0.05  # seconds that a batch is waited for, as the service does (edgecloud.intake.service.Pace)
COMPACTED = 6 * 3600.0  # seconds between two turns of the compactor, which has nothing else to do here


class FleetCentre(SimulatedCentre):
    """One centre that nobody kills."""

    TICK = 900.0  # no operator is waiting
    KEPT = 64 * 1024 * 1024  # a fleet's states fit into no memory; those of one batch do

    def __init__(self, time: Timeline, broker: Broker, folder: Path, rng: Random, bases: Sequence[Base]) -> None:
        works = (Work("compaction", COMPACTED, _compaction),)
        super().__init__(time, broker, folder, rng, Steps(), bases, works=works, files_from=FILES_FROM)
        self.path = folder / "fleet.db"
        self.batches = 0  # transactions of the ingest and of the rebuild
        self.seconds = 0.0  # of this processor, that its work took

    def _guarded(self, do: Callable[[], object]) -> bool:
        began = process_time()
        try:
            return super()._guarded(do)
        finally:
            self.batches += 1
            self.seconds += process_time() - began

    def stored(self) -> int:
        """Return the bytes of the registry: its database's pages, and the files beside it."""
        assert self.store is not None
        pages = self.store.database.number("PRAGMA page_count") * self.store.database.number("PRAGMA page_size")
        beside = (p for p in self.path.parent.rglob("*") if p.is_file() and not p.name.startswith(self.path.name))
        return pages + sum(p.stat().st_size for p in beside)

    def make(self) -> None:
        store = make_registry(self.path, self._bases[0], files_from=self._files_from)
        for i, base in enumerate(self._bases[1:]):
            add_base(store, base, f"digits-{i + 2}")
        store.close()

    def _pause(self) -> float:
        return PAUSE

    def direct(self, director: RollingDirector) -> None:
        """Let the director look at what was reported, and tell devices what it has sealed."""
        assert self.store is not None
        now = self.time.seconds()
        director.step(self.store, now)
        while told := list(self._ingest.due(now, self.time.now, float("inf"))):  # a service does so each second
            for replies in told:
                self._say(replies)


def _compaction(store: SqliteStore, clock: Callable[[], float]) -> Callable[[], object]:
    compactor = Compactor(store, clock=clock)
    return lambda: compact(compactor)
