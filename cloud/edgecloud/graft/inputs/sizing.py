"""Gives a graph the size of one sample: of one that was converted for several at once, and of one whose sizes are open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from edgecloud.graft.batch import single, stock_tensors
from edgecloud.graft.shapes import Resolved, resolve
from edgecloud.graft.stock import Array, Op, Stock, StockTensor, read
from edgecloud.graft.writing import ops
from edgecloud.graft.writing.build import FileBuilder, GraphBuilder, tensor_table
from edgecloud.graft.writing.flat import OldNode
from modelwire import limits
from modelwire.errors import BadArgument, NotTrainable

_SIZE = "--input-size 224,224,3, say: the axes of one sample, without that of the samples"
# Operators that take a shape, and which input it is.
_SIZES = {ops.RESHAPE: 1, ops.TRANSPOSE_CONV: 0, ops.BROADCAST_TO: 1, ops.SLICE: 2}


def unbatched(stock: Stock, model: str) -> Stock:
    """Return the graph for one sample where every input is fixed at the same number of them, above 1; else the graph as it is.

    Where no output has as many rows the first axis is part of one sample: a spectrogram, say.
    Raises NotTrainable, with the operator, where a tensor does not hold the samples side by side.
    """
    shapes = [stock.tensors[t].shape for t in stock.inputs]
    n = shapes[0][0] if shapes and shapes[0] else 0
    if n < 2 or any(len(shape) < 2 or shape[0] != n for shape in shapes) or all(stock.tensors[t].shape[:1] != (n,) for t in stock.outputs):
        return stock
    sizes: dict[int, Array] = {}
    for op in stock.operators:
        if stock.moving.intersection(op.inputs) and (found := _without(stock, op, n)) is not None:
            t, value = found
            if t in sizes and not np.array_equal(sizes[t], value):
                raise _refusal(stock, op, n, model)
            sizes[t] = value
    one = resolve(stock, {t: (1, *stock.tensors[t].shape[1:]) for t in stock.inputs}, sizes)
    for op in stock.operators:
        for t in op.outputs:
            moved = t in stock.moving and t not in one.known
            shape, before = one.shapes[t], stock.tensors[t].shape
            if moved and (t in one.unknown or np.prod(shape, dtype=object) * n != np.prod(before, dtype=object)):
                raise _refusal(stock, op, n, model)
    return _written(_reshaped(stock, one), sizes, model)


def sized(stock: Stock, size: Sequence[int], model: str) -> Stock:
    """Return the graph with its only input of [1, *size]. Raises BadArgument where the file does not leave that open."""
    if not size:
        return stock
    shape = (1, *size)
    x = stock.tensors[stock.inputs[0]] if len(stock.inputs) == 1 else None
    if x is None or x.shape[:1] != (1,) or not _open_to(x, shape):
        takes = ", ".join(str([*stock.tensors[t].shape]) for t in stock.inputs)
        raise BadArgument(reason=f"a sample of {list(size)} is none of the sizes that the file leaves open: it takes {takes}", fix=_SIZE)
    if min(shape) < 1 or prod(shape) > limits.DEFAULT.elements:
        raise BadArgument(reason=f"a sample of {list(size)}", fix=_SIZE)
    found = resolve(stock, {stock.inputs[0]: shape})
    for op in stock.operators:
        if any(t in stock.moving and (t in found.unknown or 0 in found.shapes[t]) and t not in found.known for t in op.outputs):
            said = f"a sample of {list(size)}: of that, {op.name} (operator {op.index}) leaves nothing, or a size that only a run tells"
            raise BadArgument(reason=said, fix=_SIZE)
    return _written(_reshaped(stock, found), {}, model)


def _open_to(x: StockTensor, shape: Sequence[int]) -> bool:
    return len(x.shape) == len(shape) and all(i in x.open or n == to for i, (n, to) in enumerate(zip(x.shape, shape, strict=True)))


def _reshaped(stock: Stock, found: Resolved) -> Stock:
    pairs = zip(stock.tensors, found.shapes, strict=True)
    return replace(stock, tensors=tuple(replace(t, shape=s, reshaped=t.reshaped or s != t.shape) for t, s in pairs))


def _without(stock: Stock, op: Op, n: int) -> tuple[int, Array] | None:
    """Return the constant in which an operator has the number of samples, and what it is for one."""
    place = _SIZES.get(op.code, -1)
    if not 0 <= place < len(op.inputs) or not stock.is_constant(op.inputs[place]):
        return None
    value = np.array(stock.value(op.inputs[place]))
    same = [i for i, size in enumerate(value.tolist()) if size == n] if value.ndim == 1 else []
    if value.ndim != 1 or not value.size:
        return None
    if value[0] > 0 and value[0] % n == 0:
        value[0] //= n
    elif len(same) == 1:
        value[same[0]] = 1
    else:
        return None
    return op.inputs[place], value


def _refusal(stock: Stock, op: Op, n: int, model: str) -> NotTrainable:
    what = f"{op.name} (operator {op.index}, giving {stock.tensors[op.outputs[0]].name!r})"
    return NotTrainable(model=model, reason=f"it is fixed at {n} samples at once, and {what} can't be had for one; convert it for one")


def _written(stock: Stock, sizes: dict[int, Array], model: str) -> Stock:
    """Return the graph read from a file in which its tensors have the shapes of one sample."""
    file = FileBuilder(stock, model)
    graph = GraphBuilder(file, stock.graph.text(4) or "main")
    stock_tensors(graph, stock, single(stock), frozenset())
    for t, value in sizes.items():
        kind, name = stock.tensors[t].type, stock.tensors[t].name
        graph.tensors[t] = tensor_table(value.shape, kind, name, file.buffer(value.astype(value.dtype.newbyteorder("<")).tobytes()))
    graph.inputs, graph.outputs = list(stock.inputs), list(stock.outputs)
    graph.operators += [OldNode(op.byte) for op in stock.operators]
    file.graphs += [OldNode(byte) for byte in stock.subgraphs[1:]]
    return read(file.write({}), model)
