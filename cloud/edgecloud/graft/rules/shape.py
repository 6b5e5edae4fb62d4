"""Gradients of what moves, joins, cuts, repeats and reduces entries."""

from __future__ import annotations

from math import prod

import numpy as np

from edgecloud.graft.shapes import moves
from edgecloud.graft.stock import Op
from edgecloud.graft.tape import Tape, rule
from edgecloud.graft.writing import ops
from edgecloud.graft.writing.build import GraphBuilder, Shape


@rule(ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS)
def reshape(tape: Tape, op: Op, dy: int) -> None:
    x, y = op.inputs[0], op.outputs[0]
    axis, moved_to = tape.layout.axes[x], tape.layout.axes[y]
    order = None
    if axis is not None and moved_to is not None:
        order = moves(tape.stock.tensors[x].shape, axis, tape.stock.tensors[y].shape, moved_to)
    if order is not None:
        dy = tape.graph.transpose(dy, [int(i) for i in np.argsort(order)])
    tape.give(op.inputs[0], tape.graph.reshape(dy, tape.shape(op.inputs[0])))


@rule(ops.TRANSPOSE)
def transpose(tape: Tape, op: Op, dy: int) -> None:
    order = tape.stock.value(op.inputs[1])
    tape.give(op.inputs[0], tape.graph.transpose(dy, [int(i) for i in np.argsort(order)]))


@rule(ops.PAD, ops.PADV2)
def pad(tape: Tape, op: Op, dy: int) -> None:
    before = [int(n) for n in tape.stock.value(op.inputs[1])[:, 0]]
    tape.give(op.inputs[0], tape.graph.slice(dy, before, tape.shape(op.inputs[0])))


@rule(ops.SLICE)
def slice_(tape: Tape, op: Op, dy: int) -> None:
    begin = [int(n) for n in tape.stock.value(op.inputs[1])]
    shape, size = tape.shape(op.inputs[0]), tape.shape(dy)
    tape.give(op.inputs[0], tape.graph.pad(dy, [(b, n - b - s) for b, n, s in zip(begin, shape, size, strict=True)]))


@rule(ops.CONCATENATION)
def concatenate(tape: Tape, op: Op, dy: int) -> None:
    axis, moved_to = op.option(0) % len(tape.shape(dy)), 0
    for t in op.inputs:
        # What was broadcast over the batch when it was joined takes its share of every sample.
        size = list(tape.shape(dy))
        size[axis] = tape.shape(t)[axis]
        begin = [moved_to if i == axis else 0 for i in range(len(size))]
        if tape.wants(t):
            tape.give(t, tape.graph.sum_to(tape.graph.slice(dy, begin, size), tape.shape(t)))
        moved_to += size[axis]


@rule(ops.PACK)
def pack(tape: Tape, op: Op, dy: int) -> None:
    axis = op.option(1) % len(tape.shape(dy))
    for i, t in enumerate(op.inputs):
        if tape.wants(t):
            shape = tape.shape(dy)
            size = [1 if k == axis else n for k, n in enumerate(shape)]
            part = tape.graph.slice(dy, [i if k == axis else 0 for k in range(len(shape))], size)
            part = tape.graph.reshape(part, [n for k, n in enumerate(shape) if k != axis])
            tape.give(t, tape.graph.sum_to(part, tape.shape(t)))


@rule(ops.UNPACK)
def unpack(tape: Tape, op: Op, dy: int) -> None:
    parts = [_or_zeros(tape, out) for out in op.outputs]
    tape.give(op.inputs[0], tape.graph.pack(parts, op.option(1) % len(tape.shape(op.inputs[0]))))


@rule(ops.SPLIT, ops.SPLIT_V)
def split(tape: Tape, op: Op, dy: int) -> None:
    x, along = (op.inputs[1], op.inputs[0]) if op.code == ops.SPLIT else (op.inputs[0], op.inputs[2])
    axis = int(tape.stock.value(along)) % len(tape.shape(x))
    tape.give(x, tape.graph.concatenate([_or_zeros(tape, out) for out in op.outputs], axis))


def _or_zeros(tape: Tape, out: int) -> int:
    gradient = tape.gradients.get(out)
    return tape.graph.filled(tape.shape(out), 0.0) if gradient is None else gradient


@rule(ops.MEAN, ops.SUM)
def reduce(tape: Tape, op: Op, dy: int) -> None:
    graph, x = tape.graph, op.inputs[0]
    shape, axes = tape.shape(x), _axes(tape, op)
    kept = graph.reshape(dy, [1 if i in axes else n for i, n in enumerate(shape)])
    if op.code == ops.MEAN:
        kept = graph.scale(kept, 1 / prod(shape[i] for i in axes))
    tape.give(x, graph.broadcast(kept, shape))


@rule(ops.REDUCE_MAX, ops.REDUCE_MIN)
def reduce_extreme(tape: Tape, op: Op, dy: int) -> None:
    """Equal extremes share, as TensorFlow has it."""
    graph, x = tape.graph, op.inputs[0]
    shape, axes = tape.shape(x), _axes(tape, op)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    reached = graph.as_float(graph.compare(ops.EQUAL, x, graph.reshape(op.outputs[0], kept)))
    share = graph.div(graph.reshape(dy, kept), graph.sum(reached, axes, keep=True))
    tape.give(x, graph.mul(reached, share))


