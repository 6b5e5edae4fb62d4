"""Training when it pays: a quiet stream is left alone, a shift of the data or of the loss is learnt, and the reason is told."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from edgeagent.cli import main
from edgeagent.rounds import drift
from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgeagent.training.batches import Trainable
from edgecommon import runtime
from modelwire.errors import RuntimeUnusable
from tests.edgeagent.boards import Rig, centre, fill, make, rig, standing
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.heads import board, grafted, samples
from tests.edgeagent.two_days import live
from tests.worlds import digits_world, model_file, world

try:
    RUNTIME = runtime.load()
except RuntimeUnusable as e:
    pytest.skip(f"no TFLite runtime in this environment: {e}", allow_module_level=True)

PAYS = {"train__when": "pays", "train__min_new_samples": "100", "train__every": "30d", "train__min_samples": "32"}
LEARNS = {"train__learning_rate": "0.1", "train__epochs": "8", "train__margin": "0.05", "update__density": "0.05"}


def open_model(file: bytes, name: str) -> Trainable:
    return RUNTIME.open(file, model=name)


def rounds_of(r: Rig) -> int:
    return r.lineage.head().rounds


@pytest.mark.slow("trains a real net")
def test_a_stationary_stream_trains_once_and_a_shift_makes_it_train_again(tmp_path: Path) -> None:
    here, there, base = digits_world(1), digits_world(5), model_file("digits")
    make(tmp_path / "d", models={"digits": base}, **PAYS, **LEARNS)
    with rig(tmp_path / "d", centre(FakeClock(), file=base), open_model) as r:
        spool = r.device.spool
        x, y = here.stream(0, 700)
        spool.extend("digits", x, y)
        r.serve(10)
        assert rounds_of(r) == 1, "no version was trained yet"
        for n in range(1, 6):
            x, y = here.stream(n, 100)
            spool.extend("digits", x, y)
            r.serve(10)
            assert rounds_of(r) == 1, r.lineage.versions(1)[0]["loss_after"]
            head = r.lineage.head()
            assert head.looked_id == spool.last_id("digits") and "on held-out ones at @1" in head.look
        x, y = there.stream(0, 60)
        spool.extend("digits", x, y)
        r.serve(10)
        assert rounds_of(r) == 1, "not as many again yet: it did not look"
        x, y = there.stream(1, 60)
        spool.extend("digits", x, y)
        r.serve(10)
        assert rounds_of(r) == 2 and r.lineage.head().look == ""


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize("what", ["labels", "channels"])
def test_other_labels_or_features_are_learnt_before_the_loss_rises(tmp_path: Path, what: str) -> None:
    w, base = world("digits", 1), model_file("digits")
    make(tmp_path / "d", models={"digits": base}, train__drift_loss="100", **PAYS, **LEARNS)
    with rig(tmp_path / "d", centre(FakeClock(), file=base), open_model) as r:
        spool = r.device.spool
        x, y = w.stream(0, 600)
        spool.extend("digits", x, y)
        r.serve(10)
        x, y = w.stream(1, 120)
        spool.extend("digits", x, y)
        r.serve(10)
        assert rounds_of(r) == 1 and "they look as those before" in r.lineage.head().look
        x, y = w.stream(2, 400)
        some = (y < 3) if what == "labels" else np.arange(len(y)) < 120
        spool.extend("digits", x[some] + (0.0 if what == "labels" else 0.6), y[some])
        r.serve(10)
        assert rounds_of(r) == 2


@pytest.mark.slow("trains a real net")
def test_without_new_samples_it_says_so_and_looks_again_when_some_have_come(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), **{**PAYS, "train__every": "1h", "train__min_new_samples": "0"}) as r:
        fill(r.device, 40)
        r.serve(10)
        assert rounds_of(r) == 1
        r.serve(2 * 3600)
        assert rounds_of(r) == 1 and r.lineage.head().look == "no sample has come since the last round"
        fill(r.device, 31, seed=1)
        r.serve(10)
        assert r.lineage.head().look == "no sample has come since the last round"
        fill(r.device, 1, seed=2)
        r.serve(10)
        assert "on 32 new samples" in r.lineage.head().look


def test_status_says_why_it_waits_and_a_round_that_was_asked_for_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), **PAYS) as r:
        fill(r.device, 100)
        r.serve(10)
        fill(r.device, 100, seed=1)
        r.serve(10)
        assert rounds_of(r) == 1
    assert main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "no round pays yet: loss 1.0986 on 100 new samples" in capsys.readouterr().out
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        r.run(Goal(rounds=2, timeout=60))
        assert rounds_of(r) == 2 and r.lineage.head().look == ""


def test_features_that_moved_far_off_are_learnt_though_the_loss_is_the_same(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), **PAYS) as r:
        fill(r.device, 100)
        r.serve(10)
        x = np.random.default_rng(3).normal(size=(100, 4)).astype(np.float32)
        r.device.spool.extend("tiny", x + 30, x[:, :3].argmax(1))
        r.serve(10)
        assert rounds_of(r) == 2, "the mean of its samples moved"


@pytest.mark.slow("lives through two days of many rounds")
def test_yesterday_is_not_forgotten() -> None:
    """Two worlds, one a day, and a spool that holds a third of a day: `python -m tests.edgeagent.two_days` prints the whole table."""
    by_rule = {rule: [live(rule, seed, RUNTIME) for seed in (0, 1)] for rule in ("oldest of all", "reservoir of each class")}
    first, second = (
        {rule: float(np.mean([day.after_second[world] for day in days])) for rule, days in by_rule.items()} for world in (0, 1)
    )
    assert first["reservoir of each class"] > first["oldest of all"] + 0.04
    assert second["reservoir of each class"] > second["oldest of all"] - 0.04


@pytest.mark.slow("its round starts a process that computes features")
def test_a_look_in_mode_features_opens_no_model_and_the_link_is_served_meanwhile(tmp_path: Path) -> None:
    opened: list[str] = []
    settings = {"train__when": "pays", "train__min_samples": "8", "train__min_new_samples": "16", "train__every": "30d"}
    with board(tmp_path / "d", grafted(), **settings) as b:

        def open_model(file: bytes, name: str) -> Trainable:
            opened.append(name)
            return RUNTIME.open(file, model=name)

        b.agent.open_model = open_model

        def serve() -> int:
            b.centre.after(300, lambda: b.agent.stop("test"))
            b.agent.stopping = ""
            b.agent.run(Goal())
            return b.lineage.head().rounds

        b.spool.extend("m", *samples(80))
        assert serve() == 1
        b.spool.extend("m", *samples(40, seed=3))
        assert serve() == 1, b.lineage.head().look
        assert "new samples" in b.lineage.head().look
        x, y = samples(60, seed=4)
        b.spool.extend("m", x, (y + 1) % 4)
        assert serve() == 2, b.lineage.head().look
        assert not opened and [r.outcome.mode for r in b.agent.reports] == ["features", "features"]
        on_both = standing(b.device, open_model, "m", extractors=b.models.extractors)
        whole, kept = drift.look(on_both), drift.look(on_both, on_features=True)
        b.spool.extend("m", *samples(40, seed=5))
        said = [found(look) for look in (whole, kept)]
        assert said[0] == said[1] and opened == ["m"], "and finds what the whole model finds"


def found(look: Generator[None, None, drift.Look]) -> drift.Look:
    while True:
        try:
            next(look)
        except StopIteration as end:
            said: drift.Look = end.value
            return said


@pytest.mark.slow("trains a real net")
def test_a_round_that_is_taken_up_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model_file("digits")
    make(tmp_path / "d", models={"digits": base}, **PAYS, **{**LEARNS, "train__epochs": "100"})
    with rig(tmp_path / "d", centre(FakeClock(), file=base), open_model) as r:
        r.device.spool.extend("digits", *digits_world(1).stream(0, 300))
        r.run(Goal(rounds=1))
        r.device.spool.extend("digits", *digits_world(5).stream(0, 300))
        steps = rounds.run(standing(r.device, open_model, "digits"))
        for _ in range(5):
            next(steps)
        steps.close()
        monkeypatch.setattr(drift, "look", None)
        r.serve(5)
        assert rounds_of(r) == 2
