"""Scores of a shared pass and one product are those that an interpreter gives; what can't share is run whole; files are never trusted."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edgecloud.feasibility import products, scoring, tails
from edgecloud.probes import running
from modelwire.errors import ModelWireError
from modelwire.tflite import file as tflite_file
from tests.edgecloud.feasibility import backbones
from tests.stock import runtime
from tests.worlds import MODELS

DIGITS = (MODELS / "digits.tflite").read_bytes()
NAMES = frozenset(v.name for v in tflite_file.read_variables(DIGITS))
HEAD = frozenset({"output_kernel", "output_bias"})


@pytest.mark.parametrize("name", ["digits", "har"])
def test_heads_on_one_backbone_score_as_one_open_interpreter_does(name: str) -> None:
    of = backbones.backbone(name, 120)
    candidates = backbones.heads(of, 40, backbones.features_of(of))
    found = scoring.empty(len(candidates), of.y)
    scoring.Judge(of.base, of.x, of.y).judge(candidates, found)
    wanted = backbones.whole(of, backbones.opened(of), candidates)
    assert (found.shared, found.whole, found.failed) == (40, 0, {})
    assert found.right is not None and wanted.right is not None
    assert (found.right == wanted.right).all()
    assert 0.2 < found.right.mean() < 1  # rows of both kinds
    assert np.allclose(found.loss, wanted.loss, atol=1e-5)


def test_a_row_that_rounding_could_decide_is_run_whole() -> None:
    of = backbones.backbone("digits", 60)
    kernel = next(name for name, held in of.named.items() if held.ndim == 2)
    tied = of.named[kernel].copy()
    tied[1] = np.nextafter(tied[0], np.float32(np.inf))  # two classes whose scores are apart by last bits alone
    bias = {name: np.zeros_like(held) for name, held in of.named.items() if held.ndim == 1}
    y = np.arange(60) % 2
    candidates = [scoring.Contender(i, {kernel: tied * np.float32(1 + i), **bias}) for i in range(3)]
    found = scoring.empty(3, y)
    scoring.Judge(of.base, of.x, y).judge(candidates, found)
    wanted = backbones.whole(backbones.Backbone("tied", of.base, of.x, y), backbones.opened(of), candidates)
    assert found.right is not None and wanted.right is not None
    assert found.near > 0
    assert (found.right == wanted.right).all()


def test_scores_lie_within_the_bound_of_rounding() -> None:
    of = backbones.backbone("digits", 60)
    features = backbones.features_of(of)
    candidates = backbones.heads(of, 5, features)
    tail = tails.tail_of(of.base.file.data, frozenset(of.named))
    assert tail is not None
    made = products.outputs_of(tail, features, of.named, [one.differing for one in candidates])
    for one, scores, apart in zip(candidates, made.scores, made.apart, strict=True):
        w, b = ({**of.named, **one.differing}[name].astype(np.float64) for name in sorted(of.named, key=lambda n: -of.named[n].ndim))
        exact = w @ features.astype(np.float64).T + b[:, None]
        assert (np.abs(scores - exact) <= apart / 4).all()
        assert (apart < 1e-2).all()  # a bound that decides nothing would be none


@pytest.mark.parametrize(
    ("changed", "features", "layers"),
    [(NAMES, 64, 3), (HEAD, 128, 1), (frozenset({"output_bias"}), 10, 1), (HEAD | {"hidden2_kernel"}, 256, 2)],
)
def test_the_tail_begins_where_nothing_depends_on_what_changed(changed: frozenset[str], features: int, layers: int) -> None:
    tail = tails.tail_of(DIGITS, changed)
    assert tail is not None
    assert (tail.features, len(tail.layers)) == (features, layers)
    assert changed <= tail.names


def test_a_model_whose_changes_lie_in_front_of_other_layers_has_no_tail() -> None:
    motion = (MODELS / "motion.tflite").read_bytes()
    assert tails.tail_of(motion, frozenset({"conv1_bias"})) is None
    assert tails.tail_of(motion, frozenset({"hidden_kernel", "output_bias"})) is not None
    assert tails.tail_of((MODELS / "mixed.tflite").read_bytes(), frozenset({"output_bias"})) is None  # codes are added behind
    assert tails.tail_of(DIGITS, frozenset()) is None


def test_models_that_share_nothing_are_run_whole_and_so_is_the_base() -> None:
    base = backbones.loaded(DIGITS)
    x, y = np.random.default_rng(1).random((20, 64), np.float32), np.arange(20) % 10
    named = {v.name: w for v, w in zip(tflite_file.read_variables(DIGITS), tflite_file.read_weights(DIGITS).values(), strict=True)}
    other = {name: held * np.float32(1.1) for name, held in named.items()}
    candidates = [scoring.Contender(0, {}), scoring.Contender(1, other), scoring.Contender(2, named)]
    found = scoring.empty(3, y)
    scoring.Judge(base, x, y).judge(candidates, found)
    assert (found.shared, found.whole) == (0, 3)
    wanted = runtime().open(DIGITS, signature="").evaluate(x).argmax(1) == y
    assert found.right is not None and (found.right[0] == wanted).all()


def test_a_head_that_gives_no_numbers_is_told_by_its_rows() -> None:
    of = backbones.backbone("digits", 60)
    huge = {name: np.full_like(held, np.finfo(np.float32).max) for name, held in of.named.items()}
    sound = backbones.heads(of, 2, backbones.features_of(of))
    most = np.finfo(np.float32).max
    turned = np.where(np.arange(10) % 3, most, -most).astype(np.float32)  # finite outputs whose sum is not
    both = {name: turned if held.ndim == 1 else held for name, held in sound[0].differing.items()}
    found = scoring.empty(4, of.y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an operator's screen shows none
        scoring.Judge(of.base, of.x, of.y).judge([*sound, scoring.Contender(2, huge), scoring.Contender(3, both)], found)
    assert found.right is not None
    broken = np.isnan(found.loss).any(1)
    assert broken[:3].tolist() == [False, False, True]
    assert not found.right[2:][np.isnan(found.loss[2:])].any()


def test_a_cut_file_gives_what_the_model_has_inside() -> None:
    of = backbones.backbone("digits", 20)
    tail = tails.tail_of(of.base.file.data, frozenset(of.named))
    assert tail is not None
    cut = tails.cut_file(of.base.file.data, tail)
    assert cut is not None and len(cut) == len(of.base.file.data)
    model = running.Runnable("cut", backbones.loaded(cut).file, None, signature=tail.signature)
    (run,) = running.outputs([model], of.x, batches=True)
    assert run.output is not None
    assert np.allclose(run.output.reshape(20, -1), backbones.features_of(of), atol=1e-5)


def test_a_damaged_file_is_refused_by_name_or_has_no_tail() -> None:
    rng, file = np.random.default_rng(3), (MODELS / "tiny.tflite").read_bytes()
    for _ in range(300):
        bad = bytearray(file)
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        try:
            tail = tails.tail_of(bytes(bad), frozenset({"output_kernel"}))
            if tail is not None:
                tails.cut_file(bytes(bad), tail)
        except ModelWireError:
            continue


def test_labels_that_no_model_can_name_are_refused() -> None:
    with pytest.raises(ModelWireError, match="classes from 0 to 2"):
        scoring.judged(np.ones((2, 3), np.float32), np.array([0, 3]))


@pytest.mark.parametrize(("width", "value", "label", "right"), [(1, 0.7, 1, True), (1, 0.7, 0, False), (1, 0.2, 0, True)])
def test_one_logistic_output_is_a_class_above_a_half(width: int, value: float, label: int, right: bool) -> None:
    found, loss = scoring.judged(np.full((1, width), value, np.float32), np.array([label]))
    assert found is not None and bool(found[0]) is right
    assert loss[0] == pytest.approx(-np.log(value if label else 1 - value), rel=1e-5)


def test_targets_are_judged_by_their_squared_error() -> None:
    right, loss = scoring.judged(np.array([[1, 2], [0, 0]], np.float32), np.array([[1, 0], [0, 0]], np.float32))
    assert right is None
    assert loss.tolist() == [2, 0]

