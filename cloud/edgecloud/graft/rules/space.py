"""Gradients of what moves entries between places, channels and the batch, mirrors them, and takes some of them."""

from __future__ import annotations

import numpy as np

from edgecloud.graft.batch import relays, taken_by
from edgecloud.graft.stock import Op
from edgecloud.graft.tape import NoRule, Tape, rule
from edgecloud.graft.writing import flat, ops, strides

from .shape import reshape


@rule(ops.DEPTH_TO_SPACE, ops.SPACE_TO_DEPTH)
def depth_and_space(tape: Tape, op: Op, dy: int) -> None:
    """Each undoes the other."""
    back = ops.SPACE_TO_DEPTH if op.code == ops.DEPTH_TO_SPACE else ops.DEPTH_TO_SPACE
    tape.give(op.inputs[0], tape.graph.op(back, (dy,), tape.shape(op.inputs[0]), {0: flat.i32(op.option(0))}))


@rule(ops.BATCH_TO_SPACE_ND, ops.SPACE_TO_BATCH_ND)
def batch_and_space(tape: Tape, op: Op, dy: int) -> None:
    """Each undoes the other: what one pads the other crops, and the reverse."""
    graph = tape.graph
    block, widths = (graph.constant_of(tape.stock.value(t).astype(np.int32)) for t in op.inputs[1:3])
    back = ops.SPACE_TO_BATCH_ND if op.code == ops.BATCH_TO_SPACE_ND else ops.BATCH_TO_SPACE_ND
    tape.give(op.inputs[0], graph.op(back, (dy, block, widths), tape.shape(op.inputs[0])))


@rule(ops.MIRROR_PAD)
def mirror_pad(tape: Tape, op: Op, dy: int) -> None:
    """What stands in a mirrored edge goes back, reversed, to the entries that it mirrors; one axis at a time."""
    graph, shape = tape.graph, tape.shape(op.inputs[0])
    beside = 0 if op.option(0, small=True) else 1  # a reflection leaves the outermost entry out
    for axis, pair in enumerate(tape.stock.value(op.inputs[1])):
        before, after = int(pair[0]), int(pair[1])
        n, have = shape[axis], list(graph.shape(dy))
        if not 0 <= before <= n - beside or not 0 <= after <= n - beside or have[axis] != before + n + after:
            raise NoRule(op, "mirrors more than there is")
        if not before and not after:
            continue

        def part(first: int, size: int, axis: int = axis, have: list[int] = have, dy: int = dy) -> int:
            begin = [first if i == axis else 0 for i in range(len(have))]
            return graph.slice(dy, begin, [size if i == axis else m for i, m in enumerate(have)])

        total = part(before, n)
        for first, size, to in ((0, before, beside), (before + n, after, n - beside - after)):
            if size:
                pads = [(to, n - to - size) if i == axis else (0, 0) for i in range(len(have))]
                total = graph.add(total, graph.pad(graph.reverse(part(first, size), axis), pads))
        dy = total
    tape.give(op.inputs[0], dy)


@rule(ops.STRIDED_SLICE)
def strided_slice(tape: Tape, op: Op, dy: int) -> None:
    if relays(tape.stock, op):
        return reshape(tape, op, dy)
    x, y = op.inputs[0], op.outputs[0]
    what, axis = taken_by(tape.stock, op), tape.layout.axes[x]
    if what.shape != tape.stock.tensors[y].shape:
        raise NoRule(op, "gives another shape than its numbers say")
    if axis is not None:
        what = what.whole(axis, tape.shape(x)[axis])
    tape.give(x, strides.put_back(tape.graph, dy, what, tape.shape(x)))
