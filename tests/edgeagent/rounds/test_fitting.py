"""An update fits: all that it carries is paid for from its budget, and one that no container holds is a rejected round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.rounds import fitting
from edgeagent.service.goal import Goal
from edgeagent.state.outcome import metrics
from modelwire.errors import TooLarge
from modelwire.lattice.snap import Snapped, snap
from modelwire.wire import cbor
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import one, smaller
from tests.edgeagent.centre import FakeClock


def test_the_list_of_clamped_tensors_is_paid_for_from_the_budget_however_long_it_is(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(range(1000, 1200))
    plain = snap
    seen: list[object] = []

    def clamps(*args: object, **more: object) -> Snapped:
        seen.append(more["overhead"])
        return replace(plain(*args, **more), clamped=many)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "snap", clamps)
    with rig(tmp_path / "d", centre(clock), update__density="1", update__max_bytes="1100B", update__kind="delta") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        report = one(r)
    assert report.accepted, report.reason
    assert report.bytes <= 1100 and report.kind == "delta"
    extension = len(cbor.encode(metrics(report.outcome, many)))
    assert seen[-1] == len("pi-7") + len("tiny") + extension, "exactly what the container carries beside the sections"


def test_a_round_whose_update_no_container_holds_is_rejected_by_name_and_the_next_one_is_a_delta_again(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        r.device.database.run("UPDATE model SET widen='[0]'")
        smaller(monkeypatch, 300, of=0)
        before = r.lineage.head()
        report = one(r)
        assert not report.accepted and "the container is" in report.reason and isinstance(report.error, TooLarge)
        assert r.lineage.head().commit == before.commit and r.lineage.head().widen == ()
        assert one(r).kind == "delta"
