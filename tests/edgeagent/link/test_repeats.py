"""What the centre says a second time, late, or in numbers that no header holds changes nothing and starts nothing over."""

from __future__ import annotations

from pathlib import Path

from edgeagent.service.goal import Goal
from modelwire.wire.records import Level, Receipt, Welcome
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import FakeClock, welcome_of


def test_numbers_that_no_header_holds_are_refused_with_the_welcome(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        base = r.lineage.base_commit
        c.drop_down = lambda record: isinstance(record, Welcome) and record.epoch == 1 and record.version == 0
        for epoch, version in ((1 << 32, 0), (1, (1 << 63) - 1)):
            w = welcome_of("home", "pi-7", "tiny", r.device.state, "ok", epoch, version, base, 0, 0)
            c.after(1, lambda w=w: c.push(w))  # type: ignore[misc]
        r.serve(5)
        assert (r.lineage.head().epoch, r.lineage.head().last_version) == (0, 0)
        c.drop_down = lambda record: False
        r.agent.stopping = ""
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert r.states() == {1: "verified"}


def test_old_welcomes_that_come_again_in_a_row_do_not_make_the_device_start_over(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        old = [w for w in c.down if isinstance(w, Welcome)][-1]
        assert old.head_version == 0
        one(r)
        r.serve(30)
        assert r.states() == {1: "verified", 2: "verified"}
        for _ in range(4):  # their acknowledgements were lost with the connection, so the broker delivers them again
            c.after(1, lambda: c.push(old))
        r.serve(60)
        assert r.states() == {1: "verified", 2: "verified"} and r.lineage.head().version == 2


def test_receipts_that_are_no_news_do_not_put_off_what_waits_for_one(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        old = [x for x in c.down if isinstance(x, Receipt)][-1]
        one(r)
        lose = [True]
        c.drop_up = lambda leaf, said: leaf == "update" and lose.pop() if lose else False
        for at in range(1, 60):
            c.after(4 * at, lambda: c.push(old, "receipt"))
        r.serve(120)
        assert r.states()[2] == "verified"


def test_a_refusal_that_is_repeated_later_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        c.refuse = lambda h: "no" if h.version == 2 else ""
        one(r)
        r.serve(60)
        refusal = next(x for x in c.down if isinstance(x, Receipt) and x.level is Level.REFUSED)
        before = r.states()
        assert before == {1: "verified", 2: "refused", 3: "verified"}
        for at in range(1, 20):
            c.after(at, lambda: c.push(refusal, "receipt"))
        r.serve(60)
        assert r.states() == before
