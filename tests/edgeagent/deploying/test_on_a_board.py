"""A device in memory is sent variants: it takes over what does, goes back without a byte, and the centre rebuilds each version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeagent.deploying import hosts
from edgeagent.deploying.hosts import HostWord
from edgeagent.service.goal import Goal
from modelwire.deploying.reports import Code, figures_in
from modelwire.tensors import F32
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.wire import records
from modelwire.wire.records import Level
from tests import keys
from tests.edgeagent.boards import TINY, Rig, ScriptedModel, centre, fill
from tests.edgeagent.centre import Centre, FakeClock
from tests.edgeagent.state.test_forgetting import asked

from .deployed import back_to, bring, deployed, other_base, seen, states

B = other_base()
WAY = ["offered", "fetching", "staged", "probing", "soaking", "confirmed"]


def newest_is_served(c: Centre, r: Rig) -> bool:
    lineage = r.lineage
    newest = max(c.held("pi-7", "tiny").items())[1]
    return newest.level is Level.VERIFIED and newest.state is not None and newest.state.root == lineage.load().state.root


def test_a_variant_is_taken_over_and_rounds_go_on_upon_it(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, TINY, train__every="1h") as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        before = r.lineage.load().state
        c.after(1, lambda: c.push(bring(B), "desired"))
        r.serve(200)
        assert states(c) == WAY
        assert r.lineage.base_commit == manifest_of(B).commit
        last = figures_in(c.reports[-1].more)
        assert last is not None and (last.serves, last.passive) == (manifest_of(B).commit, manifest_of(TINY).commit)
        assert last.learned in ("kept", "carried") and last.rows > 0
        assert newest_is_served(c, r) and c.updates()[-1].header.base == manifest_of(B).commit
        rounds = r.lineage.head().rounds
        r.serve(8000)
        assert r.lineage.head().rounds > rounds, "rounds go on, on the new base"
        assert newest_is_served(c, r)
        sent = sum(x.size for x in c.updates())
        c.push(back_to(TINY, 2), "desired")
        r.serve(200)
        assert states(c, 2)[-1] == "confirmed" and len([x for x in c.reports if getattr(x, "number", 0) == 2]) <= 3, "in few bytes"
        assert r.lineage.base_commit == manifest_of(TINY).commit and newest_is_served(c, r)
        assert r.lineage.load().state.root == before.root, "as it was when it was left"
        assert sum(x.size for x in c.updates()) - sent < 2048


def test_no_round_begins_while_it_soaks_and_status_knows_why(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, train__every="10s") as r:
        fill(r.device)
        c.after(1, lambda: c.push(bring(B, soak=500), "desired"))
        r.serve(100)
        assert states(c)[-1] == "soaking"
        head, wait = r.lineage.head(), r.lineage.waiting()
        assert read_weights(seen(r)).keys() == read_weights(B).keys() and seen(r) != r.lineage.load().file
        r.serve(200)
        assert r.lineage.head() == head, "the head has not moved, and no round was done"
        assert wait is None or "on trial" in wait.reason
        r.serve(400)
        assert states(c)[-1] == "confirmed" and r.lineage.head().version > head.version


@pytest.mark.parametrize("forgets", [True, False])
def test_what_the_centre_does_to_a_model_on_trial_is_no_fault_of_the_variant(tmp_path: Path, clock: FakeClock, forgets: bool) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, train__every="30d") as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        r.agent.stopping = ""
        c.after(1, lambda: c.push(bring(B, soak=100), "desired"))
        r.serve(60)
        assert states(c)[-1] == "soaking"
        c.push(asked(r, r.lineage.load().state.at_base(), **({} if forgets else {"extension": {}})))
        r.serve(200)
        assert c.answers[-1].ok and states(c)[-1] == "reverted"
        figures = figures_in(c.reports[-1].more)
        assert figures is not None and figures.code == Code.SUPERSEDED, c.reports[-1].reason
        assert ("forgotten" in c.reports[-1].reason) is forgets
        assert seen(r) == r.lineage.load().file and newest_is_served(c, r)


def test_a_variant_that_lay_here_and_was_damaged_comes_anew(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, TINY, train__every="30d") as r:
        fill(r.device)
        c.after(1, lambda: c.push(bring(B), "desired"))
        r.serve(100)
        assert states(c) == WAY
        (r.lineage.store.folder / "base.tflite").write_bytes(b"the disk has changed it")
        c.push(bring(TINY, 2), "desired")
        r.serve(100)
        assert states(c, 2) == WAY
        assert r.lineage.base_commit == manifest_of(TINY).commit and r.lineage.store.base() == TINY and newest_is_served(c, r)


def test_a_restart_in_any_state_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    for i in range(80):
        with deployed(tmp_path / "d", c, B, train__every="30d") as r:
            if i == 0:
                fill(r.device)
                c.after(1, lambda: c.push(bring(B), "desired"))
            r.serve(3)
        if states(c)[-1:] == ["confirmed"]:
            break
    assert states(c) == WAY
    with deployed(tmp_path / "d", c, B) as r:
        assert r.lineage.base_commit == manifest_of(B).commit


def test_the_host_says_no_and_what_was_served_is_served(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, train__every="30d") as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        was, updates = seen(r), len(c.updates())
        c.after(1, lambda: c.push(bring(B, soak=500), "desired"))
        r.serve(60)
        assert states(c)[-1] == "soaking" and seen(r) != was
        hosts.say(r.device.database, "tiny", HostWord(1, False, "it brakes late"))
        r.serve(10)
        assert states(c)[-1] == "reverted" and c.reports[-1].reason == "the host said no: it brakes late"
        assert seen(r) == was and len(c.updates()) == updates, "going back before it is confirmed costs no update"
        assert not (r.lineage.store.folder / "bases").exists()


@pytest.mark.parametrize("how", ["crash", "worse", "nan"])
def test_what_fails_when_it_is_tried_is_never_served(tmp_path: Path, clock: FakeClock, how: str) -> None:
    was = read_weights(TINY)

    class Judged(ScriptedModel):
        def evaluate(self, x: F32) -> F32:
            other = any(not np.allclose(self.weights[n], was[n], atol=0.1) for n in was)
            if other and how == "crash":
                raise RuntimeError("it crashed")
            right: F32 = np.eye(3, dtype=np.float32)[x[:, :3].argmax(1)]
            if other and how == "nan":
                return right * np.float32("nan")
            return np.float32(1) - right if other else right

    c = centre(clock)
    with deployed(tmp_path / "d", c, other_base(scale=3.0), open_model=lambda file, name: Judged(file), train__min_samples="9999") as r:
        fill(r.device, 200)
        c.after(1, lambda: c.push(bring(other_base(scale=3.0), worse=500), "desired"))
        served = seen(r)
        r.serve(60)
        assert states(c) == [*WAY[:4], "reverted"]
        figures = figures_in(c.reports[-1].more)
        assert figures is not None and figures.code == {"crash": "load", "worse": "worse", "nan": "not-finite"}[how]
        if how == "worse":
            assert figures.worse == figures.rows > 8 and c.reports[-1].before == 1.0 and c.reports[-1].after == 0.0
        assert seen(r) == served and c.updates() == []


def test_no_altered_desired_is_taken(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with deployed(tmp_path / "d", c, B, train__min_samples="9999") as r:
        data = records.encode(bring(B), keys.DIRECTOR, keys.FLEET_ID)
        rng = np.random.default_rng(3)
        topic = "e1/home/pi-7/tiny/dn/desired"
        for _ in range(200):
            wrong = bytearray(data)
            wrong[rng.integers(len(wrong))] ^= 1 << rng.integers(8)
            c.deliver(topic, bytes(wrong))
        for leaf, device, model in (("cmd", "pi-7", "tiny"), ("desired", "pi-8", "tiny"), ("desired", "pi-7", "other")):
            c.deliver(f"e1/home/{device}/{model}/dn/{leaf}", data)
        for key in (keys.ROOT, keys.RECEIPT, keys.COMMAND):
            c.deliver(topic, records.encode(bring(B), key, keys.FLEET_ID))
        c.deliver(topic, records.encode(bring(B), keys.DIRECTOR, bytes(16)))
        r.serve(30)
        assert c.reports == [] and seen(r) == r.lineage.load().file
        assert r.agent.sessions["tiny"].deploying.holds_training() is None
