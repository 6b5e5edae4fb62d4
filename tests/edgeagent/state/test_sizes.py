"""What waits and what is sealed anew stays within what a reader takes: lists, sums of updates, snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgeagent.state.outcome import Outcome, merged, metrics
from modelwire import limits
from modelwire.errors import OutboxFull
from modelwire.wire import cbor
from tests.edgeagent.boards import centre, command, fill, rig, standing
from tests.edgeagent.by_hand import one, smaller
from tests.edgeagent.centre import FakeClock


def test_lists_in_an_extension_stay_within_what_a_reader_takes() -> None:
    every = list(range(limits.DEFAULT.tensors))
    for extension in (metrics(Outcome(1, None, None, 9, 9, 0, 0), every), merged([{"clamped": list(every)}, {"clamped": [1]}], [1, 2])):
        data = cbor.encode(extension)
        assert len(data) <= limits.DEFAULT.extension and cbor.decode(data) == extension


def test_updates_whose_sum_no_container_holds_stay_apart_and_the_agent_goes_on(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="2", update__max_bytes="600B") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        sizes = [one(r).bytes for _ in range(4)]
        smaller(monkeypatch, max(sizes))
        c.cut()
        r.serve(10)
        assert set(r.states().values()) == {"queued"}, "the sum is larger than each of them"
        with pytest.raises(OutboxFull):
            rounds.check_due(standing(r.device), 700)
        c.mend()
        r.serve(60)
        assert set(r.states().values()) == {"verified"}


def test_a_snapshot_that_no_container_holds_is_an_answer_and_a_state_never_a_loop(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        smaller(monkeypatch, 300, of=0)
        c.commands.append(command(r, 7))
        r.serve(5)
        assert [(a.number, a.ok) for a in c.answers] == [(7, False)] and "the container is" in c.answers[0].text
        c.refuse = lambda h: "no"
        one(r)
        r.serve(20)
        assert r.states() == {1: "verified", 2: "refused"}
        assert "the container is" in r.lineage.head().blocked
        sent = len(c.updates())
        r.serve(600)
        assert len(c.updates()) == sent, "what was refused is not sent for ever"
