"""The int8 head on the board: it learns, keeps its scales, goes on with the same bits, and is what a runtime computes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgeagent.rounds import round as rounds
from edgeagent.rounds.resuming import trial_of
from edgeagent.samples.spool import Samples
from edgeagent.service.goal import Goal
from edgeagent.service.opener import opener
from edgeagent.settings import reading, template
from edgeagent.state.folder import open_folder
from edgeagent.state.new_folder import create_folder
from edgeagent.training import batches as trainer
from edgeagent.training.course import Course, Lesson, courses_for
from edgeagent.training.int8_head import ISSUE, Int8Model, trains
from edgecloud.graft import retraining
from edgecloud.graft.stock import read
from modelwire.errors import ModelError, NotTrainable, ShapeMismatch, TrainingDiverged
from modelwire.tensors import Weights
from modelwire.tflite.file import read_head, read_weights, write_weights
from modelwire.tflite.int8_head import BIAS, BIAS_SCALE, KERNEL, KERNEL_SCALE, OUTPUT_SCALE, OUTPUT_ZERO, Int8Head
from modelwire.tflite.int8_numbers import logits_of
from tests import int8, keys
from tests.edgeagent import boards
from tests.edgeagent.centre import FakeClock
from tests.modelwire.tflite.test_int8_head import KERNEL_AT, LOGISTIC, OTHER, SOFTMAX, Surgeon
from tests.stock import runtime, stock_path

FILES = pytest.mark.parametrize("file", [SOFTMAX, LOGISTIC], ids=["softmax", "logistic"])


def head_of(file: bytes) -> Int8Head:
    head = read_head(file)
    assert head is not None
    return head


def samples_for(file: bytes, count: int = 256, seed: int = 0) -> Samples:
    """Return rows of codes that lie around one row for each class."""
    head = head_of(file)
    rng, classes = np.random.default_rng(seed), head.contract.classes
    centres = np.random.default_rng(99).integers(-128, 60, (classes, head.features))
    labels = np.arange(count) % classes
    x = np.clip(centres[labels] + np.rint(rng.normal(0, 25, (count, head.features))), -128, 127).astype(np.float32)
    return Samples(x, np.eye(classes, dtype=np.float32)[labels], True, np.arange(count))


def course_on(file: bytes, *, epochs: int = 12, rate: float = 0.05, seed: int = 3) -> tuple[Int8Model, Course]:
    model = Int8Model(file)
    (offer,) = courses_for(file, model="model")
    assert offer.mode == "head"
    return model, offer.begin(model, Lesson("model", samples_for(file), read_weights(file), epochs, rate, seed))


def finished(course: Course) -> Weights:
    while course.done < course.steps:
        course.step()
    return course.trained()


def accuracy(model: Int8Model, samples: Samples) -> float:
    return float((model.evaluate(samples.x).argmax(1) == samples.y.argmax(1)).mean())


@FILES
def test_a_head_learns_and_the_file_holds_what_it_learnt(file: bytes) -> None:
    model, course = course_on(file)
    unseen = samples_for(file, seed=1)
    before = accuracy(model, unseen)
    trained = finished(course)
    written = write_weights(file, trained)
    served = Int8Model(written)
    assert len(written) == len(file)
    assert {n: a.tobytes() for n, a in served.get_weights().items()} == {n: a.tobytes() for n, a in trained.items()}
    assert served.evaluate(unseen.x).tobytes() == model.evaluate(unseen.x).tobytes()
    assert before < 0.75 and accuracy(served, unseen) >= 0.95
    assert np.abs(trained[KERNEL]).max() <= 127 and (trained[KERNEL] == np.rint(trained[KERNEL])).all()
    assert model.runtime_key == ISSUE and trains(file)


@FILES
def test_training_that_goes_on_elsewhere_gives_the_same_bits(file: bytes) -> None:
    _, course = course_on(file)
    whole = finished(course)
    _, first = course_on(file)
    for _ in range(29):
        first.step()
    kept = first.keep()
    _, second = course_on(file)
    assert {n: (a.dtype, a.shape) for n, a in second.keep().items()} == {n: (a.dtype, a.shape) for n, a in kept.items()}
    second.restore(kept)
    assert second.whole and second.done == 29
    assert {n: a.tobytes() for n, a in finished(second).items()} == {n: a.tobytes() for n, a in whole.items()}


@pytest.mark.parametrize(
    ("file", "digest"),
    [
        (SOFTMAX, "fd31310edbd49fb6124ef9aae1bc46063198c5fa0529d2055f9341d829925b89"),
        (LOGISTIC, "80fea37bb66e569ef6257541ed5a76cfcda95b306f3380c2026ea1af0bd12c0b"),
    ],
    ids=["softmax", "logistic"],
)
def test_the_same_samples_give_the_same_bytes_on_every_processor(file: bytes, digest: str) -> None:
    model = Int8Model(file)
    n = head_of(file).features
    rows = (np.arange(32 * n).reshape(32, n) * 37 % 256 - 128).astype(np.int64)
    classes = model.contract.classes
    labels = np.eye(classes, dtype=np.float32)[rows[:, 0] % classes]
    for _ in range(100):
        model.train(rows, labels, 0.05)
    said = hashlib.sha256(b"".join(a.tobytes() for a in model.get_weights().values())).hexdigest()
    assert said == digest


def test_weights_stay_inside_their_scale_and_get_a_coarser_one_where_many_stand_at_its_end() -> None:
    _, course = course_on(LOGISTIC, epochs=40)
    first = finished(course)
    base = read_weights(LOGISTIC)
    assert first[KERNEL_SCALE].tobytes() == base[KERNEL_SCALE].tobytes() and first[BIAS_SCALE].tobytes() == base[BIAS_SCALE].tobytes()
    ended = float((np.abs(first[KERNEL]) == 127).mean())
    assert ended > 1 / 8
    _, again = course_on(write_weights(LOGISTIC, first), epochs=1)
    second = finished(again)
    by = float(second[KERNEL_SCALE][0] / first[KERNEL_SCALE][0])
    assert by == (2.0 if ended <= 1 / 4 else 4.0 if ended <= 1 / 2 else 8.0)
    assert second[BIAS_SCALE][0] / first[BIAS_SCALE][0] == by
    write_weights(LOGISTIC, second)


def test_a_head_that_shares_its_scales_keeps_them_for_good() -> None:
    surgeon = Surgeon()
    surgeon.point(surgeon.quantization(OTHER), 2, surgeon.quantization(KERNEL_AT).vector(2, 4).start - 4)
    file = bytes(surgeon.file)
    for _ in range(3):
        _, course = course_on(file, epochs=20)
        trained = finished(course)
        assert KERNEL_SCALE not in trained
        file = write_weights(file, trained)
    assert head_of(file).kernel_scales == head_of(SOFTMAX).kernel_scales
    assert accuracy(Int8Model(file), samples_for(SOFTMAX, seed=1)) >= 0.9


def test_logits_that_outgrow_their_scale_get_another_and_none_is_cut() -> None:
    _, course = course_on(SOFTMAX, epochs=40)
    trained = finished(course)
    base = read_weights(SOFTMAX)
    assert trained[OUTPUT_SCALE] > base[OUTPUT_SCALE]
    high, low = divmod(int(trained[OUTPUT_ZERO].astype("<i4").view("<i8")[0]), 1 << 32)
    assert high in (0, -1) and 0 <= low < 1 << 32
    head = head_of(write_weights(SOFTMAX, trained))
    codes = logits_of(head, trained, samples_for(SOFTMAX).x.astype(np.int64))
    assert codes.min() > -128 and codes.max() < 127


@FILES
def test_the_judged_head_is_what_the_runtime_computes_to_the_last_code(file: bytes) -> None:
    _, course = course_on(file)
    served = write_weights(file, finished(course))
    agree(served, frames=1, clips=300)


@pytest.mark.parametrize("name", ["okay_nabu", "hey_jarvis"])
def test_so_it_is_with_wake_words_that_keep_state(name: str) -> None:
    stock = stock_path(name).read_bytes()
    _, course = course_on(stock, epochs=2)
    agree(write_weights(stock, finished(course)), frames=6, clips=40, before=stock)


def test_sums_half_between_two_codes_go_to_the_even_one_as_the_default_kernels_have_it() -> None:
    """With scales that divide each other such sums are common."""
    head = head_of(SOFTMAX)
    step = np.float32(head.feature_scale) * np.float32(head.kernel_scales[0])
    weights = read_weights(SOFTMAX)
    kernel = np.zeros_like(weights[KERNEL])
    kernel[:, 0] = 1
    put = {
        **weights, KERNEL: kernel, BIAS: np.arange(len(kernel), dtype=np.int32), OUTPUT_SCALE: np.array([2 * step], np.float32),
        KERNEL_SCALE: np.full_like(weights[KERNEL_SCALE], head.kernel_scales[0]), BIAS_SCALE: np.full_like(weights[BIAS_SCALE], step),
    }  # fmt: skip
    served = write_weights(SOFTMAX, put)
    again = head_of(served)
    rows = np.zeros((7, again.features), np.int64)
    rows[:, 0] = np.arange(-3, 4)
    sums = rows[:, :1] - again.feature_zero + np.arange(len(kernel))
    wanted = np.clip(np.rint(sums / 2) + again.output_zero, -128, 127)
    assert logits_of(again, read_weights(served), rows).tolist() == wanted.tolist()
    agree(served, frames=1, clips=64, only="AUTO")


def agree(served: bytes, *, frames: int, clips: int, before: bytes = b"", only: str = "") -> None:
    """Compare a served file as a runtime computes it with the int8 head computed here, and its rows with those of `before`."""

    def seen(file: bytes) -> bytes:
        stock = read(file)
        of = retraining.int8_head_of(stock, stock.outputs[0])
        return retraining.exposing(read(retraining.exposing(stock, of.seen)), of.given)

    stock = read(served)
    sounds, _ = int8.clips_of(stock.tensors[stock.inputs[0]].shape[1:], 5, clips, frames)
    head, weights = head_of(served), read_weights(served)
    for kind in (only,) if only else ("AUTO", "BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"):
        *_, rows, given = int8.outputs(seen(served), sounds, kind)
        codes = logits_of(head, weights, rows.astype(np.int64))
        if runtime().package == "ai-edge-litert" and kind != "BUILTIN_WITHOUT_DEFAULT_DELEGATES":
            assert codes.tolist() == given.tolist()
        assert np.abs(codes - given).max() <= 1 and (only or (codes != given).mean() <= 0.02)  # kernels that round twice
        if before:
            assert int8.outputs(seen(before), sounds, kind)[-2].tobytes() == rows.tobytes()


def test_what_is_no_sample_of_a_head_is_refused_before_anything_moves() -> None:
    model = Int8Model(SOFTMAX)
    x, y = np.zeros((32, 8)), np.eye(4, dtype=np.float32)[np.arange(32) % 4]
    for bad in (0.5, 128, -129, np.nan, np.inf):
        with pytest.raises(ModelError, match="int8 codes"):
            model.train(np.full((32, 8), bad), y, 0.1)
    for shape in ((31, 8), (32, 9), (8,)):
        with pytest.raises(ShapeMismatch):
            model.train(np.zeros(shape), y, 0.1)
    with pytest.raises(ShapeMismatch):
        model.train(x, y[:, :3], 0.1)
    with pytest.raises(ModelError, match="one class a sample"):
        model.train(x, np.full((32, 4), 0.25, np.float32), 0.1)
    with pytest.raises(ShapeMismatch, match=KERNEL):
        model.set_weights({**read_weights(SOFTMAX), KERNEL: np.zeros((4, 8), np.int8)})
    with pytest.raises(NotTrainable, match="train_head"):
        model.use("train_head")
    with pytest.raises(NotTrainable, match="needs a runtime"):
        Int8Model(boards.TINY)
    assert not trains(boards.TINY)
    assert {n: a.tobytes() for n, a in model.get_weights().items()} == {n: a.tobytes() for n, a in read_weights(SOFTMAX).items()}


def test_a_rate_that_is_far_too_high_ends_as_training_that_diverged() -> None:
    head, weights = head_of(LOGISTIC), read_weights(LOGISTIC)
    weights[KERNEL][:] = 127
    for scale in (KERNEL_SCALE, BIAS_SCALE):  # the coarsest scale that the runtimes take: eight times it is too much
        weights[scale] = weights[scale] * np.float32(200 * head.output_scale / (head.feature_scale * head.kernel_scales[0]))
    model = Int8Model(write_weights(LOGISTIC, weights))
    samples = samples_for(LOGISTIC)
    model.train(samples.x[:32], samples.y[:32], 0.1)
    with pytest.raises(TrainingDiverged, match="no int8 holds"):
        model.get_weights()


def test_rounds_on_a_device_are_rebuilt_by_the_centre(tmp_path: Path) -> None:
    base = read_weights(SOFTMAX)
    centre = boards.centre(FakeClock(), file=SOFTMAX)
    boards.make(tmp_path, {"tiny": SOFTMAX}, train__epochs="8", train__margin="0.02", train__learning_rate="0.05")
    with boards.rig(tmp_path, centre) as rig:
        rig.agent.open_model = opener(rig.device, eager=True)  # without any runtime
        assert rig.lineage.head().runtime == ISSUE
        for round_ in range(3):
            samples = samples_for(SOFTMAX, 80, round_)
            rig.device.spool.extend("tiny", samples.x, samples.y.argmax(1))
            rig.run(Goal(rounds=round_ + 1))
        assert [r.accepted for r in rig.agent.reports] == [True] * 3
        assert rig.states() == {1: "verified", 2: "verified", 3: "verified"}
        last = rig.agent.reports[-1].outcome.after
        assert last is not None and last.accuracy is not None and last.accuracy >= 0.9
        served = rig.lineage.store.served.read_bytes()
        assert len(served) == len(SOFTMAX) and (read_weights(served)[BIAS] != base[BIAS]).any()


def test_a_device_that_adopts_nothing_trains_an_int8_head_too(tmp_path: Path) -> None:
    path, given = tmp_path / reading.FILE, {**boards.SETTINGS, "train.epochs": "8"}
    text = template.render(given, ["tiny"])
    loaded = reading.build(reading.parse(text), where="test", path=path, environment={}, flags={})
    create_folder(tmp_path, loaded, text, models={"tiny": SOFTMAX}, seed=boards.DEVICE_SEED, fleet=keys.FLEET, exact=True)
    with open_folder(reading.load(path, environment={}, flags={}), alone=True) as opened:
        samples = samples_for(SOFTMAX, 80)
        opened.spool.extend("tiny", samples.x, samples.y.argmax(1))
        standing = boards.standing(opened, opener(opened, eager=False))
        steps = rounds.run(standing, trial_of(standing))
        with pytest.raises(StopIteration) as done:
            while True:
                next(steps)
        assert done.value.value.accepted and done.value.value.kind == "exact"


def test_the_spool_takes_int8_codes_with_a_class_and_nothing_else(tmp_path: Path) -> None:
    boards.make(tmp_path, {"tiny": SOFTMAX})
    with boards.rig(tmp_path, boards.centre(FakeClock(), file=SOFTMAX)) as rig:
        spool = rig.device.spool
        for bad in ([0.25] * 8, [128] * 8, [-129] * 8):
            with pytest.raises(ModelError, match="int8 codes"):
                spool.append("tiny", bad, 1)
        with pytest.raises(ModelError, match="a sample has a label"):
            spool.append("tiny", [0] * 8, target=[1, 0, 0, 0])
        assert spool.count("tiny") == 0
        spool.append("tiny", np.full(8, -128, np.int8), 3)
        assert spool.count("tiny") == 1 and spool.shape("tiny").codes


def test_batches_are_whole_ones() -> None:
    model = Int8Model(SOFTMAX)
    assert model.batch == 32 and trainer.steps_of(100, model.batch, 5) == 15
