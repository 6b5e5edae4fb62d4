"""Recipes, which the centre trains again, in a small pool of their own: no other version waits for one, and of devices the one that has
had the least time is next.
"""

from __future__ import annotations

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.workers.pool import WorkerPool, WorkOutcome

from .turns import VersionTurns

RECIPE = "recipe"
REMEMBERED = 10_000  # devices whose time is kept in mind


class Trainings:
    """The versions of one registry that come from recipes, for the rebuild's thread. Processes start with the first of them."""

    def __init__(self, store: Store, pool: WorkerPool) -> None:
        self._store, self._pool = store, pool
        self._turns = VersionTurns()
        self._queued: set[int] = set()
        self.dealt: dict[int, VersionRow] = {}
        self._took: dict[str, float] = {}  # seconds, by device
        self._reached = 0.0  # of them, those of the device that was dealt last: the start tags of start-time fair queueing, Goyal 1996

    def take_on(self, lineage: LineageRow, version: VersionRow) -> bool:
        """Return whether a version is to be built here, and keep it then: a recipe, or one of a model that has sent recipes.

        What comes after a recipe would have it trained again wherever its state is not at hand.
        """
        if not self.takes(lineage, version):
            return False
        if version.id not in self._queued and version.id not in self.dealt and not self._turns.full:
            if not self._turns.holds(lineage.device):
                # Who is new, or was away, must not make up for the time of months: all others would wait until it had.
                self._took[lineage.device] = max(self._took.get(lineage.device, 0.0), self._reached)
            self._queued.add(version.id)
            self._turns.add(lineage.device, version.id)
        return True

    def takes(self, lineage: LineageRow, version: VersionRow) -> bool:
        """Return whether a version is to be built here."""
        return version.kind == RECIPE or self._store.tallies.holds(lineage.id, RECIPE)

    @property
    def busy(self) -> bool:
        """Whether one is being trained."""
        return bool(self.dealt)

    def deal(self, now: int) -> None:
        """Give the pool its next version. A device that has had its seconds of this hour comes again in the next one."""
        while not self._pool.waiting and len(self._turns):
            devices = sorted(self._turns.devices, key=lambda device: self._took.get(device, 0.0))
            device = next((one for one in devices if self._has_time(one, now)), "")
            id = self._turns.first_of((device,))
            if id is None:
                # They stay `stored`, and the rebuild looks at all that is stored again and again.
                self._turns.clear()
                self._queued.clear()
                return
            self._queued.discard(id)
            version = self._store.versions.by_id(id)
            if version is not None and version.status.value == "stored":
                self.dealt[id] = version
                self._reached = max(self._reached, self._took.get(device, 0.0))
                self._pool.give(id, version.lineage)

    def hear(self, seconds: float) -> list[tuple[VersionRow, WorkOutcome]]:
        """Return what came of those that were dealt, having waited for so long at most."""
        if not self.dealt:
            return []
        return [(self.dealt.pop(outcome.id), outcome) for outcome in self._pool.take(seconds)]

    def took(self, device: str, seconds: float) -> None:
        """Note what a device's trainings took."""
        if len(self._took) > REMEMBERED:
            self._took.clear()
        self._took[device] = self._took.get(device, 0.0) + seconds

    def close(self) -> None:
        self._pool.close()

    def _has_time(self, device: str, now: int) -> bool:
        most = self._store.quotas.of(device).cpu_an_hour
        return most is None or self._store.quotas.used(device, now).cpu < most
