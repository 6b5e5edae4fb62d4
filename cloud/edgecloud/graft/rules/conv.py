"""Gradients of convolutions and pools, and the matrix product that a 1x1 convolution is."""

from __future__ import annotations

from math import prod

import numpy as np

from edgecloud.graft.stock import Op
from edgecloud.graft.tape import NoRule, Tape, rule
from edgecloud.graft.windows import (
    Windows,
    back_to_back,
    columns,
    conv,
    depthwise,
    facing,
    from_channels,
    gathered,
    interleaved,
    of_conv,
    of_pool,
    spread,
    taps,
    turned,
    windows,
)
from edgecloud.graft.writing import flat, ops
from edgecloud.graft.writing.build import GraphBuilder, Shape

from .dense import give_bias


@rule(ops.CONV_2D)
def conv_2d(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, w) = tape.graph, op.inputs[:2]
    gives, down, across, takes = tape.shape(w)
    sliding = of_conv(op, tape.shape(x), (down, across))
    flat_dy = graph.reshape(dy, (prod(tape.shape(dy)[:3]), gives))
    if tape.shape(x)[3] != takes:
        _grouped(tape, op, dy, sliding)
        give_bias(tape, op, flat_dy)
        return
    if tape.wants(w):
        seen, channels_first = gathered(graph, x, sliding)
        made = graph.matmul(flat_dy, seen, adjoint_a=True)
        tape.give(w, from_channels(graph, made, tape.shape(w)) if channels_first else graph.reshape(made, tape.shape(w)))
    if tape.wants(x):
        tape.give(x, _conv_input(graph, w, dy, flat_dy, sliding, tape.shape(x)))
    give_bias(tape, op, flat_dy)


def _grouped(tape: Tape, op: Op, dy: int, sliding: Windows) -> None:
    """Give the gradients of channels that are convolved in groups: products of matrices, one for each group."""
    graph, (x, w) = tape.graph, op.inputs[:2]
    (gives, down, across, takes), shape = tape.shape(w), tape.shape(x)
    groups = shape[3] // takes
    if groups * takes != shape[3] or gives % groups:
        raise NoRule(op, f"convolves {shape[3]} channels in groups of {takes}, {gives} filters in all")

    def by_group(a: int, places: int) -> int:
        """Return [rows, places * channels] as [groups, rows, places * channels of a group]."""
        rows, size = graph.shape(a)
        each = size // places // groups
        laid = graph.transpose(graph.reshape(a, (rows, places, groups, each)), (2, 0, 1, 3))
        return graph.reshape(laid, (groups, rows, places * each))

    places, of_group = down * across, gives // groups
    if tape.wants(w):
        flat_dy = by_group(graph.reshape(dy, (prod(tape.shape(dy)[:3]), gives)), 1)
        tape.give(w, graph.reshape(graph.matmul(flat_dy, by_group(columns(graph, x, sliding), places), adjoint_a=True), tape.shape(w)))
    if tape.wants(x):
        filters = graph.transpose(graph.reshape(turned(graph, w), (groups, of_group, places, takes)), (0, 2, 1, 3))
        over = Windows(sliding.size, (1, 1), sliding.dilation, (0, 0), (0, 0), (shape[1], shape[2]))
        seen_all = by_group(columns(graph, facing(graph, dy, sliding, shape), over), places)
        given = graph.matmul(seen_all, graph.reshape(filters, (groups, places * of_group, takes)))
        tape.give(x, graph.reshape(graph.transpose(given, (1, 0, 2)), shape))


