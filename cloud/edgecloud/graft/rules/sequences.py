"""Gradients of look-ups, and of sums and reversals along the steps of a sequence."""

from __future__ import annotations

from math import prod

import numpy as np

from edgecloud.graft.passing import shared_axes
from edgecloud.graft.stock import Op
from edgecloud.graft.tape import NoRule, Tape, rule
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import GraphBuilder, Shape


@rule(ops.REVERSE_V2)
def reverse(tape: Tape, op: Op, dy: int) -> None:
    x = op.inputs[0]
    for axis in np.atleast_1d(tape.stock.value(op.inputs[1])):
        dy = tape.graph.reverse(dy, int(axis) % len(tape.shape(x)))
    tape.give(x, dy)


@rule(ops.REVERSE_SEQUENCE)
def reverse_sequence(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, lengths) = tape.graph, op.inputs
    along, by = op.option(0), op.option(1)
    lengths = graph.broadcast(lengths, (tape.shape(x)[by],))
    tape.give(x, graph.op(ops.REVERSE_SEQUENCE, (dy, lengths), tape.shape(x), {0: flat.i32(along), 1: flat.i32(by)}))


@rule(ops.CUMSUM)
def cumsum(tape: Tape, op: Op, dy: int) -> None:
    """What an entry was added to lies behind it: the sum runs the other way."""
    x, axis = op.inputs
    options = {0: flat.i8(op.option(0, small=True)), 1: flat.i8(not op.option(1, small=True))}
    tape.give(x, tape.graph.op(ops.CUMSUM, (dy, axis), tape.shape(x), options))


@rule(ops.EMBEDDING_LOOKUP)
def embedding_lookup(tape: Tape, op: Op, dy: int) -> None:
    ids, table = op.inputs
    tape.give(table, _added(tape.graph, ids, 1, dy, tape.shape(table)))


@rule(ops.GATHER_ND)
def gather_nd(tape: Tape, op: Op, dy: int) -> None:
    taken, indices = op.inputs
    tape.give(taken, _added(tape.graph, indices, tape.shape(indices)[-1], dy, tape.shape(taken)))


@rule(ops.GATHER)
def gather(tape: Tape, op: Op, dy: int) -> None:
    graph, (taken, indices) = tape.graph, op.inputs
    shape, shared = tape.shape(taken), shared_axes(tape.stock, op)
    axis = op.option(0) % len(shape)
    before, inner = prod(shape[shared:axis]), prod(shape[axis + 1 :])
    if shared:
        lead = tuple(np.broadcast_shapes(shape[:shared], tape.shape(indices)[:shared]))
        _gather_each(tape, op, dy, lead, before, inner)
        return
    count = prod(tape.shape(indices))
    # Entries of the axis first, each with a row of all else.
    if before > 1:
        dy = graph.transpose(graph.reshape(dy, (before, count, inner)), (1, 0, 2))
    total = _added(graph, indices, 1, graph.reshape(dy, (count, before * inner)), (shape[axis], before * inner))
    if before > 1:
        total = graph.transpose(graph.reshape(total, (shape[axis], before, inner)), (1, 0, 2))
    tape.give(taken, graph.reshape(total, shape))


def _gather_each(tape: Tape, op: Op, dy: int, lead: Shape, before: int, inner: int) -> None:
    """Give the gradient of a look-up in which each has indices of its own: a product with what marks them."""
    graph, (taken, indices) = tape.graph, op.inputs
    shape, shared = tape.shape(taken), len(lead)
    axis = op.option(0) % len(shape)
    if before > 1:
        raise NoRule(op, "looks up along an axis behind one that its indices do not share")
    size, each = shape[axis], prod(tape.shape(indices)[shared:])
    many = prod(lead)
    graph.file.room(many * each * size)
    ends = (graph.constant_of(np.array(size, np.int32)), graph.constant_of(1.0), graph.constant_of(0.0))
    marks = graph.op(ops.ONE_HOT, (indices, *ends), (*tape.shape(indices), size), {0: flat.i32(-1)})
    marks = graph.reshape(graph.broadcast(marks, (*lead, *tape.shape(marks)[shared:])), (many, each, size))
    product = graph.matmul(marks, graph.reshape(dy, (many, each, inner)), adjoint_a=True)
    tape.give(taken, graph.sum_to(graph.reshape(product, (*lead, *shape[shared:])), shape))


def _added(graph: GraphBuilder, indices: int, deep: int, dy: int, shape: Shape) -> int:
    """Return zeros of `shape` with each row of dy added where its indices say. Rows for the same place are added up, in their order."""
    if graph.types[indices] not in (ops.INT32, ops.INT64):
        raise ValueError("indices of a type that no runtime takes")
    if graph.types[indices] == ops.INT64:
        options = {0: flat.i8(ops.INT64), 1: flat.i8(ops.INT32)}
        indices = graph.op(ops.CAST, (indices,), graph.shape(indices), options, type=ops.INT32)
    count = prod(graph.shape(indices)) // deep
    places = (count, deep)
    where = graph.op(ops.RESHAPE, (indices, graph.constant_of(places)), places, {0: flat.integers(places)}, type=ops.INT32)
    rows = graph.reshape(dy, (count, *shape[deep:]))
    return graph.op(ops.SCATTER_ND, (where, rows, graph.constant_of(shape)), shape)
