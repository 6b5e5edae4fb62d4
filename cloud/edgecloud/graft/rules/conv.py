"""Gradients of convolutions and pools, and the matrix product that a 1x1 convolution is."""

from __future__ import annotations

from math import prod

import numpy as np

from edgecloud.graft.stock import Op
from edgecloud.graft.tape import NoRule, Tape, rule
from edgecloud.graft.windows import (
    Pair,
    Windows,
    back_to_back,
    conv,
    depthwise,
    facing,
    interleaved,
    of_conv,
    of_pool,
    padded,
    seen,
    spread,
    turned,
    windows,
)
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import Graph, Shape

from .dense import give_bias


@rule(ops.CONV_2D)
def conv_2d(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, w) = tape.graph, op.inputs[:2]
    gives, down, across, takes = tape.shape(w)
    if tape.shape(x)[3] != takes:
        raise NoRule(op, "convolves its channels in groups")
    at = of_conv(op, tape.shape(x), (down, across))
    flat_dy = graph.reshape(dy, (prod(tape.shape(dy)[:3]), gives))
    if tape.wants(w):
        tape.give(w, graph.reshape(graph.matmul(flat_dy, _columns(graph, x, at), adjoint_a=True), tape.shape(w)))
    if tape.wants(x):
        tape.give(x, _conv_input(graph, w, dy, flat_dy, at, tape.shape(x), op.option(0, small=True)))
    give_bias(tape, op, flat_dy)


def _columns(graph: Graph, x: int, at: Windows) -> int:
    """Return what each window sees as a row: [windows, size of a window]. OHWI filters are then rows of the same order."""
    batch, _, _, channels = graph.shape(x)
    rows = batch * at.count[0] * at.count[1]
    inside = padded(graph, x, at)
    parts = [seen(graph, inside, at, offset) for offset in at.offsets()]
    return graph.reshape(graph.concatenate(parts, 3), (rows, len(parts) * channels))


def _conv_input(graph: Graph, w: int, dy: int, flat_dy: int, at: Windows, shape: Shape, padding: int) -> int:
    gives, down, across, takes = graph.shape(w)
    if at.plain:
        return graph.reshape(graph.matmul(flat_dy, graph.reshape(w, (gives, takes))), shape)
    if at.stride == (1, 1) or at.dilation != (1, 1) or min(shape[1] - down, shape[2] - across) < 0:
        filters = graph.transpose(turned(graph, w), (3, 1, 2, 0))
        seen_all = facing(graph, dy, at, shape)
        return conv(graph, seen_all, filters, stride=(1, 1), dilation=at.dilation, padding=ops.VALID, count=(shape[1], shape[2]))
    return _transposed(graph, graph.transpose(w, (3, 1, 2, 0)), dy, shape, at.stride, padding)


def _transposed(graph: Graph, filters: int, dy: int, shape: Shape, stride: Pair, padding: int) -> int:
    options = {0: flat.i8(padding), 1: flat.i32(stride[1]), 2: flat.i32(stride[0])}
    return graph.op(ops.TRANSPOSE_CONV, (graph.constant_of(shape), filters, dy), shape, options)


@rule(ops.TRANSPOSE_CONV)
def transpose_conv(tape: Tape, op: Op, dy: int) -> None:
    """A convolution from the larger maps to the smaller ones, read backwards."""
    graph, (_, w, x) = tape.graph, op.inputs[:3]
    gives, down, across, takes = tape.shape(w)
    stride, padding = (op.option(2), op.option(1)), op.option(0, small=True)
    at = windows(tape.shape(dy), (down, across), stride, (1, 1), padding)
    if at.count != tape.shape(x)[1:3]:
        raise NoRule(op, "has an output whose size no convolution would have led back from")
    if tape.wants(w):
        flat_x = graph.reshape(x, (prod(tape.shape(x)[:3]), takes))
        filters = graph.reshape(graph.matmul(flat_x, _columns(graph, dy, at), adjoint_a=True), (takes, down, across, gives))
        tape.give(w, graph.transpose(filters, (3, 1, 2, 0)))
    if tape.wants(x):
        filters = graph.transpose(w, (3, 1, 2, 0))
        tape.give(x, conv(graph, dy, filters, stride=stride, dilation=(1, 1), padding=padding, count=at.count))
    if len(op.inputs) > 3 and op.inputs[3] >= 0 and tape.wants(op.inputs[3]):
        tape.give(op.inputs[3], tape.graph.sum_to(dy, tape.shape(op.inputs[3])))