def _conv_input(graph: GraphBuilder, w: int, dy: int, flat_dy: int, sliding: Windows, shape: Shape) -> int:
    gives, down, across, takes = graph.shape(w)
    batch, height, width, _ = shape
    if sliding.plain:
        return graph.reshape(graph.matmul(flat_dy, graph.reshape(w, (gives, takes))), shape)
    if back_to_back(sliding, shape):
        (rows, along), size = sliding.count, down * across * takes
        parts = graph.reshape(graph.matmul(flat_dy, graph.reshape(w, (gives, size))), (batch * rows, along, down, across * takes))
        parts = graph.transpose(parts, (0, 2, 1, 3)) if down > 1 else parts
        whole = graph.reshape(parts, (batch, rows * down, along * across, takes))
        return graph.pad(whole, [(0, 0), (0, height - rows * down), (0, width - along * across), (0, 0)])
    if sliding.size == (1, 1):
        plain = graph.matmul(flat_dy, graph.reshape(w, (gives, takes)))
        return facing(graph, graph.reshape(plain, (batch, *sliding.count, takes)), sliding, shape)
    # The filters turned, from [out, height, width, in] to [height, width, out, in]: a convolution of the gradient, stride 1.
    filters = graph.reshape(graph.transpose(turned(graph, w), (1, 2, 0, 3)), (down * across * gives, takes))
    seen = facing(graph, dy, sliding, shape)
    steps = Windows(sliding.size, (1, 1), sliding.dilation, (0, 0), (0, 0), (height, width))
    return graph.reshape(graph.matmul(columns(graph, seen, steps), filters), shape)


@rule(ops.TRANSPOSE_CONV)
def transpose_conv(tape: Tape, op: Op, dy: int) -> None:
    """A convolution from the larger maps to the smaller ones, read backwards."""
    graph, (_, w, x) = tape.graph, op.inputs[:3]
    gives, down, across, takes = tape.shape(w)
    stride, padding = (op.option(2), op.option(1)), op.option(0, small=True)
    sliding = windows(tape.shape(dy), (down, across), stride, (1, 1), padding)
    if sliding.count != tape.shape(x)[1:3]:
        raise NoRule(op, "has an output whose size no convolution would have led back from")
    if tape.wants(w):
        flat_x = graph.reshape(x, (prod(tape.shape(x)[:3]), takes))
        filters = graph.reshape(graph.matmul(flat_x, columns(graph, dy, sliding), adjoint_a=True), (takes, down, across, gives))
        tape.give(w, graph.transpose(filters, (3, 1, 2, 0)))
    if tape.wants(x):
        filters = graph.transpose(w, (3, 1, 2, 0))
        tape.give(x, conv(graph, dy, filters, stride=stride, dilation=(1, 1), padding=padding, count=sliding.count))
    if len(op.inputs) > 3 and op.inputs[3] >= 0 and tape.wants(op.inputs[3]):
        tape.give(op.inputs[3], tape.graph.sum_to(dy, tape.shape(op.inputs[3])))


@rule(ops.DEPTHWISE_CONV_2D)
def depthwise_conv_2d(tape: Tape, op: Op, dy: int) -> None:
    graph, (x, w) = tape.graph, op.inputs[:2]
    _, down, across, gives = tape.shape(w)
    batch, height, width, takes = tape.shape(x)
    times = gives // takes
    sliding = of_conv(op, tape.shape(x), (down, across))
    if tape.wants(w):
        # Each channel as often as it is used; one channel alone is repeated by broadcasting.
        wide = x if times == 1 or takes == 1 else graph.gather(x, [c for c in range(takes) for _ in range(times)], 3)
        rows = batch * sliding.count[0] * sliding.count[1]
        sums = []
        for seen in taps(graph, wide, sliding):
            product = graph.mul(seen, dy)
            sums.append(graph.sum(graph.reshape(product, (rows, gives)), [0], keep=True))
        tape.give(w, graph.reshape(graph.concatenate(sums, 0), tape.shape(w)))
    if tape.wants(x):
        wide_dx = depthwise(graph, facing(graph, dy, sliding, (batch, height, width, gives)), turned(graph, w), sliding.dilation)
        if times > 1:
            wide_dx = graph.sum(graph.reshape(wide_dx, (batch * height * width, takes, times)), [2])
        tape.give(x, graph.reshape(wide_dx, tape.shape(x)))
    give_bias(tape, op, graph.reshape(dy, (prod(tape.shape(dy)[:3]), gives)))


@rule(ops.AVERAGE_POOL_2D)
def average_pool(tape: Tape, op: Op, dy: int) -> None:
    shape = tape.shape(op.inputs[0])
    tape.give(op.inputs[0], _shared(tape.graph, dy, of_pool(op, shape), shape))


