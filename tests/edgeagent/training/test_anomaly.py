"""Anomalies: an auto-encoder learns its own threshold, which is in every version as its weights are."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeagent.commands.train import finish
from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.settings.tree import AnomalySettings
from edgeagent.state.folder import open_folder
from edgeagent.training import threshold as anomaly
from edgeagent.training.batches import Trainable
from edgecloud.graft.grafting import Wish, graft
from edgecommon.runtime import interpreter_for
from modelwire.errors import BadArgument, ModelError
from modelwire.lattice.snap import exactly, no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Dtype, TensorClass, TensorSpec
from modelwire.tflite.file import contract, read_weights, write_weights
from modelwire.tflite.notes import THRESHOLD, notes_of
from modelwire.update import container
from modelwire.update.manifest import class_of, manifest_of, parse_manifest
from modelwire.update.sections import Kind
from modelwire.wire import cbor
from tests.edgeagent.boards import Rig, centre, make_with, standing
from tests.edgeagent.centre import FakeClock
from tests.stock import STOCK, runtime

FLT_MAX = float(np.finfo(np.float32).max)


@functools.cache
def scored(optimizer: str = "adam") -> bytes:
    stock = (STOCK / "autoencoder.tflite").read_bytes()
    return graft(stock, Wish(train=("all",), modes=("head",), loss="mse", optimizer=optimizer, batch=8, score=True)).file


def opened(file: bytes, name: str) -> Trainable:
    return runtime().open(file, model=name)


def signals(count: int, shape: tuple[int, ...], *, broken: bool = False) -> F32:
    """Return smooth maps, or with `broken` maps that jump."""
    rng = np.random.default_rng(17 + broken)
    along = [np.linspace(0, 3, n) for n in shape]
    phase = rng.uniform(0, 6, (count, len(shape)))
    maps = np.ones((count, *shape))
    for axis, at in enumerate(along):
        wave = np.sin(at[None] + phase[:, axis : axis + 1])
        maps = maps * wave.reshape(count, *(len(at) if i == axis else 1 for i in range(len(shape))))
    return (maps + (3 * rng.standard_normal(maps.shape) if broken else 0)).astype(np.float32)


def state_of(file: bytes, *, exact: bool = False) -> ModelState:
    manifest = manifest_of(file, exact=exact)
    return ModelState.of_base(manifest, manifest.schema.flat(read_weights(file)))


def test_a_file_with_a_score_says_whether_a_sample_is_beyond_its_threshold() -> None:
    file = scored()
    assert notes_of(file).score
    assert read_weights(file)[THRESHOLD].tolist() == [FLT_MAX]
    x = signals(3, shape_of(file))
    for limit, wanted in ((FLT_MAX, 0.0), (1e-9, 1.0)):
        versioned = write_weights(file, {**read_weights(file), THRESHOLD: np.array([limit], np.float32)})
        interpreter = interpreter_for(runtime().interpreter, versioned, delegates=False)
        score, infer = interpreter.get_signature_runner("score"), interpreter.get_signature_runner("infer")
        for one in x:
            said = {name: np.asarray(value) for name, value in score(x=one[None]).items()}
            assert {name: v.shape for name, v in said.items()} == {"score": (1,), "threshold": (1,), "alarm": (1,)}
            expected = np.mean((infer(x=one[None])["output"].astype(np.float64) - one) ** 2)
            assert said["score"][0] == pytest.approx(expected, rel=1e-5)
            assert (said["threshold"][0], said["alarm"][0]) == (np.float32(limit), wanted)
    bad = np.full_like(x[:1], np.nan)  # a sensor that gives no numbers
    assert score(x=bad)["alarm"][0] == 1.0


def shape_of(file: bytes) -> tuple[int, ...]:
    return contract(file).x_shape


def test_training_leaves_the_threshold_where_it_is_in_every_mode() -> None:
    interpreter = interpreter_for(runtime().interpreter, scored(), delegates=False)
    x = np.repeat(signals(1, shape_of(scored())), 8, 0)
    for mode in notes_of(scored()).modes:
        interpreter.get_signature_runner(mode.signature)(x=x, y=x, lr=np.float32(0.01))
        assert interpreter.get_signature_runner("get_weights")()[THRESHOLD].tolist() == [FLT_MAX]


@pytest.mark.parametrize(("name", "loss", "why"), [("har", "auto", "squared error"), ("regression", "mse", "compares x")])
def test_only_a_model_that_reconstructs_its_input_gets_a_score(name: str, loss: str, why: str) -> None:
    with pytest.raises(BadArgument, match=why):
        graft((STOCK / f"{name}.tflite").read_bytes(), Wish(loss=loss, score=True))


def test_the_threshold_is_verbatim_whatever_its_value() -> None:
    """On the lattice it would be rounded to a step, and a dead zone would swallow small moves of it."""
    for value in (0.0, 0.01, FLT_MAX):
        assert class_of(TensorSpec(THRESHOLD, (1,), Dtype.FLOAT32), value) is TensorClass.VERBATIM
    assert class_of(TensorSpec(f"my_{THRESHOLD}", (1,), Dtype.FLOAT32), 0.01) is TensorClass.LATTICE
    manifest = manifest_of(scored())
    assert parse_manifest(manifest.encode()) == manifest and manifest.verbatim(anomaly.tensor_of(manifest) or 0)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("widen", [False, True])
def test_a_threshold_joins_the_update_of_its_round_and_is_taken_back_with_it(exact: bool, widen: bool) -> None:
    before, state = state_of(scored(), exact=exact), state_of(scored(), exact=exact)
    rng = np.random.default_rng(3)
    trained = [w + (rng.normal(0, 0.01, w.shape).astype(np.float32) if w.size > 1 else 0) for w in state.weights]
    residual = no_residual(state.manifest)
    snapped = exactly(state, trained, residual) if exact else snap(state, trained, residual, widen=[1] if widen else ())
    at = anomaly.tensor_of(state.manifest)
    assert at is not None
    settled = anomaly.with_threshold(snapped, at, 0.25)
    assert state.weights[at].tolist() == [0.25]
    assert settled.kind is (Kind.EXACT if exact else Kind.SNAPSHOT if widen else Kind.DELTA)
    assert [s.tensor for s in settled.sections] == sorted({s.tensor for s in settled.sections})
    rebuilt = state_of(scored(), exact=exact)
    rebuilt.apply(settled.kind, settled.sections)
    assert rebuilt.root == state.root and rebuilt.fingerprint == state.fingerprint == state.measure_fingerprint()
    if settled.kind is Kind.DELTA:
        took = [container.size_of(s.sections, state.manifest.schema) for s in (snapped, settled)]
        assert 0 < took[1] - took[0] + len(cbor.encode({"threshold": 0.1})) <= anomaly.BYTES
    assert anomaly.with_threshold(settled, at, 0.25) is settled
    settled.undo()
    assert (state.root, state.fingerprint) == (before.root, before.fingerprint)


def test_a_threshold_is_a_margin_above_nearly_all_held_out_scores() -> None:
    found = np.arange(1, 101) / 100
    assert anomaly.threshold(found, AnomalySettings(quantile=1.0, margin=2.0)) == 2.0
    assert anomaly.threshold(found, AnomalySettings(quantile=0.5, margin=1.0)) == pytest.approx(0.505)
    for none in (np.array([np.nan, 1.0]), np.array([1e300]), np.array([])):
        assert anomaly.threshold(none, AnomalySettings()) is None


def test_a_threshold_on_the_lattice_is_refused() -> None:
    manifest = manifest_of(scored())
    at = anomaly.tensor_of(manifest)
    assert at is not None
    classes = tuple(TensorClass.LATTICE if t == at else c for t, c in enumerate(manifest.classes))
    other = replace(manifest, classes=classes)
    with pytest.raises(ModelError, match="graft the model again"):
        anomaly.tensor_of(other)


@pytest.mark.slow("trains a real net")
def test_a_device_learns_its_threshold_serves_it_and_the_centre_has_the_same_bits(tmp_path: Path) -> None:
    file, shape = scored(), shape_of(scored())
    made = make_with(tmp_path, {"train.learning_rate": "0.003", "train.epochs": "12", "update.density": "0.5"}, {"turbine": file})
    x = signals(120, shape)
    with open_folder(made, alone=True) as board:
        r = Rig(board, centre(FakeClock(), file=file), opened)
        r.run(Goal(publish=True, timeout=60))
        board.spool.extend("turbine", x, targets=x)

        def one() -> rounds.RoundReport:
            return finish(rounds.run(standing(board, opened, "turbine", now=r.centre.clock.wall)))

        report = one()
        assert report.accepted and report.outcome.threshold is not None
        body = board.lineages["turbine"].outbox.body(1)
        header = container.parse(body).header
        assert header.extension["threshold"] == report.outcome.threshold
        assert len(body) <= board.settings.update.max_bytes
        r.run(Goal(publish=True, timeout=60))
        served = (tmp_path / "state" / "models" / "turbine" / "served.tflite").read_bytes()
        limit = float(read_weights(served)[THRESHOLD][0])
        assert limit == report.outcome.threshold
        held = r.centre.lineages["pi-7", "turbine"].versions[1][1].state
        assert held is not None and held.root == header.root == r.lineage.load().state.root
        _, judging = board.spool.split("turbine", 0.2, until=board.spool.last_id("turbine"))
        found = anomaly.scores(runtime().open(served).evaluate(judging.x), judging.x)
        assert limit == pytest.approx(1.5 * np.quantile(found, 0.99), rel=1e-4)
        score = interpreter_for(runtime().interpreter, served, delegates=False).get_signature_runner("score")
        alarms = [[float(score(x=one[None])["alarm"][0]) for one in signals(40, shape, broken=broken)] for broken in (False, True)]
        assert np.mean(alarms[0]) <= 0.05 and np.mean(alarms[1]) == 1.0

        # A round that the guard rejects gives its threshold back with all else.
        head, state = r.lineage.head(), r.lineage.load().state
        board.spool.extend("turbine", 50 * x[:64], targets=50 * x[:64])
        path = tmp_path / reading.FILE
        path.write_text(path.read_text().replace("learning_rate = 0.003", "learning_rate = 50.0").replace("margin = 100", "margin = 0.0"))
    with open_folder(reading.load(path, environment={}, flags={}), alone=True) as board:
        lineage = board.lineages["turbine"]
        report = finish(rounds.run(standing(board, opened, "turbine", now=FakeClock().wall)))
        assert not report.accepted
        after = lineage.load().state
        assert (lineage.head().commit, after.root, after.fingerprint) == (head.commit, state.root, state.fingerprint)
        assert float(after.named()[THRESHOLD][0]) == limit