@rule(ops.REDUCE_PROD)
def reduce_product(tape: Tape, op: Op, dy: int) -> None:
    """The product of all the others, by running products from either side: a quotient would not know what to do with zeros."""
    graph, x = tape.graph, op.inputs[0]
    shape, axes = tape.shape(x), _axes(tape, op)
    rest = [i for i in range(len(shape)) if i not in axes]
    rows, many = prod(shape[i] for i in rest), prod(shape[i] for i in axes)
    order = [*rest, *axes]
    laid = graph.reshape(graph.transpose(x, order) if order != sorted(order) else x, (rows, many))
    before, behind = (_running_product(graph, laid, back=back) for back in (False, True))
    share = graph.mul(graph.mul(before, behind), graph.reshape(dy, (rows, 1)))
    given = graph.reshape(share, [shape[i] for i in order])
    tape.give(x, graph.transpose(given, [int(i) for i in np.argsort(order)]) if order != sorted(order) else given)


def _running_product(graph: GraphBuilder, x: int, *, back: bool) -> int:
    """Return, for each entry of a row [rows, many], the product of those before it (back: behind it); in log2(many) steps."""
    rows, many = graph.shape(x)

    def moved(a: int, by: int) -> int:
        kept = graph.slice(a, [0, by if back else 0], [rows, many - by])
        return graph.pad(kept, [(0, 0), (0, by) if back else (by, 0)], fill=1.0)

    if many == 1:
        return graph.filled((1, 1), 1.0)
    total, by = moved(x, 1), 1
    while by < many:
        total, by = graph.mul(total, moved(total, by)), 2 * by
    return total


def _axes(tape: Tape, op: Op) -> list[int]:
    rank = len(tape.shape(op.inputs[0]))
    return sorted({int(i) % rank for i in np.atleast_1d(tape.stock.value(op.inputs[1]))})


@rule(ops.TILE)
def tile(tape: Tape, op: Op, dy: int) -> None:
    """One axis at a time, so that no tensor takes more axes than the delegates can sum."""
    graph, shape = tape.graph, list(tape.shape(dy))
    for axis, n in enumerate(tape.shape(op.inputs[0])):
        times = shape[axis] // n
        if times > 1:
            before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
            shape[axis] = n
            dy = graph.reshape(graph.sum(graph.reshape(dy, (before, times, n * behind)), [1]), shape)
    tape.give(op.inputs[0], graph.reshape(dy, tape.shape(op.inputs[0])))


@rule(ops.BROADCAST_TO)
def broadcast(tape: Tape, op: Op, dy: int) -> None:
    tape.give(op.inputs[0], tape.graph.sum_to(dy, tape.shape(op.inputs[0])))


@rule(ops.RESIZE_NEAREST_NEIGHBOR, ops.RESIZE_BILINEAR)
def resize(tape: Tape, op: Op, dy: int) -> None:
    """Resizing is linear on each axis: its gradient is a product with the transposed matrix, first along the rows, then the columns."""
    fields = (0, 1) if op.code == ops.RESIZE_NEAREST_NEIGHBOR else (2, 3)
    corners, centers = (bool(op.option(f, small=True)) for f in fields)
    bilinear = op.code == ops.RESIZE_BILINEAR
    batch, height, width, channels = tape.shape(op.inputs[0])
    to_height, to_width = tape.shape(op.outputs[0])[1:3]
    graph = tape.graph
    graph.file.room(height * to_height + width * to_width)
    down = _weights(height, to_height, bilinear=bilinear, corners=corners, centers=centers)
    across = _weights(width, to_width, bilinear=bilinear, corners=corners, centers=centers)
    dy = _multiply(graph, down.T, graph.reshape(dy, (batch, to_height, to_width * channels)), (batch * height, to_width, channels))
    tape.give(op.inputs[0], _multiply(graph, across.T, dy, (batch, height, width, channels)))


def _multiply(graph: GraphBuilder, matrix: np.ndarray[tuple[int, int], np.dtype[np.float32]], x: int, shape: Shape) -> int:
    """Return matrix @ x for every first index of x [n, rows, columns], in `shape`."""
    return graph.reshape(graph.matmul(graph.constant_of(np.ascontiguousarray(matrix[None])), x), shape)


def _weights(n: int, to: int, *, bilinear: bool, corners: bool, centers: bool) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the matrix [to, n] of resizing one axis, with the runtimes' own float32 arithmetic."""
    f32 = np.float32
    scale = f32(n - 1) / f32(to - 1) if corners and to > 1 else f32(n) / f32(to)
    out = np.zeros((to, n), f32)
    for i in range(to):
        if bilinear:
            moved_to = (f32(i) + f32(0.5)) * scale - f32(0.5) if centers else f32(i) * scale
            low = max(int(np.floor(moved_to)), 0)
            share = f32(moved_to - f32(low)) if moved_to >= 0 or not centers else f32(moved_to)
            high = min(low + 1, n - 1)
            low = min(low, n - 1)
            share = max(f32(0), share)
            out[i, low] += f32(1) - share
            out[i, high] += share
        else:
            moved_to = (f32(i) + f32(0.5 if centers else 0)) * scale
            near = int(np.floor(moved_to + f32(0.5))) if corners else int(np.floor(moved_to))
            out[i, min(max(near, 0), n - 1)] = 1
    return out
