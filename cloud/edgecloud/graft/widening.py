"""Gives a classifier one more class for each new name: a row of its head's kernel and an entry of its bias, still a stock file.

A new class starts as the mean of the others: its logit is the mean of theirs, so it never wins before it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import BadArgument

from .stock import Op, Stock
from .writing import copying, flat, ops
from .writing.build import tensor_table
from .writing.flat import Node, OldNode, TableNode

_BEHIND = (ops.SOFTMAX, ops.LOGISTIC, ops.RESHAPE, ops.SQUEEZE)
_FIX = "name an output that a dense layer or a 1x1 convolution gives, alone or through a softmax or logistic, with --target"


def widen(stock: Stock, output: int, names: Sequence[str]) -> bytes:
    """Return the stock file with a class more for each name, behind those that it has.

    Raises BadArgument where the output does not come from a layer that gives one number a class.
    """
    if len(set(names)) != len(names) or not all(names):
        raise BadArgument(reason="the names of new classes are empty or repeat themselves", fix="--add-class NAME for each new class")
    output_head, behind = _output_head(stock, output)
    classes, more = stock.tensors[output_head.inputs[1]].shape[0], len(names)
    buffers: list[Node] = []
    tensors: list[Node] = [OldNode(t.byte) for t in stock.tensors]
    dropped: set[int] = set()

    def constant(tensor: int, value: NDArray[np.float32] | NDArray[np.int32], kind: int) -> None:
        buffers.append(TableNode({0: flat.data(value.tobytes())}))
        tensors[tensor] = tensor_table(value.shape, kind, stock.tensors[tensor].name, len(stock.buffers) + len(buffers) - 1)
        if tensor in stock.source:
            dropped.add(stock.source[tensor].index)  # float16 that was widened before its use

    for place in (1, 2):
        if place < len(output_head.inputs) and output_head.inputs[place] >= 0:
            value = stock.value(output_head.inputs[place]).astype("<f4")
            new = np.repeat(value.mean(0, keepdims=True, dtype=np.float64).astype("<f4"), more, 0)
            constant(output_head.inputs[place], np.concatenate([value, new]), ops.FLOAT32)
    for op in (output_head, *behind):
        tensor = stock.tensors[op.outputs[0]]
        tensors[op.outputs[0]] = tensor_table((*tensor.shape[:-1], classes + more), tensor.type, tensor.name, 0)
        if op.code == ops.RESHAPE and len(op.inputs) > 1 and stock.is_constant(op.inputs[1]):
            constant(op.inputs[1], np.array((*tensor.shape[:-1], classes + more), "<i4"), ops.INT32)
    operators: list[Node] = [OldNode(op.byte) for op in stock.operators if op.index not in dropped]
    return copying.with_main_graph(stock, tensors, operators, buffers)


def _output_head(stock: Stock, output: int) -> tuple[Op, list[Op]]:
    """Return the layer that gives the classes, and what stands between it and the output."""
    behind: list[Op] = []
    tensor = output
    while (op := stock.source.get(tensor)) is not None and op.code in _BEHIND:
        behind.append(op)
        tensor = op.inputs[0]
    if op is None or op.code not in (ops.FULLY_CONNECTED, ops.CONV_2D):
        given = "the input itself" if op is None else f"{op.name} (operator {op.index})"
        raise BadArgument(reason=f"no class can be added to an output that comes from {given}", fix=_FIX)
    kernel = stock.tensors[op.inputs[1]]
    weights = [t for t in op.inputs[1:] if t >= 0]
    plain = all(stock.holds(t) and stock.tensors[t].type == ops.FLOAT32 for t in weights)
    alone = all(len(stock.users[t]) == 1 for t in (*weights, *(b.inputs[0] for b in behind)))
    last = all(stock.tensors[t].shape[-1:] == kernel.shape[:1] for t in (op.outputs[0], *(b.outputs[0] for b in behind)))
    if not plain or not alone or not last or kernel.shape[1:-1] not in ((), (1, 1)):
        raise BadArgument(reason=f"{op.name} (operator {op.index}) is no layer of its own that gives one number a class", fix=_FIX)
    return op, behind
