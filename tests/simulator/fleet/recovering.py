"""Recovers versions of a fleet drawn at random, each by itself, as a person asks for one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random

from edgecloud.registry import SqliteStore, Status, VersionRow
from edgecloud.versions import materialise, route
from modelwire.errors import ModelWireError

DRAWN = 200


@dataclass(frozen=True, slots=True)
class Recovery:
    """What versions drawn at random took to come back. Sorted."""

    seconds: tuple[float, ...]  # of a processor: what others do on this machine does not count
    read: tuple[int, ...]  # bytes of updates and kept states, the base aside

    def percentile(self, share: float) -> tuple[float, int]:
        """Return seconds and bytes within which this share of them came back."""
        place = min(len(self.seconds) - 1, int(share * len(self.seconds)))
        return self.seconds[place], self.read[place]


def recovered(store: SqliteStore, rng: Random, count: int = DRAWN) -> Recovery | None:
    """Recover so many versions, each from the registry, proven by its root; None where there is none. What is not exact counts as none:
    the audit names it.
    """
    lineages = store.lineages.all()
    drawn = [rng.choice(rows) for line in (rng.choice(lineages) for _ in range(count)) if (rows := _served(store, line.id))]
    bases = materialise.LoadedBases(store)
    seconds, read = [], []
    for version in drawn:
        began, told = time.process_time(), list[route.Route]()
        try:
            materialise.file_of(materialise.rebuild(store, version, bases, told=told), bases[version.base])
        except ModelWireError:
            continue
        seconds.append(time.process_time() - began)
        read.append(told[-1].size)
    return Recovery(tuple(sorted(seconds)), tuple(sorted(read))) if seconds else None


def _served(store: SqliteStore, lineage: int) -> list[VersionRow]:
    return [v for v in store.versions.of(lineage) if v.status is Status.VERIFIED]
