"""Custom operators that are builtin ones by another name: written as those, they train, and infer keeps its bits."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edgecloud.graft.batch import single, stock_tensors
from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.inputs.builtin import TRANSPOSED, builtin
from edgecloud.graft.stock import Stock, read
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder
from edgecloud.graft.writing.flat import Node, OldNode, TableNode
from edgecommon.runtime import FAILURES, interpreter_for
from modelwire.errors import NotTrainable
from modelwire.tensors import F32
from tests.stock import runtime, stock_file

X_SHAPE = {"transposed": (1, 6, 8, 2), "transposed_more": (1, 4, 5, 3)}


def as_custom(data: bytes, change: Sequence[int] = ()) -> bytes:
    """Return the file with its transposed convolutions as MediaPipe writes them: custom, with the activation behind them.

    change: other options than those that it has.
    """
    stock = read(data)
    file = FileBuilder(stock)
    graph = GraphBuilder(file, "main")
    stock_tensors(graph, stock, single(stock), frozenset())
    graph.inputs, graph.outputs = list(stock.inputs), list(stock.outputs)
    file.codes.append(TableNode({0: flat.i8(ops.CUSTOM), 1: flat.text(TRANSPOSED), 3: flat.i32(ops.CUSTOM)}))
    code = len(file.codes) - 1
    for op in stock.operators:
        if op.code != ops.TRANSPOSE_CONV:
            graph.operators.append(OldNode(op.byte))
            continue
        raw = struct.pack(f"<{len(change) or 3}i", *(change or (op.option(0, small=True) + 1, op.option(1), op.option(2))))
        out = op.outputs[0] if op.option(3, small=True) == ops.NONE else graph.tensor(stock.tensors[op.outputs[0]].shape)
        takes = (op.inputs[2], op.inputs[1], op.inputs[3])
        fields: dict[int, Any] = {
            0: flat.u32(code), 1: flat.integers(takes), 2: flat.integers([out]), 5: flat.VectorNode(raw, len(raw)),
        }  # fmt: skip
        made: Node = TableNode(fields)
        graph.operators.append(made)
        if out != op.outputs[0]:
            graph.add_op(ops.RELU, (out,), op.outputs)
    return file.write({})


def answers(file: bytes, x: F32, *, delegates: bool) -> F32:
    interpreter = interpreter_for(runtime().interpreter, file, delegates=delegates)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    out: F32 = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return out


def builtins(stock: Stock) -> list[str]:
    return [op.name for op in stock.operators]


@pytest.mark.parametrize("name", X_SHAPE)
def test_a_transposed_convolution_of_mediapipe_trains_as_the_builtin_one(name: str) -> None:
    data = stock_file(name)
    custom = as_custom(data)
    assert TRANSPOSED in builtins(read(custom))
    made = graft(custom, Wish(train=("all",), batch=4))
    assert TRANSPOSED not in builtins(made.stock)
    model = runtime().open(made.file, delegates=False)
    plain = runtime().open(graft(data, Wish(train=("all",), batch=4)).file, delegates=False)
    assert sorted(v.shape for v in model.get_weights().values()) == sorted(v.shape for v in plain.get_weights().values())
    rng = np.random.default_rng(5)
    x = rng.standard_normal((4, *X_SHAPE[name][1:])).astype(np.float32)
    assert np.array_equal(model.infer(x[:1]), plain.infer(x[:1]))
    assert np.array_equal(model.infer(x[:1]), answers(data, x[:1], delegates=False))
    y = rng.random((4, *model.contract.y_shape)).astype(np.float32)
    losses = [model.train(x, y, 1e-3) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", X_SHAPE)
def test_the_builtin_form_has_the_bits_of_the_custom_one_where_a_delegate_runs_that(name: str) -> None:
    custom = as_custom(stock_file(name))
    x = np.random.default_rng(6).standard_normal(X_SHAPE[name]).astype(np.float32)
    try:
        seen = answers(custom, x, delegates=True)
    except FAILURES:
        pytest.skip("no delegate of this runtime has the custom operator")
    assert np.array_equal(seen, answers(builtin(read(custom), "m").data, x, delegates=True))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((1, 0, 2), "the padding 1 and strides of 0 and 2"), ((3, 2, 2), "the padding 3"), ((1, 2), "8 bytes of options"),
        ((2, -2, 2), "strides of -2"), ((1, 1, 1), "makes [1, 6, 8, 5] of [1, 3, 4, 6]"), ((2, 1 << 30, 2), "strides of 1073741824"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_together_are_refused_by_operator_and_tensor(change: tuple[int, ...], why: str) -> None:
    with pytest.raises(NotTrainable) as refused:
        graft(as_custom(stock_file("transposed"), change), Wish())
    assert why in str(refused.value)
    assert f"{TRANSPOSED} (operator 1, giving" in str(refused.value)
    assert "convert the model with TRANSPOSE_CONV" in str(refused.value)
