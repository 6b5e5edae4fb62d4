"""Finds where the batch stands in every tensor of a stock graph of one sample, and computes the graph for a batch of many.

Most operators take a batch as they are: the runtime finds the shapes itself. What holds the shape of one sample as a constant is
written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import ModelError
from modelwire.tflite.flatbuffer import U8, U32, Table

from .shapes import IN_FRONT, PASSES, POINTWISE, computed_weights, moves, product_axis, reshaped, shared_axes
from .stock import Op, Stock, StockTensor
from .writing import flat, ops, strides
from .writing.build import GraphBuilder, Made, tensor_table
from .writing.flat import OldNode, TableNode

_RESHAPES = (ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS)
_POINTWISE = frozenset((
    ops.ADD, ops.SUB, ops.MUL, ops.DIV, ops.MAXIMUM, ops.MINIMUM, ops.SQUARED_DIFFERENCE, ops.SELECT, ops.SELECT_V2, ops.PRELU,
    ops.LOGISTIC, ops.RELU, ops.RELU6, ops.RELU_N1_TO_1, ops.TANH, ops.EXP, ops.LOG, ops.NEG, ops.ABS, ops.SQRT, ops.RSQRT, ops.SQUARE,
    ops.HARD_SWISH, ops.LEAKY_RELU, ops.CAST, ops.GREATER, ops.GREATER_EQUAL, ops.LESS, ops.EQUAL, ops.LOGICAL_AND, ops.ZEROS_LIKE,
    ops.QUANTIZE, ops.DEQUANTIZE, ops.PAD, ops.PADV2, ops.MIRROR_PAD, ops.TILE, ops.BROADCAST_TO,
)) | POINTWISE  # fmt: skip
_WIDTHS = frozenset((ops.PAD, ops.PADV2, ops.MIRROR_PAD, ops.TILE, ops.BROADCAST_TO))  # their other inputs are numbers of entries
_MAPS = frozenset((ops.CONV_2D, ops.DEPTHWISE_CONV_2D, ops.MAX_POOL_2D, ops.AVERAGE_POOL_2D, ops.L2_POOL_2D))
_FREE_AXES = {ops.FULLY_CONNECTED: 1, ops.SOFTMAX: 1, ops.LOG_SOFTMAX: 1, ops.BATCH_MATMUL: 2}  # the last ones, which they work along
_REDUCES = (ops.MEAN, ops.SUM, ops.REDUCE_MAX, ops.REDUCE_MIN, ops.REDUCE_PROD)


@dataclass(frozen=True, slots=True)
class Batched:
    """The shapes at a batch: by tensor, and on which axis the batch stands (None: in none)."""

    shapes: tuple[tuple[int, ...], ...]
    axes: tuple[int | None, ...]
    singly: frozenset[int] = frozenset()  # operators, by index, that run once for each sample; what they give is laid side by side


class CannotBatch(Exception):
    """An operator that mixes the samples of a batch, or can't be seen not to; caught where a front is chosen, never shown as it is."""

    def __init__(self, op: Op, why: str) -> None:
        super().__init__(why)
        self.op, self.why = op, why


def single(stock: Stock) -> Batched:
    """Return the shapes of one sample, as the file has them: nothing needs to be known of its operators."""
    return Batched(tuple(t.shape for t in stock.tensors), (None,) * len(stock.tensors))


