"""What no gradient leads back to: vectors are left as they are, kernels are refused with the operator and the deepest cut that works."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.layers import layers
from edgecloud.graft.stock import read
from edgecloud.graft.writing import ops
from modelwire.errors import NotTrainable
from tests.stock import ROOT, runtime

from .hostile_graphs import Graph, written

CODES = (ops.FULLY_CONNECTED, ops.MUL, ops.FLOOR, ops.ADD)
FULLY_CONNECTED, MUL, FLOOR, ADD = range(4)


def _floats(seed: int, *shape: int) -> bytes:
    values = np.random.default_rng(seed).standard_normal(shape).ravel()
    return struct.pack(f"<{values.size}f", *values)


def floored(*, kernel: bool) -> bytes:
    """Return dense(first(x) + floor(v * x)); kernel: of dense(first(x) + floor(second(x)))."""
    graph = Graph()
    x, first, scale = graph.tensor((1, 4)), graph.tensor((4, 4), buffer=1), graph.tensor((4, 4) if kernel else (4,), buffer=2)
    last = graph.tensor((3, 4), buffer=3)
    a, b, c, d, y = (graph.tensor((1, 3 if i == 4 else 4)) for i in range(5))
    graph.op(FULLY_CONNECTED, (x, first, -1), (a,))
    graph.op(FULLY_CONNECTED if kernel else MUL, (x, scale, -1) if kernel else (x, scale), (b,))
    graph.op(FLOOR, (b,), (c,))
    graph.op(ADD, (a, c), (d,))
    graph.op(FULLY_CONNECTED, (d, last, -1), (y,))
    graph.inputs, graph.outputs = (x,), (y,)
    return written([graph], CODES, [_floats(1, 4, 4), _floats(2, 4, 4 if kernel else 1), _floats(3, 3, 4)])


def test_a_vector_that_no_gradient_reaches_is_no_layer_and_the_others_train() -> None:
    data = floored(kernel=False)
    made = graft(data, Wish(train=("all",), batch=4, loss="mse"))
    model = runtime().open(made.file, delegates=False)
    assert [layer.kind for layer in made.layers] == ["FULLY_CONNECTED", "FULLY_CONNECTED"]
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((4, 4)).astype(np.float32), rng.standard_normal((4, 3)).astype(np.float32)
    losses = [model.train(x, y, 1e-2) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_kernel_that_no_gradient_reaches_is_refused_with_the_deepest_cut_that_works() -> None:
    with pytest.raises(NotTrainable) as refused:
        graft(floored(kernel=True), Wish(train=("all",), batch=4, loss="mse"))
    said = str(refused.value)
    assert "FULLY_CONNECTED (operator 1, giving" in said
    assert "from which nothing that has a gradient leads to the loss" in said
    assert "the deepest cut that works is --train last:1" in said


def test_the_window_of_a_fourier_transform_is_no_layer() -> None:
    stock = read((ROOT / "tests" / "models" / "open" / "stft.tflite").read_bytes())
    transform = next(op.index for op in stock.operators if op.name == "RFFT2D")
    assert all(layer.operator > transform for layer in layers(stock, stock.outputs[0]))