@rule(ops.DEPTHWISE_CONV_2D)
def depthwise_conv_2d(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, w) = tape.graph, op.inputs[:2]
    _, down, across, gives = tape.shape(w)
    batch, height, width, takes = tape.shape(x)
    times = gives // takes
    at = of_conv(op, tape.shape(x), (down, across))
    if tape.wants(w):
        # Each channel as often as it is used; one channel alone is repeated by broadcasting.
        wide = x if times == 1 or takes == 1 else graph.gather(x, [c for c in range(takes) for _ in range(times)], 3)
        inside = padded(graph, wide, at)
        rows = batch * at.count[0] * at.count[1]
        sums = []
        for offset in at.offsets():
            product = graph.mul(seen(graph, inside, at, offset), dy)
            sums.append(graph.sum(graph.reshape(product, (rows, gives)), [0], keep=True))
        tape.give(w, graph.reshape(graph.concatenate(sums, 0), tape.shape(w)))
    if tape.wants(x):
        wide_dx = depthwise(graph, facing(graph, dy, at, (batch, height, width, gives)), turned(graph, w), at.dilation)
        if times > 1:
            wide_dx = graph.sum(graph.reshape(wide_dx, (batch * height * width, takes, times)), [2])
        tape.give(x, graph.reshape(wide_dx, tape.shape(x)))
    give_bias(tape, op, graph.reshape(dy, (prod(tape.shape(dy)[:3]), gives)))


@rule(ops.AVERAGE_POOL_2D)
def average_pool(tape: Tape, op: Op, dy: int) -> None:
    graph, shape = tape.graph, tape.shape(op.inputs[0])
    at = of_pool(op, shape)
    if at.count == (1, 1) and at.size == shape[1:3]:
        tape.give(op.inputs[0], graph.broadcast(graph.scale(dy, 1 / prod(at.size)), shape))
    elif back_to_back(at, shape):
        share = graph.scale(dy, 1 / prod(at.size))
        tape.give(op.inputs[0], interleaved(graph, [share] * prod(at.size), at, shape))
    else:
        graph.file.room(prod(at.count))
        # Padding is not counted: each window divides by the entries that it really saw.
        down, across = (_counts(n, k, s, b, c) for n, k, s, b, c in zip(shape[1:3], at.size, at.stride, at.before, at.count, strict=True))
        share = graph.mul(dy, graph.constant_of((1 / np.outer(down, across)).astype(np.float32)[None, :, :, None]))
        ones = graph.filled((1, *at.size, shape[3]), 1.0)
        tape.give(op.inputs[0], depthwise(graph, facing(graph, share, at, shape), ones, (1, 1)))


def _counts(n: int, size: int, stride: int, before: int, count: int) -> list[int]:
    starts = [i * stride - before for i in range(count)]
    return [min(s + size, n) - max(s, 0) for s in starts]


@rule(ops.MAX_POOL_2D)
def max_pool(tape: Tape, op: Op, dy: int) -> None:
    """The first of equal entries of a window takes all, as TensorFlow has it."""
    graph, x, shape = tape.graph, op.inputs[0], tape.shape(op.inputs[0])
    if op.fused != ops.NONE:
        raise NoRule(op, "has an activation fused into a maximum")
    at = of_pool(op, shape)
    tiles = back_to_back(at, shape)
    inside = padded(graph, x, at, fill=-3e38)
    y, left, parts = op.outputs[0], dy, []
    offsets = list(at.offsets())
    for i, offset in enumerate(offsets):
        takes = graph.mul(left, graph.as_float(graph.compare(ops.EQUAL, seen(graph, inside, at, offset), y)))
        if i + 1 < len(offsets):
            left = graph.sub(left, takes)
        parts.append(takes)
    if tiles:
        tape.give(x, interleaved(graph, parts, at, shape))
        return
    # Overlapping windows: each place of a window is put back by itself, and all are added.
    span = [(count - 1) * stride + size for count, stride, size in zip(at.count, at.stride, at.size, strict=True)]
    total = -1
    for part, (row, column) in zip(parts, offsets, strict=True):
        wide = spread(graph, part, at.stride)
        _, height, width, _ = graph.shape(wide)
        wide = graph.pad(wide, [(0, 0), (row, span[0] - row - height), (column, span[1] - column - width), (0, 0)])
        total = wide if total < 0 else graph.add(total, wide)
    batch, height, width, channels = shape
    rows, columns = (min(n + b, s) - b for n, b, s in zip(shape[1:3], at.before, span, strict=True))
    total = graph.slice(total, [0, *at.before, 0], [batch, rows, columns, channels])
    tape.give(x, graph.pad(total, [(0, 0), (0, height - rows), (0, width - columns), (0, 0)]))