@rule(ops.L2_POOL_2D)
def l2_pool(tape: Tape, op: Op, dy: int) -> None:
    """The root of the mean of the squares: each entry's share is in proportion to it. Where all are zero, none has any."""
    graph, x, shape = tape.graph, op.inputs[0], tape.shape(op.inputs[0])
    y = graph.maximum(_before_fused(graph, op), graph.constant_of(1e-30))
    tape.give(x, graph.mul(x, _shared(graph, graph.div(dy, y), of_pool(op, shape), shape)))


def _before_fused(graph: GraphBuilder, op: Op) -> int:
    """Return what a pool gives before the activation that is fused into it."""
    if op.fused == ops.NONE:
        return op.outputs[0]
    options = {0: flat.i8(op.option(0, small=True)), **{n: flat.i32(op.option(n)) for n in range(1, 5)}}
    return graph.op(op.code, op.inputs, graph.shape(op.outputs[0]), options)


def _shared(graph: GraphBuilder, dy: int, sliding: Windows, shape: Shape) -> int:
    """Return maps of `shape` in which each window has given its entries equal shares of its dy."""
    if sliding.count == (1, 1) and sliding.size == shape[1:3]:
        return graph.broadcast(graph.scale(dy, 1 / prod(sliding.size)), shape)
    if back_to_back(sliding, shape):
        share = graph.scale(dy, 1 / prod(sliding.size))
        return interleaved(graph, [share] * prod(sliding.size), sliding, shape)
    graph.file.room(prod(sliding.count))
    # Padding is not counted: each window divides by the entries that it really saw.
    axes = zip(shape[1:3], sliding.size, sliding.stride, sliding.before, sliding.count, strict=True)
    down, across = (_counts(n, k, s, b, c) for n, k, s, b, c in axes)
    share = graph.mul(dy, graph.constant_of((1 / np.outer(down, across)).astype(np.float32)[None, :, :, None]))
    ones = graph.filled((1, *sliding.size, shape[3]), 1.0)
    return depthwise(graph, facing(graph, share, sliding, shape), ones, (1, 1))


def _counts(n: int, size: int, stride: int, before: int, count: int) -> list[int]:
    starts = [i * stride - before for i in range(count)]
    return [min(s + size, n) - max(s, 0) for s in starts]


@rule(ops.MAX_POOL_2D)
def max_pool(tape: Tape, op: Op, dy: int) -> None:
    """The first of equal entries of a window takes all, as TensorFlow has it."""
    graph, x, shape = tape.graph, op.inputs[0], tape.shape(op.inputs[0])
    sliding = of_pool(op, shape)
    tiles = back_to_back(sliding, shape)
    y, left, parts = _before_fused(graph, op), dy, []
    offsets = list(sliding.offsets())
    for i, seen in enumerate(taps(graph, x, sliding, fill=-3e38)):
        takes = graph.mul(left, graph.as_float(graph.compare(ops.EQUAL, seen, y)))
        if i + 1 < len(offsets):
            left = graph.sub(left, takes)
        parts.append(takes)
    if tiles:
        tape.give(x, interleaved(graph, parts, sliding, shape))
        return
    # Overlapping windows: each place of a window is put back by itself, and all are added.
    span = [(count - 1) * stride + size for count, stride, size in zip(sliding.count, sliding.stride, sliding.size, strict=True)]
    total = -1
    for part, (row, column) in zip(parts, offsets, strict=True):
        wide = spread(graph, part, sliding.stride)
        _, height, width, _ = graph.shape(wide)
        wide = graph.pad(wide, [(0, 0), (row, span[0] - row - height), (column, span[1] - column - width), (0, 0)])
        total = wide if total < 0 else graph.add(total, wide)
    batch, height, width, channels = shape
    rows, columns = (min(n + b, s) - b for n, b, s in zip(shape[1:3], sliding.before, span, strict=True))
    total = graph.slice(total, [0, *sliding.before, 0], [batch, rows, columns, channels])
    tape.give(x, graph.pad(total, [(0, 0), (0, height - rows), (0, width - columns), (0, 0)]))