def batched(stock: Stock, batch: int, *, wanted: frozenset[int], stacked: frozenset[int] = frozenset()) -> Batched:
    """Return the shape of every tensor for `batch` samples. wanted: the operators that will be computed, by index.

    stacked: tensors that lie side by side along their first axis, as the inputs do, whatever gives them.
    Raises CannotBatch where an operator mixes the samples of a batch, or can't be seen not to.
    """
    axes: list[int | None] = [None] * len(stock.tensors)
    inner: set[int] = set()  # tensors whose samples stand in blocks: SPACE_TO_BATCH_ND lays one place of all samples before the next
    for t in (*stock.inputs, *stacked):
        axes[t] = 0
    for op in stock.operators:
        if op.index not in wanted:
            continue
        takes = [t for t in op.inputs if t >= 0 and axes[t] is not None]
        if all(out in stock.known for out in op.outputs):
            continue
        if op.code == ops.FULLY_CONNECTED and axes[op.inputs[0]] is not None and axes[op.inputs[1]] is None:
            takes = takes[:1]
        if not takes:
            continue
        for out in op.outputs:
            try:
                place = axes[out] = _axis(stock, op, takes, axes, out, inner)
            except ModelError as e:  # sizes or axes that are computed
                raise CannotBatch(op, f"takes {e.facts.get('model', 'something')!r} that is computed") from None
            if (op.code == ops.SPACE_TO_BATCH_ND or inner.intersection(takes)) and stock.tensors[out].shape[place] != 1:
                inner.add(out)
    shapes = []
    for tensor, axis in zip(stock.tensors, axes, strict=True):
        scaled = tuple(n * batch if i == axis else n for i, n in enumerate(tensor.shape))
        shapes.append((batch, *tensor.shape) if axis == IN_FRONT and batch > 1 else scaled)
    return Batched(tuple(shapes), tuple(axes))


def _axis(stock: Stock, op: Op, takes: list[int], axes: list[int | None], out: int, inner: set[int]) -> int:
    shape, to = stock.tensors[takes[0]].shape, stock.tensors[out].shape
    axis = axes[takes[0]]
    assert axis is not None

    def refuse(why: str) -> CannotBatch:
        return CannotBatch(op, why)

    if op.code in (ops.SPACE_TO_BATCH_ND, ops.BATCH_TO_SPACE_ND):
        if shape[axis] != 1 and takes[0] not in inner:
            raise refuse("does something to the batch that is not known")
        return _blocks(stock, op, shape, axis, to, refuse)
    if inner.intersection(takes):
        if not _keeps_blocks(stock, op, takes, axes, out):
            raise refuse("lays the samples of a batch across each other, between a SPACE_TO_BATCH_ND and its BATCH_TO_SPACE_ND")
        if op.code in _RESHAPES:
            return axis
    if op.code in PASSES:
        return PASSES[op.code](stock, op, axes, refuse)
    if computed_weights(stock, op, axes):
        return product_axis(op, axes, refuse)
    if relays(stock, op):
        moved_to = reshaped(shape, axis, to)
        if moved_to is None and shape == (1, *to) and all(_broadcasts(stock, user, out) for user in stock.users.get(out, ())):
            return IN_FRONT
        if moved_to is None:
            raise refuse("lays the samples of a batch across each other")
        return moved_to
    if op.code == ops.TRANSPOSE:
        return [int(i) for i in stock.value(op.inputs[1])].index(axis)
    if op.code in (*_REDUCES, ops.ARG_MAX, ops.ARG_MIN):
        gone = {int(i) % len(shape) for i in np.atleast_1d(stock.value(op.inputs[1]))}
        if axis in gone:
            raise refuse("reduces over the batch")
        return axis - (0 if len(to) == len(shape) else sum(i < axis for i in gone))
    if op.code == ops.PACK:
        along = op.option(1) % len(to)
        return axis + (along <= axis)
    if op.code == ops.UNPACK:
        along = op.option(1) % len(shape)
        if along == axis:
            raise refuse("takes the batch apart")
        return axis - (along < axis)
    if op.code in (ops.STRIDED_SLICE, ops.SLICE, ops.SPLIT, ops.SPLIT_V, ops.CONCATENATION):
        return _cut(stock, op, shape, axis, to, refuse)
    if op.code == ops.FULLY_CONNECTED and len(to) != len(shape):
        if axis:
            raise refuse("lays the samples of a batch across each other")
        return 0
    places = [i + len(to) - len(stock.tensors[t].shape) for t in takes if (i := axes[t]) is not None]
    place = places[0]
    if any(i != place for i in places) and op.code in _POINTWISE - _WIDTHS and not inner.intersection(takes):
        return _lifted_to(stock, takes, axes, to, refuse)
    if any(i != place for i in places) or place < 0 or to[place] != (1 if axis == IN_FRONT else shape[axis]):
        raise refuse("does something to the batch that is not known")
    # Convolutions, pools and whatever else there is look at the axes behind the first.
    last = len(to) - 1 - _FREE_AXES[op.code] if op.code in _FREE_AXES else 0 if len(to) == len(shape) else -1
    if op.code not in _POINTWISE and max(place, axis) > last:
        raise refuse("works along the axis of the batch")
    return place


