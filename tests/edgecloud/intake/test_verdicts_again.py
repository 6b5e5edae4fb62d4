"""What workers found out and a full disk did not take is dealt again, and judged once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from edgecloud.intake.rebuilding import Judged, Rebuilder
from edgecloud.registry import Store
from edgecloud.workers import worker
from edgecloud.workers.pool import WorkerPool, WorkOutcome
from modelwire.errors import DiskUnwritable
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice


class OneByOne:
    """A pool whose workers are done with one version at a time."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.waiting = 0

    def give(self, version: int, lineage: int) -> None:
        self.given.append(version)
        self.waiting += 1

    def take(self, seconds: float) -> list[WorkOutcome]:
        self.waiting -= 1
        return [WorkOutcome(self.given[-1 - self.waiting], worker.OK)]


def test_verdicts_that_a_full_disk_did_not_take_are_found_again_and_entered_once(tmp_path: Path) -> None:
    centre = Centre(make_registry(tmp_path / "fleet.db", Base.of()))
    device = centre.meet(ScriptedDevice(Base.of()))
    centre.deliver(device, *[device.train() for _ in range(4)])
    pool, full = OneByOne(), [True]

    def sign(store: Store) -> Any:
        if full.pop() if full else False:
            raise DiskUnwritable(path=tmp_path, reason="No space left on device")

    rebuilder = Rebuilder(centre.store, bounds=centre.bounds, sign=sign, pool=cast(WorkerPool, pool))
    with pytest.raises(DiskUnwritable):
        rebuilder.run(1)
    judged: list[Judged] = []
    while found := rebuilder.run(1):
        judged += found
    assert sorted(one.name for one in judged) == [f"pi-7/digits@{n}" for n in (1, 2, 3, 4)] and all(one.ok for one in judged)
    assert centre.statuses(device) == dict.fromkeys((1, 2, 3, 4), "verified")
