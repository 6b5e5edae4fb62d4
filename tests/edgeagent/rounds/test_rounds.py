"""Rounds: the guard's verdict, and that a rejected round leaves not a bit behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.commands.train import finish
from edgeagent.rounds import fitting
from edgeagent.rounds import round as rounds
from edgeagent.rounds.round import RoundReport
from edgeagent.rounds.standing import OpenModel
from edgeagent.samples.spool import Samples
from edgeagent.service.goal import Goal
from edgeagent.training import batches as trainer
from edgeagent.training.course import Lesson, courses_for
from modelwire.errors import NotEnoughSamples, NotWelcome, OutboxFull, TrainingDiverged
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, Step, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32
from tests.edgeagent.boards import TINY, Rig, ScriptedModel, centre, fill, rig, scripted, standing
from tests.edgeagent.centre import FakeClock


def welcomed(r: Rig, samples: int = 40) -> None:
    r.run(Goal(publish=True, timeout=60))
    fill(r.device, samples)


def one(r: Rig, open_model: OpenModel = scripted) -> RoundReport:
    return finish(rounds.run(standing(r.device, open_model, now=r.centre.clock.wall)))


def finished(model: ScriptedModel, samples: Samples, *, epochs: int, seed: int) -> None:
    """Take a whole course with the model."""
    course = courses_for(TINY, model="tiny")[-1].begin(model, Lesson("tiny", samples, model.get_weights(), epochs, 0.1, seed))
    while course.done < course.steps:
        course.step()
    course.trained()


def opens(kind: type[ScriptedModel]) -> OpenModel:
    return lambda file, name: kind(file)


def whole(r: Rig) -> tuple[object, ...]:
    """Return everything that a rejected round must leave alone."""
    head, held = r.lineage.head(), r.lineage.load()
    state = held.state
    return (
        head.version, head.commit, head.slot, head.file_sha256, head.private_sha256, head.last_version, head.widen, head.step,
        state.root, state.fingerprint, [q.tobytes() for q in state.integers], [x.tobytes() for x in held.residual],
        held.file, r.lineage.outbox.waiting(),
    )  # fmt: skip


class Worse(ScriptedModel):
    """Sure of the right class until it is trained, sure of a wrong one afterwards."""

    def __init__(self, file: bytes) -> None:
        super().__init__(file)
        self.before = {name: w.copy() for name, w in self.weights.items()}

    def evaluate(self, x: F32) -> F32:
        right = x[:, :3].argmax(1)
        same = all(np.array_equal(w, self.before[n]) for n, w in self.weights.items())
        out = np.full((len(x), 3), 0.1, np.float32)
        out[np.arange(len(x)), right if same else (right + 1) % 3] = 0.8
        return out


class Diverges(ScriptedModel):
    def train(self, x: F32, y: F32, lr: float) -> float:
        super().train(x, y, lr)
        return float("nan")


class RuinsQuietly(ScriptedModel):
    """Reports a finite loss and leaves an infinite weight: the loss was computed before the step."""

    def train(self, x: F32, y: F32, lr: float) -> float:
        next(iter(self.weights.values())).reshape(-1)[0] = np.inf
        return 0.5


class AnswersNothing(ScriptedModel):
    def evaluate(self, x: F32) -> F32:
        trained = any(w.any() for n, w in self.weights.items() if n.endswith("bias"))
        return np.full((len(x), 3), np.nan if trained else 1 / 3, np.float32)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Worse, "worse by more than"),
        (Diverges, "a loss of nan after 1 steps"),
        (RuinsQuietly, "not finite"),
        (AnswersNothing, "its output on held-out samples is not finite"),
    ],
)
def test_a_rejected_round_leaves_everything_as_it_was_and_says_why(tmp_path: Path, kind: type[ScriptedModel], said: str) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), train__margin="0.02", update__density="1") as r:
        welcomed(r)
        report = one(r, opens(ScriptedModel))
        assert report.accepted
        before = whole(r)
        report = one(r, opens(kind))
        assert not report.accepted and said in report.reason
        assert whole(r) == before
        row = r.lineage.versions(1)[0]
        assert (row["state"], row["version"], row["round"]) == ("rejected", None, 2) and said in row["reason"]
        assert r.lineage.head().rounds == 2, "it counts as a round"
        assert one(r).version == 2, "and took no number"


def test_the_guard_s_no_gives_the_model_in_memory_every_bit_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Snapped, object, object]] = []

    def bits(state: ModelState, residual: Residual) -> object:
        arrays = [a.tobytes() for a in (*state.weights, *state.integers, *residual)]
        return arrays, state.fingerprint, state.measure_fingerprint(), state.exponents

    def watched(state: ModelState, trained: list[F32], residual: Residual, **facts: Any) -> Snapped:
        before = bits(state, residual)
        snapped = snap(state, trained, residual, **facts)
        seen.append((snapped, before, lambda: bits(state, residual)))
        assert before != bits(state, residual)
        return snapped

    monkeypatch.setattr(fitting, "snap", watched)
    with rig(tmp_path / "d", centre(FakeClock()), train__margin="0.02", update__density="1") as r:
        welcomed(r)
        assert one(r, opens(ScriptedModel)).accepted
        seen.clear()
        assert not one(r, opens(Worse)).accepted
        assert seen
        for _, before, now in seen:
            assert now() == before  # type: ignore[operator]


def test_a_round_that_changes_nothing_sends_nothing(tmp_path: Path) -> None:
    class Idle(ScriptedModel):
        def train(self, x: F32, y: F32, lr: float) -> float:
            return 1.0

    with rig(tmp_path / "d", centre(FakeClock())) as r:
        welcomed(r)
        report = one(r, opens(Idle))
        assert not report.accepted and "changed nothing" in report.reason


def test_an_update_is_never_larger_than_its_budget(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), update__density="1", update__max_bytes="512B") as r:
        welcomed(r)
        for _ in range(5):
            report = one(r)
            assert report.accepted and report.bytes <= 512, "all 39 weights would take more"


def test_nothing_is_sealed_in_an_abandoned_round(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), train__epochs="50") as r:
        welcomed(r)
        before = whole(r)
        steps = rounds.run(standing(r.device))
        for _ in range(20):
            next(steps)
        steps.close()
        assert whole(r) == before and r.lineage.head().rounds == 0


def test_a_round_needs_an_epoch_samples_on_both_sides_and_room(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), outbox__max_bytes="4KiB", update__max_bytes="2KiB", update__density="1") as r:
        room = r.device.settings.outbox.max_bytes
        with pytest.raises(NotWelcome):
            rounds.check_due(standing(r.device), room)
        r.run(Goal(publish=True, timeout=60))
        with pytest.raises(NotEnoughSamples, match="has 0 samples and needs 8"):
            rounds.check_due(standing(r.device), room)
        fill(r.device)
        rounds.check_due(standing(r.device), room)
        while r.lineage.outbox.held_bytes() + 2048 <= room:
            one(r)
        many = len(r.lineage.outbox.waiting("queued"))
        rounds.check_due(standing(r.device), room)
        assert many > 1 and len(r.lineage.outbox.waiting("queued")) == 1, "what never left was joined first"
        while r.lineage.outbox.held_bytes() + 2048 <= room:
            one(r)
            for w in r.lineage.outbox.waiting("queued"):
                r.lineage.outbox.offer(w.version)
        with pytest.raises(OutboxFull):
            rounds.check_due(standing(r.device), room)


@pytest.mark.slow("lives through many rounds")
def test_a_full_outbox_stops_the_training_and_receipts_set_it_going_again(tmp_path: Path) -> None:
    clock = FakeClock()
    c = centre(clock)
    with rig(tmp_path / "d", c, outbox__max_bytes="4KiB", update__max_bytes="2KiB", update__density="1") as r:
        welcomed(r)
        c.drop_up = lambda leaf, said: leaf == "update"
        c.after(500, lambda: setattr(c, "drop_up", lambda leaf, said: False))
        r.run(Goal(rounds=30, timeout=6000))
        assert r.lineage.head().rounds == 30 and clock.now > 1500
        assert r.lineage.outbox.held_bytes() == 0


@given(n=st.integers(1, 200), size=st.integers(1, 40))
def test_batches_are_all_of_one_size_and_hold_no_sample_twice(n: int, size: int) -> None:
    order = np.random.default_rng(n).permutation(n)
    cut = list(trainer.batches(order, size))
    assert all(len(b) == size for b in cut)
    assert len(cut) == trainer.steps_of(n, size, 1)
    if n >= size:
        flat = np.concatenate(cut)
        assert len(set(flat.tolist())) == len(flat) > n - size
    else:
        assert set(cut[0].tolist()) == set(range(n)) or size < n, "fewer than a batch: each is there, some twice"


def test_a_repeated_round_sees_the_same_samples_in_the_same_order() -> None:
    seen: list[list[bytes]] = []

    class Watches(ScriptedModel):
        def train(self, x: F32, y: F32, lr: float) -> float:
            seen[-1].append(x.tobytes())
            return 1.0

    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    samples = Samples(x, np.zeros((50, 3), np.float32), True)
    for version, round in ((4, 4), (4, 4), (5, 5)):
        seen.append([])
        seed = trainer.seed_of("pi-7", "tiny", version, round)
        finished(Watches(TINY), samples, epochs=2, seed=seed)
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][:3] != seen[0][3:], "each epoch has an order of its own"


def test_divergence_in_the_last_step_is_found_in_the_weights() -> None:
    samples = Samples(np.zeros((20, 4), np.float32), np.zeros((20, 3), np.float32), True)
    with pytest.raises(TrainingDiverged, match="a weight in"):
        finished(RuinsQuietly(TINY), samples, epochs=1, seed=1)


def test_the_step_of_the_last_adopted_round_is_held_also_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Step | None] = []

    def watched(*args: Any, held: Step | None, **others: Any) -> Snapped:
        given.append(held)
        return snap(*args, held=held, **others)

    monkeypatch.setattr(fitting, "snap", watched)
    steps: list[Step | None] = [None]
    for _ in range(2):
        with rig(tmp_path / "d", centre(FakeClock()), train__margin="0.5") as r:
            if steps == [None]:
                welcomed(r)
            for kind in (ScriptedModel, Worse):
                one(r, opens(kind))
                assert given[-1] == steps[-1]
                if kind is ScriptedModel:
                    steps.append(r.lineage.head().step)
    assert len(given) == 4 and None not in steps[1:]


@pytest.mark.slow("lives through many rounds")
def test_the_residual_is_carried_from_round_to_round(tmp_path: Path) -> None:
    """With one weight a round allowed, a constant pull on all of them is sent bit by bit, none of it lost for good."""

    class Pull(ScriptedModel):
        def train(self, x: F32, y: F32, lr: float) -> float:
            for name, w in self.weights.items():
                if name == "hidden1_kernel":
                    w += np.float32(0.01)
            return 1.0

    with rig(tmp_path / "d", centre(FakeClock()), update__density="0.03") as r:
        welcomed(r)
        index = r.lineage.manifest.schema.index("hidden1_kernel")
        touched: set[int] = set()
        for _ in range(30):
            before = r.lineage.load().state.integers[index].copy()
            one(r, opens(Pull))
            touched |= set(np.flatnonzero(r.lineage.load().state.integers[index] != before).tolist())
        assert touched == set(range(12)), "each of the twelve weights had its turn"