def _lifted_to(stock: Stock, takes: list[int], axes: list[int | None], to: tuple[int, ...], refuse: Callable[[str], CannotBatch]) -> int:
    """Return where the batch stands where a tensor of fewer axes is broadcast over what stands behind another's batch.

    [1, 6, 4] stands beside [1, 5, 6, 4] as if it began with another 1; of a batch, that 1 belongs behind the samples.
    """
    found = []
    for t in takes:
        shape, axis = stock.tensors[t].shape, axes[t]
        if axis is None or axis == IN_FRONT or prod(shape[: axis + 1]) != 1:
            raise refuse("does something to the batch that is not known")
        found.append(axis + len(to) - len(shape))
    if to[min(found)] != 1:
        raise refuse("does something to the batch that is not known")
    return min(found)


def lifted(stock: Stock, op: Op, layout: Batched) -> dict[int, tuple[int, ...]]:
    """Return the inputs of an operator of single entries that need axes of 1 behind their batch, with the shapes that have them."""
    if op.code not in _POINTWISE - _WIDTHS or (place := layout.axes[op.outputs[0]]) is None or place == IN_FRONT:
        return {}
    rank, shapes = len(stock.tensors[op.outputs[0]].shape), {}
    for t in op.inputs:
        axis = layout.axes[t] if t >= 0 else None
        have = layout.shapes[t] if t >= 0 else ()
        if axis is None or axis == IN_FRONT or axis + rank - len(have) <= place:
            continue
        shapes[t] = (*(1,) * place, have[axis], *(1,) * (axis + rank - len(have) - place), *have[axis + 1 :])
    return shapes


def _blocks(stock: Stock, op: Op, shape: tuple[int, ...], axis: int, to: tuple[int, ...], refuse: Callable[[str], CannotBatch]) -> int:
    """Return where the batch stands when places become samples, or samples places again.

    The runtimes lay the blocks of a batch one behind the other, and in each the samples: a batch of many is as one of one.
    """
    block = prod(int(n) for n in np.atleast_1d(stock.value(op.inputs[1])))
    many, few = (to, shape) if op.code == ops.SPACE_TO_BATCH_ND else (shape, to)
    if axis != 0 or not to or many[0] != few[0] * block:
        raise refuse("does something to the batch that is not known")
    return 0


def _keeps_blocks(stock: Stock, op: Op, takes: list[int], axes: list[int | None], out: int) -> bool:
    """Return whether an operator leaves samples that stand in blocks where they are: it treats all that stands along their axis alike."""
    axis = axes[takes[0]]
    shape, to = stock.tensors[takes[0]].shape, stock.tensors[out].shape
    assert axis is not None
    if op.code in _RESHAPES:
        return prod(to[:axis]) == prod(shape[:axis]) and to[axis : axis + 1] == (shape[axis],)
    if op.code in _MAPS or op.code in (ops.TRANSPOSE, ops.SLICE, ops.STRIDED_SLICE, *_REDUCES):
        return True
    if op.code == ops.CONCATENATION or op.code in _POINTWISE:
        # A constant that has entries of its own for each block would not stand beside the same ones.
        given = [t for t in op.inputs[: 1 if op.code in _WIDTHS else None] if t >= 0]
        return all(_along(stock, t, axis - len(to)) == (shape[axis] if t in takes else 1) for t in given)
    return False


