"""Other forms of a trained layer's forward pass for train and eval: matrix products, which the delegates take with weights that change.

They give other last bits than the operator itself, so `infer` keeps that one.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from .stock import Op
from .windows import by_channel, gathered, of_conv
from .writing import flat, ops
from .writing.build import GraphBuilder


def instead_of(graph: GraphBuilder, variables: frozenset[int]) -> Callable[[Op], bool]:
    """Return what appends a layer's other form, and says whether the layer has one."""

    def append(op: Op) -> bool:
        if op.code not in (ops.FULLY_CONNECTED, ops.CONV_2D) or op.inputs[1] not in variables:
            return False
        x, w = op.inputs[:2]
        bias = op.inputs[2] if len(op.inputs) > 2 else -1
        gives, takes = graph.shape(w)[0], prod(graph.shape(w)[1:])
        if bias >= 0 and prod(graph.shape(bias)) != gives:
            return False  # one that differs from sample to sample
        if op.code == ops.FULLY_CONNECTED:
            if op.option(1, small=True):
                return False
            seen, channels_first = graph.reshape(x, (prod(graph.shape(x)) // takes, takes)), False
        else:
            if graph.shape(x)[3] != graph.shape(w)[3]:
                return False  # in groups
            seen, channels_first = gathered(graph, x, of_conv(op, graph.shape(x), (graph.shape(w)[1], graph.shape(w)[2])))
        out = op.outputs[0]
        shape = graph.shape(out)
        rows = prod(shape) // gives
        kernel = by_channel(graph, w) if channels_first else graph.reshape(w, (gives, takes))
        value = graph.matmul(seen, kernel, adjoint_b=True)
        if bias >= 0:
            fused = {0: flat.i8(op.fused)} if op.fused else {}
            value = graph.op(ops.ADD, (value, graph.reshape(bias, (gives,))), (rows, gives), fused)
        else:
            value = graph.activation(value, op.fused)
        # Into the operator's own output, where the others look for it.
        graph.add_op(ops.RESHAPE, (value, graph.constant_of(shape)), [out], {0: flat.integers(shape)})
        return True

    return append
