"""Fronts that take one sample at a time, and weights other than plain float32, in the installed runtime: the same bits, true gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.stock import read
from edgecloud.graft.writing import ops
from edgecommon.runtime import interpreter_for
from modelwire.errors import NotTrainable
from modelwire.tensors import F32
from tests.stock import ROOT, runtime

FOLDER = ROOT / "tests" / "models" / "fronts"
FRONTS = ("branch", "cell", "late", "loop", "lstm", "mask", "spectrum", "stream")
WEIGHTS = ("dynamic_range", "sparse", "sparse_half", "sparse_int8")


def file_of(name: str) -> bytes:
    return (FOLDER / f"{name}.tflite").read_bytes()


def opened(file: bytes, *, delegates: bool = False) -> Any:
    return interpreter_for(runtime().interpreter, file, delegates=delegates)


def answer(interpreter: Any, x: F32) -> F32:
    """Return the first output of the first subgraph, as a program that knows no signatures gets it."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def inputs(file: bytes, count: int, seed: int = 0) -> F32:
    shape = read(file).tensors[read(file).inputs[0]].shape
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", FRONTS)
def test_a_sample_is_answered_as_by_the_stock_file_just_opened_whatever_came_before_it(name: str) -> None:
    file = file_of(name)
    made = graft(file, Wish(batch=3, model=name))
    infer = opened(made.file).get_signature_runner("infer")
    for x in inputs(file, 4):
        assert infer(x=x)["output"].tobytes() == answer(opened(file), x).tobytes()


@pytest.mark.parametrize("name", ["cell", "stream"])
def test_the_first_subgraph_goes_on_where_the_last_call_left_off(name: str) -> None:
    file = file_of(name)
    made = graft(file, Wish(batch=3, model=name))
    assert made.signatures[0] == "stream"
    stock, first, signed = opened(file), opened(made.file), opened(made.file).get_signature_runner("stream")
    answers = []
    for x in inputs(file, 4)[[0, 1, 1, 1]]:
        answers.append(answer(stock, x).tobytes())
        assert answers[-1] == answer(first, x).tobytes() == signed(x=x)["output"].tobytes()
    assert len(set(answers[1:])) > 1, "the state counts"


@pytest.mark.parametrize("name", [*FRONTS, "endless"])
@pytest.mark.parametrize("delegates", [True, False])
def test_a_step_moves_the_head_by_the_gradient_on_the_features_of_each_sample(name: str, delegates: bool) -> None:
    file = file_of(name)
    made = graft(file, Wish(batch=5, model=name))
    model = runtime().open(made.file, delegates=delegates)
    assert not model.fallback
    x = inputs(file, 5)[:, 0]
    seen = opened(made.file, delegates=delegates).get_signature_runner("features")
    features = np.concatenate([seen(x=one[None])["features"].reshape(1, -1) for one in x]).astype(np.float64)
    assert len({row.tobytes() for row in features}) == 5
    y = np.eye(model.classes)[np.arange(5) % model.classes]
    before = model.get_weights()
    assert made.output_head is not None
    ((matrix, bias),) = made.output_head.layers
    z = features @ before[matrix].astype(np.float64).T + before[bias]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    assert model.train(x, y, 0.5) == pytest.approx(-np.log((p * y).sum(1)).mean(), rel=1e-4)
    after = model.get_weights()
    for weight, gradient in ((matrix, (p - y).T @ features / 5), (bias, (p - y).mean(0))):
        moved = (before[weight].astype(np.float64) - after[weight]) / 0.5
        np.testing.assert_allclose(moved, gradient, atol=1e-5 * max(0.1, np.abs(gradient).max()))
    one_by_one = np.stack([model.infer(one) for one in x])
    np.testing.assert_allclose(model.evaluate(x), one_by_one, atol=1e-6)


def test_nothing_is_trained_in_front_of_a_branch() -> None:
    with pytest.raises(NotTrainable, match=r"IF \(operator 3, giving 'cond'\).*the deepest cut that works is --train last:1"):
        graft(file_of("late"), Wish(train=("all",), model="late"))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("cut", ["head", "last:2", "all"])
def test_weights_of_any_kind_train_as_the_float32_that_they_stand_for(name: str, cut: str) -> None:
    """`infer` has the bits of a file whose trained layers take float32, which is the stock file itself unless those layers took codes."""
    file = file_of(name)
    made = graft(file, Wish(train=(cut,), batch=4, model=name))
    infer = opened(made.file).get_signature_runner("infer")
    codes = name == "dynamic_range" or (name == "sparse_int8" and cut != "head")
    assert codes == (made.stock.data != file)
    for x in inputs(file, 3):
        got = infer(x=x)["output"]
        assert got.tobytes() == answer(opened(made.stock.data), x).tobytes()
        if codes:  # the kernels round the activations to 8 bits
            np.testing.assert_allclose(got, answer(opened(file), x), atol=0.02)
        else:
            assert got.tobytes() == answer(opened(file), x).tobytes()
    model = runtime().open(made.file, delegates=name != "sparse_int8")  # one runtime's delegate claims and then can't prepare that file
    x = np.concatenate(inputs(file, 4))
    y = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(model.evaluate(x), np.stack([model.infer(one) for one in x]), atol=1e-5)
    losses = [model.train(x, y, 0.05) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_a_weight_stands_for_is_what_the_runtime_makes_of_it(name: str) -> None:
    file = file_of(name)
    stock, module = read(file), runtime().interpreter
    kind = module.OpResolverType.BUILTIN_REF
    interpreter = module.Interpreter(model_content=file, experimental_op_resolver_type=kind, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(stock.inputs[0], inputs(file, 1)[0])
    interpreter.invoke()
    widened = [op.outputs[0] for op in stock.operators if op.code in (ops.DEQUANTIZE, ops.DENSIFY)]
    assert bool(widened) == (name != "dynamic_range")
    for t in widened:
        assert stock.holds(t)
        there: NDArray[Any] = interpreter.get_tensor(t)
        assert stock.value(t).dtype == there.dtype and stock.value(t).tobytes() == there.tobytes()