def _along(stock: Stock, tensor: int, axis: int) -> int:
    """Return the entries along an axis that is counted from the last."""
    shape = stock.tensors[tensor].shape
    return shape[axis] if -axis <= len(shape) else 1


def relays(stock: Stock, op: Op) -> bool:
    """Return whether an operator gives all entries as it takes them, in another shape: a slice that takes the only sample out does."""
    if op.code != ops.STRIDED_SLICE:
        return op.code in _RESHAPES
    x, to = stock.tensors[op.inputs[0]].shape, stock.tensors[op.outputs[0]].shape
    return len(to) < len(x) and prod(to) == prod(x) and int(stock.value(op.inputs[3]).min(initial=1)) > 0 and not op.option(3)


def _broadcasts(stock: Stock, user: Op, tensor: int) -> bool:
    """Return whether an operator adds an axis in front of the tensor by itself."""
    if user.code == ops.FULLY_CONNECTED:
        return tensor in user.inputs[2:]
    if user.code in _RESHAPES:
        return stock.tensors[user.outputs[0]].shape == (1, *stock.tensors[tensor].shape)
    return user.code in _POINTWISE and len(stock.tensors[user.outputs[0]].shape) == len(stock.tensors[tensor].shape) + 1


def _cut(stock: Stock, op: Op, shape: tuple[int, ...], axis: int, to: tuple[int, ...], refuse: Callable[[str], CannotBatch]) -> int:
    """Return where the batch goes in an operator that cuts along axes; it may not cut along the batch."""
    if op.code == ops.STRIDED_SLICE:
        what = taken_by(stock, op)
        place = what.place[axis]
        if place is None or what.count[axis] != shape[axis]:
            raise refuse("cuts the batch")
        if what.shape != to:
            raise refuse("gives another shape than its numbers say")
        return place
    along = {
        ops.SPLIT: lambda: int(stock.value(op.inputs[0])), ops.SPLIT_V: lambda: int(stock.value(op.inputs[2])),
        ops.CONCATENATION: lambda: op.option(0),
    }.get(op.code)  # fmt: skip
    if along is None:
        if to[axis] != shape[axis]:
            raise refuse("cuts the batch")
    elif along() % len(shape) == axis:
        raise refuse("cuts or joins along the batch")
    return axis


def taken_by(stock: Stock, op: Op) -> strides.StridedSlice:
    """Return what a STRIDED_SLICE takes of one sample. Raises ValueError where it fits no tensor of its input's shape."""
    begin, end, stride = ([int(n) for n in np.atleast_1d(stock.value(t))] for t in op.inputs[1:4])
    masks = strides.Masks(*(op.option(n) for n in range(5)))
    return strides.taken(stock.tensors[op.inputs[0]].shape, begin, end, stride, masks, offset=bool(op.option(5, small=True)))


def forward(
    graph: GraphBuilder, stock: Stock, layout: Batched, variables: frozenset[int], wanted: frozenset[int],
    instead: Callable[[Op], bool] | None = None,
) -> None:
    """Append the stock operators in `wanted` to `graph`, whose first tensors are the stock's (see `stock_tensors`).

    variables: stock tensors that the graph has already, read from variables.
    What an operator gives that no sample changes is a constant of the graph where `stock_tensors` made it one: nothing computes it.
    instead: appends another form of an operator, and says whether it did.
    """
    for op in stock.operators:
        if op.index not in wanted or variables.intersection(op.outputs):
            continue  # a constant that was only widened or laid out anew into what is a variable now
        if op.outputs and graph.constant.issuperset(op.outputs):
            continue
        if instead is not None and instead(op):
            continue
        if lift := lifted(stock, op, layout):
            _again(graph, stock, op, [graph.laid(t, lift[t]) if t in lift else t for t in op.inputs])
            continue
        if not any(t >= 0 and layout.axes[t] is not None for t in op.inputs) or not _rewrite(graph, stock, op, layout):
            graph.operators.append(OldNode(op.byte))
            graph.made.append(Made(op.code, op.inputs, op.outputs))


