"""The loop: when a round is due, what stops it, and that counting rounds survives restarts."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from edgeagent.rounds.round import RoundReport
from edgeagent.service.agent import Agent
from edgeagent.service.goal import Goal
from edgeagent.system.clock import Clock
from modelwire.errors import LinkError, NotEnoughSamples
from modelwire.tensors import F32
from tests.edgeagent.boards import TINY, ScriptedModel, centre, fill, make, make_with, rig, scripted
from tests.edgeagent.centre import FakeClock


@pytest.mark.slow("lives through many rounds")
def test_a_round_is_due_after_its_interval_or_when_enough_new_samples_have_come(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, train__every="1h", train__min_new_samples="20") as r:
        fill(r.device)
        r.serve(60)
        assert r.lineage.head().rounds == 1, "the first as soon as there are samples"
        r.serve(3000)
        assert r.lineage.head().rounds == 1
        r.serve(700)
        assert r.lineage.head().rounds == 2, "an hour has passed"
        fill(r.device, 19)
        r.serve(60)
        assert r.lineage.head().rounds == 2
        fill(r.device, 1)
        r.serve(60)
        assert r.lineage.head().rounds == 3, "twenty new ones have come"


@pytest.mark.slow("lives through many rounds")
def test_a_clock_that_was_set_back_does_not_stop_the_training(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, train__every="1h") as r:
        fill(r.device)
        r.serve(60)
        c.clock.wall = lambda: 1000.0  # type: ignore[method-assign]  # 1970: a board without a battery after a power cut
        r.agent.clock = Clock(clock.monotonic, lambda: 1000.0)
        r.serve(3000)
        assert r.lineage.head().rounds == 1
        r.serve(4000)
        assert r.lineage.head().rounds == 2


def test_rounds_are_counted_over_restarts_and_only_missing_ones_are_done(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
    for _ in range(2):
        with rig(tmp_path / "d", c) as r:
            r.run(Goal(rounds=5, timeout=60))
            assert r.lineage.head().rounds == 5
    assert sorted(c.held("pi-7", "tiny")) == [1, 2, 3, 4, 5]


def test_rounds_wait_for_samples_and_with_fresh_for_new_ones(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, train__min_new_samples="10") as r:
        for n in range(4):
            c.after(100 + 100 * n, lambda n=n: fill(r.device, 10, seed=n))  # type: ignore[misc]
        r.run(Goal(rounds=4, fresh=True, timeout=1000))
        assert clock.now >= 1400
        seen = [row["samples"] for row in reversed(r.lineage.versions())]
        assert len(seen) == 4 and all(a < b for a, b in itertools.pairwise(seen)), "each round saw more than the one before"


def test_rounds_keep_their_pause(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, pause=50, timeout=1000))
        at = sorted(row["at"] for row in r.lineage.versions())
        assert all(b - a >= 50 for a, b in itertools.pairwise(at))


def test_once_does_one_round_and_ends_when_it_is_stored(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        with pytest.raises(NotEnoughSamples):
            r.run(Goal(once=True, timeout=60))
        fill(r.device)
        r.run(Goal(once=True, timeout=60))
        assert r.lineage.head().rounds == 1 and r.states()[1] in ("stored", "verified")


def test_a_goal_that_is_not_reached_in_time_is_an_error_that_says_what_is_missing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.cut()
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        with pytest.raises(LinkError, match="after 60 s tiny: the centre has not answered in time"):
            r.run(Goal(rounds=1, timeout=60))
        assert 1060 <= clock.now < 1065


def test_several_models_take_turns_and_share_the_link(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    make(tmp_path / "d", models={"one": TINY, "two": TINY})
    with rig(tmp_path / "d", c) as r:
        fill(r.device, model="one")
        fill(r.device, model="two", seed=1)
        r.run(Goal(rounds=3, timeout=600))
        for name in ("one", "two"):
            assert sorted(c.held("pi-7", name)) == [1, 2, 3]
        assert len({c.held("pi-7", n)[3].commit for n in ("one", "two")}) == 2
        assert {p.model for p in c.presence} == {"one"}, "one topic can have the will"


def test_stopping_abandons_the_round_under_way_and_the_next_start_does_it_again(tmp_path: Path, clock: FakeClock) -> None:
    stop = []

    class Slow(ScriptedModel):
        def train(self, x: F32, y: F32, lr: float) -> float:
            stop.append(1)
            if len(stop) == 7:
                r.agent.stop("SIGTERM")
            return super().train(x, y, lr)

    c = centre(clock)
    with rig(tmp_path / "d", c, lambda file, name: Slow(file), train__epochs="30") as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert len(stop) == 7, "not one step more"
        assert r.lineage.head().rounds == 0 and r.states() == {}
        assert [p.online for p in c.presence][-1] is False
    with rig(tmp_path / "d", c, scripted) as r:
        r.run(Goal(rounds=1, timeout=60))
        assert r.lineage.head().rounds == 1


def test_messages_are_handled_while_a_round_is_under_way(tmp_path: Path, clock: FakeClock) -> None:
    """A long round does not starve the link: time passes at each step, and answers are taken between steps."""

    class Slow(ScriptedModel):
        def train(self, x: F32, y: F32, lr: float) -> float:
            clock.now += 1.0
            states.append(r.states().get(1, ""))
            return super().train(x, y, lr)

    states: list[str] = []
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        c.drop_up = lambda leaf, said: leaf == "update"
        r.agent.open_model = scripted
        c.after(5, lambda: r.agent.stop("test"))
        r.run(Goal(rounds=1, timeout=600))
        assert r.states() == {1: "offered"}
        c.drop_up = lambda leaf, said: False
        r.agent.stopping = ""
        r.agent.open_model = lambda file, name: Slow(file)
        r.run(Goal(rounds=2, timeout=600))
        assert states[-1] == "verified"


def test_a_nudge_from_another_process_sends_again_at_once(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_up = lambda leaf, said: leaf == "update"
    with rig(tmp_path / "d", c, link__resend="1h") as r:
        fill(r.device)
        r.serve(600)
        assert r.states() == {1: "offered"}
        c.drop_up = lambda leaf, said: False
        agent = Agent(r.device, c, scripted, "test", clock=Clock(clock.monotonic, clock.wall), rng=random.Random(2))
        r.agent = agent
        c.drop_up = lambda leaf, said: leaf == "update" and clock.now < began + 100
        began = clock.now
        c.after(200, r.device.nudge)
        r.serve(210)
        assert r.states() == {1: "verified"}, "the next resend alone would have come after an hour"


def test_a_model_that_is_always_due_does_not_keep_the_others_from_training(tmp_path: Path, clock: FakeClock) -> None:
    make_with(tmp_path / "d", {"train.every": "0s"}, {"one": TINY, "two": TINY})
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device, model="one")
        fill(r.device, model="two", seed=1)
        trained: list[str] = []

        class Told(list[RoundReport]):
            def append(self, report: RoundReport) -> None:
                trained.append(report.model)
                if len(trained) == 6:
                    r.agent.stop("enough")

        r.agent.reports = Told()
        r.run(Goal(timeout=600))
    assert trained == ["one", "two"] * 3


def test_samples_that_go_between_two_looks_cost_a_round_not_the_agent(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), train__every="1s") as r:
        fill(r.device)
        split = r.device.spool.split
        gone = [True]

        def first_empty(model: str, held_out: float, *, until: int) -> object:
            return split(model, held_out, until=0 if gone and gone.pop() else until)

        object.__setattr__(r.device.spool, "split", first_empty)
        r.run(Goal(rounds=1, timeout=60))
        assert r.lineage.head().rounds == 1


@pytest.mark.slow("lives through more rounds than a service remembers")
def test_a_long_service_remembers_only_its_last_rounds(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagent.service.agent.REPORTS", 3)
    with rig(tmp_path / "d", centre(clock), train__every="1s") as r:
        fill(r.device)
        r.serve(20)
        assert r.lineage.head().rounds > 5 and len(r.agent.reports) == 3
        assert r.agent.reports[-1].round == r.lineage.head().rounds
