"""What a refusal leads to: a snapshot, on what may still be linked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FakeClock


@pytest.mark.parametrize("receipt", ["none", "stored"])
def test_a_snapshot_after_a_refusal_rests_on_what_is_still_on_its_way(tmp_path: Path, clock: FakeClock, receipt: str) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 3)
        lineage, base = r.lineage, r.lineage.base_commit
        first, second, _ = lineage.outbox.waiting()
        for one in (first, second):
            lineage.offer(one)
        if receipt == "stored":
            lineage.outbox.stored(lineage.outbox.find(first.epoch, 1, first.commit))
        row = lineage.outbox.find(second.epoch, 2, second.commit)
        assert lineage.refused(row, "its parent has not come", base, 0) == [2, 3]
        snapshot = lineage.outbox.waiting("queued")[-1]
        assert (snapshot.version, snapshot.kind) == (4, "snapshot")
        # The centre that names the base although it once held @1 has lost it; without a receipt @1 may come at any moment.
        assert snapshot.parent == (first.commit if receipt == "none" else base)
