"""What a director asks of every Store: who may be taken in, who is under way, how many were offered something lately; all of it bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud.registry import FrozenRow
from modelwire.deploying.plans import RolloutVerb
from modelwire.deploying.states import State
from tests.edgecloud.directing.desk import EQUAL, MODEL, NEW, OLD, Rolling, name_of


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Rolling]:
    made = Rolling(tmp_path / "fleet.db", devices=9)
    yield made
    made.store.close()


def test_candidates_can_take_it_and_are_in_no_rollout_that_is_under_way(rolling: Rolling) -> None:
    store = rolling.store
    store.rollouts.freeze(FrozenRow("pi-2", "", "", "anna", 1))
    store.rollouts.freeze(FrozenRow("pi-3", "apples", "", "anna", 1))  # another model of it
    store.devices.revoke("pi-4", 11)
    store.lineages.grant(store.lineages.ensure("pi-5", MODEL).id, b"n" * 16, NEW, 12)  # runs it already
    store.lineages.ensure("pi-6", "apples")
    quiet = store.lineages.ensure("pi-6", "cherries").id
    busy = rolling.plan(devices=("pi-7",), name="busy", rollout=bytes([7]) * 16)
    rolling.settle()
    one = rolling.plan(started=False).id
    found = store.rollout_steps.candidates(one, 0, 100)
    assert [c.device for c in found] == ["pi-1", "pi-3", "pi-6", "pi-8", "pi-9"] and {c.base for c in found} == {OLD}
    assert [c.device for c in store.rollout_steps.candidates(one, 3, 5)] == ["pi-6", "pi-8"]
    assert store.rollout_steps.last_lineage() == quiet and store.rollout_steps.base_of(quiet) == b""
    assert store.rollout_steps.base_of(store.lineages.ensure("pi-5", MODEL).id) == NEW
    rolling.decide(RolloutVerb.HALT, row=busy)
    rolling.settle()
    assert "pi-7" in [c.device for c in store.rollout_steps.candidates(one, 0, 100)], "a halted one holds nobody"


def test_counts_scores_and_who_is_under_way_are_bounded(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    steps, id = rolling.store.rollout_steps, rolling.row.id
    assert (steps.assigned_count(id), steps.assigned_count(id, 0), steps.assigned_count(id, 1)) == (9, 9, 0)
    for name, model in (("pi-1", ""), ("pi-1", MODEL), ("pi-2", MODEL), ("pi-3", "other"), ("stranger", "")):
        rolling.store.rollouts.freeze(FrozenRow(name, model, "", "anna", 1))
    assert (steps.frozen_count(id, 0), steps.frozen_count(id, 1)) == (2, 0)
    now = rolling.now
    assert [steps.offers_between(id, *span, 100) for span in ((now - 1, now), (now, now + 9), (0, now - 1))] == [9, 0, 0]
    assert steps.offers_between(id, 0, now, 4) == 4
    for n in (1, 2, 3):
        rolling.say(name_of(n), State.SOAKING, EQUAL)
    assert len(steps.scores(id, 0, 10)) == 3 and len(steps.scores(id, 0, 2)) == 2 and steps.scores(id, 1, 10) == []
    offered = steps.under_way(id, ["offered"], back=False, before=rolling.now + 1, limit=4)
    assert len(offered) == 4 and steps.under_way(id, ["offered"], back=False, before=rolling.now, limit=4) == []
    rest = steps.under_way(id, ["offered"], back=False, before=rolling.now + 1, after=offered[-1].lineage, limit=4)
    assert len(rest) == 2 and not {one.lineage for one in rest} & {one.lineage for one in offered}
    assert steps.under_way(id, ["offered"], back=True, before=rolling.now + 1, limit=4) == []