def _again(graph: GraphBuilder, stock: Stock, op: Op, inputs: list[int]) -> None:
    """Append an operator with all that the file says of it, and other inputs."""
    table = Table(stock.graph.file, op.byte)
    fields: dict[int, flat.Number | flat.Node] = {
        0: flat.u32(table.integer(0, U32)), 1: flat.integers(inputs), 2: flat.integers(op.outputs),
    }  # fmt: skip
    if op.options is not None:
        fields |= {3: flat.u8(table.integer(3, U8)), 4: OldNode(op.options.at)}
    graph.operators.append(TableNode(fields))
    graph.made.append(Made(op.code, tuple(inputs), op.outputs))


def _rewrite(graph: GraphBuilder, stock: Stock, op: Op, layout: Batched) -> bool:
    """Append an operator that holds the shape of one sample, made for the batch. Returns False for one that does not."""
    out, inputs = op.outputs[0], op.inputs
    shape, axis = layout.shapes[out], layout.axes[out]
    code, options = op.code, _plain_options(op)
    if axis is None or stock.tensors[out].shape == shape:
        return False
    if relays(stock, op):
        before = layout.axes[inputs[0]]
        order = None if before is None else moves(stock.tensors[inputs[0]].shape, before, stock.tensors[out].shape, axis)
        if order is not None:
            graph.add_op(ops.TRANSPOSE, (inputs[0], graph.constant_of(order)), [out])
        else:
            graph.add_op(ops.RESHAPE, (inputs[0], graph.constant_of(shape)), [out], {0: flat.integers(shape)})
    elif computed_weights(stock, op, layout.axes):
        _product(graph, stock, op, layout)
    elif code == ops.FULLY_CONNECTED and len(inputs) > 2 and inputs[2] >= 0 and layout.axes[inputs[2]] is not None:
        # Converters fold an addition into the bias, even one of what the sample itself gives: it is an addition again.
        rows, gives = prod(shape) // shape[-1], shape[-1]
        product = graph.matmul(graph.reshape(inputs[0], (rows, prod(graph.shape(inputs[0])) // rows)), inputs[1], adjoint_b=True)
        total = graph.op(ops.ADD, (product, graph.reshape(inputs[2], (rows, gives))), (rows, gives), {0: flat.i8(op.fused)})
        graph.add_op(ops.RESHAPE, (total, graph.constant_of(shape)), [out], {0: flat.integers(shape)})
    elif code == ops.SLICE:
        size = [shape[i] if i == axis else int(n) for i, n in enumerate(stock.value(op.inputs[2]))]
        graph.add_op(code, (inputs[0], inputs[1], graph.constant_of(size)), [out])
    elif code == ops.STRIDED_SLICE:
        whole = layout.axes[op.inputs[0]]
        assert whole is not None
        strides.cut(graph, inputs[0], taken_by(stock, op).whole(whole, shape[axis]), out)
    elif code == ops.TRANSPOSE_CONV:
        # Its sizes may come from operators that read a shape; the file says what they are.
        graph.add_op(code, (graph.constant_of(shape), *inputs[1:]), [out], options)
    elif code == ops.BROADCAST_TO:
        graph.add_op(code, (inputs[0], graph.constant_of(shape)), [out])
    elif code == ops.GATHER or code == ops.REVERSE_SEQUENCE:
        return _own_each(graph, stock, op, layout)
    elif code in (ops.CONCATENATION, ops.PACK) and any(layout.axes[t] is None for t in op.inputs):
        parts = []
        for t in inputs:
            like = list(layout.shapes[t])
            if layout.axes[t] is None:
                place = axis - (op.option(1) % len(shape) < axis) if code == ops.PACK else axis
                like[place] = shape[axis]
            parts.append(graph.broadcast(t, like))
        graph.add_op(code, parts, [out], options)
    else:
        return False
    return True


def _product(graph: GraphBuilder, stock: Stock, op: Op, layout: Batched) -> None:
    """Append a FULLY_CONNECTED whose weights are each sample's own: a product for each sample."""
    x, w = op.inputs[:2]
    gives, takes = stock.tensors[w].shape
    many = layout.shapes[w][0] // gives
    rows = stock.tensors[x].size // takes
    shape = layout.shapes[op.outputs[0]]
    value = graph.matmul(graph.reshape(x, (many, rows, takes)), graph.reshape(w, (many, gives, takes)), adjoint_b=True)
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        value = graph.add(value, op.inputs[2])
    value = graph.activation(value, op.fused)
    graph.add_op(ops.RESHAPE, (value, graph.constant_of(shape)), [op.outputs[0]], {0: flat.integers(shape)})


def _own_each(graph: GraphBuilder, stock: Stock, op: Op, layout: Batched) -> bool:
    """Append a look-up or reversal that has one row of indices for each sample, where one sample's row was a constant."""
    (a, b), (of, by) = op.inputs[:2], (layout.axes[op.inputs[0]], layout.axes[op.inputs[1]])
    if op.code == ops.REVERSE_SEQUENCE:
        assert of is not None
        if by is not None or of != op.option(1):
            return False
        lengths = graph.broadcast(b, (layout.shapes[a][of],))
        graph.add_op(op.code, (a, lengths), op.outputs, {0: flat.i32(op.option(0)), 1: flat.i32(op.option(1))})
        return True
    shared = shared_axes(stock, op)
    place = by if of is None else of
    if place is None or place >= shared or (of is not None and by is not None):
        return False

    def spread(t: int) -> int:
        like = list(layout.shapes[t])
        like[place] = layout.shapes[a if of is not None else b][place]
        return graph.broadcast(t, like)

    sides = (a, spread(b)) if by is None else (spread(a), b)
    graph.add_op(op.code, sides, op.outputs, {0: flat.i32(op.option(0)), 1: flat.i32(op.option(1))})
    return True


def _plain_options(op: Op) -> dict[int, flat.Number | flat.Node]:
    """Return the options of the few operators that are written anew, none of them with a vector in it."""
    small = {ops.TRANSPOSE_CONV: (0, 3), ops.CONCATENATION: (1,)}.get(op.code, ())
    if op.options is None:
        return {}
    count = {ops.TRANSPOSE_CONV: 4, ops.CONCATENATION: 2, ops.PACK: 2}.get(op.code, 0)
    return {n: flat.i8(op.option(n, small=True)) if n in small else flat.i32(op.option(n)) for n in range(count)}


def stock_tensors(
    graph: GraphBuilder, stock: Stock, layout: Batched, variables: frozenset[int], known: Mapping[int, NDArray[Any]] | None = None
) -> None:
    """Give a fresh graph the stock's tensors under their indices, in their shapes for the batch; variables lose their constants.

    known: the values of tensors that become constants, whatever operator gives them in the stock file.
    """
    for t, (tensor, shape) in enumerate(zip(stock.tensors, layout.shapes, strict=True)):
        fixed = known is not None and t in known and t not in variables and layout.axes[t] is None
        same = shape == tensor.shape and not tensor.reshaped and t not in variables and not fixed
        buffer = 0
        if fixed and known is not None:
            buffer = graph.file.buffer(known[t].tobytes())
        elif t not in variables and stock.is_constant(t):
            buffer = tensor.buffer
        graph.tensors.append(OldNode(tensor.byte) if same else stock_table(tensor, shape, buffer))
        graph.shapes.append(shape)
        graph.types.append(tensor.type)
        if (stock.is_constant(t) and t not in variables) or fixed:
            graph.constant.add(t)


def stock_table(tensor: StockTensor, shape: tuple[int, ...], buffer: int) -> TableNode:
    """Return a stock tensor in another shape: of the same type, with the scales that it has."""
    table = tensor_table(shape, tensor.type, tensor.name, buffer)
    return TableNode({**table.fields, 4: OldNode(tensor.quantization)}) if tensor.quantization >= 0 else table
