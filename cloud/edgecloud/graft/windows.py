"""Sliding windows over maps [batch, height, width, channels]: where they stand, what they see, and how to put back what they saw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .stock import Op
from .writing import flat, ops
from .writing.build import GraphBuilder, Shape

Pair = tuple[int, int]
KEPT_COLUMNS = 1 << 20  # bytes: larger ones are made again where the backward pass wants them, and not kept from the forward pass on
FEW_CHANNELS, WINDOW = (8, 16), 150  # that a convolution gathers: channels, without a stride and with one; entries of a window


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one operator. Pairs are (height, width)."""

    size: Pair
    stride: Pair
    dilation: Pair
    before: Pair  # rows and columns of padding at the start
    after: Pair
    count: Pair  # windows along each axis

    @property
    def plain(self) -> bool:
        """Whether each window is one entry, and each entry in one window."""
        return self.size == (1, 1) and self.stride == (1, 1)

    def offsets(self) -> Iterator[Pair]:
        """The places in a window, row by row, relative to its first entry."""
        for i in range(self.size[0]):
            for j in range(self.size[1]):
                yield i * self.dilation[0], j * self.dilation[1]


def windows(shape: Shape, size: Pair, stride: Pair, dilation: Pair, padding: int) -> Windows:
    """Return the windows over maps of `shape`, padded as SAME or VALID has it."""
    before, after, count = [], [], []
    for n, k, s, d in zip(shape[1:3], size, stride, dilation, strict=True):
        span = (k - 1) * d + 1
        along = -(-n // s) if padding == ops.SAME else (n - span) // s + 1
        pads = max((along - 1) * s + span - n, 0) if padding == ops.SAME else 0
        before.append(pads // 2)
        after.append(pads - pads // 2)
        count.append(along)
    return Windows(size, stride, dilation, (before[0], before[1]), (after[0], after[1]), (count[0], count[1]))


def of_conv(op: Op, x: Shape, size: Pair) -> Windows:
    """Return the windows of a CONV_2D or DEPTHWISE_CONV_2D."""
    behind = 1 if op.code == ops.DEPTHWISE_CONV_2D else 0  # its depth multiplier stands between strides and dilations
    dilation = (op.option(5 + behind, 1), op.option(4 + behind, 1))
    return windows(x, size, (op.option(2), op.option(1)), dilation, op.option(0, small=True))


def of_pool(op: Op, x: Shape) -> Windows:
    """Return the windows of a pool."""
    return windows(x, (op.option(4), op.option(3)), (op.option(2), op.option(1)), (1, 1), op.option(0, small=True))


def padded(graph: GraphBuilder, x: int, sliding: Windows, fill: float = 0.0) -> int:
    """Return the maps with their padding."""
    return graph.pad(x, [(0, 0), *zip(sliding.before, sliding.after, strict=True), (0, 0)], fill)


def taps(graph: GraphBuilder, x: int, sliding: Windows, fill: float = 0.0) -> list[int]:
    """Return what stands at each place of every window, in the order of `offsets`: [batch, windows down, windows across, channels].

    Strided slices are among the slowest kernels of the runtimes: the maps are cut into what lies on each remainder of the stride
    instead, and each place is a plain slice of one of those.
    """
    batch, _, _, channels = graph.shape(x)
    if sliding.stride == (1, 1):
        inside = padded(graph, x, sliding, fill)
        return [graph.slice(inside, [0, row, column, 0], [batch, *sliding.count, channels]) for row, column in sliding.offsets()]
    view, (rows, columns) = _blocks(graph, x, sliding, fill)
    (down, across), phases, out = sliding.stride, dict[Pair, int](), []
    for row, column in sliding.offsets():
        i, j = row % down, column % across
        if (i, j) not in phases:
            part = graph.slice(view, [0, i, 0, j * channels], [batch * rows, 1, columns, channels])
            phases[i, j] = graph.reshape(part, (batch, rows, columns, channels))
        out.append(graph.slice(phases[i, j], [0, row // down, column // across, 0], [batch, *sliding.count, channels]))
    return out


def _blocks(graph: GraphBuilder, x: int, sliding: Windows, fill: float) -> tuple[int, Pair]:
    """Return the padded maps in blocks of a stride, [batch * rows, stride down, columns, across * channels]; and (rows, columns)."""
    batch, height, width, channels = graph.shape(x)
    (down, across), pads, blocks = sliding.stride, [(0, 0)], []
    for n, s, before, after in zip((height, width), sliding.stride, sliding.before, sliding.after, strict=True):
        blocks.append(-(-(n + before + after) // s))
        pads.append((before, blocks[-1] * s - n - before))
    rows, columns = blocks
    inside = graph.pad(x, [*pads, (0, 0)], fill)
    return graph.reshape(inside, (batch * rows, down, columns, across * channels)), (rows, columns)


def columns(graph: GraphBuilder, x: int, sliding: Windows) -> int:
    """Return what each window sees as a row: [windows, size of a window]. OHWI filters are then rows of the same order.

    What one part of the graph has made of it and is small enough to be kept, another one takes.
    """
    key = (x, sliding)
    if key in graph.columns:
        return graph.columns[key]
    out = _columns(graph, x, sliding)
    if 4 * prod(graph.shape(out)) <= KEPT_COLUMNS:
        graph.columns[key] = out
    return out


def gathered(graph: GraphBuilder, x: int, sliding: Windows) -> tuple[int, bool]:
    """Return what each window sees as a row, in the order that costs least, and whether that is channel by channel: see `by_channel`.

    Maps of few channels are cut into rows of a few bytes by `columns`. A depthwise convolution with a filter for each place, all zeros and
    a one, takes a tenth of the time: the delegates' kernels want its constants. An infinity in a window makes all its row NaN.
    """
    shape, size = graph.shape(x), sliding.size
    channels, places = shape[3], prod(size)
    paddings = [p for p in (ops.SAME, ops.VALID) if windows(shape, size, sliding.stride, sliding.dilation, p) == sliding]
    few = channels <= FEW_CHANNELS[sliding.stride != (1, 1)] and places * channels <= WINDOW  # of more, copies take less
    if places == 1 or not few or not paddings or back_to_back(sliding, shape):
        return columns(graph, x, sliding), False
    key = (x, (sliding, "by channel"))
    if key in graph.columns:
        return graph.columns[key], True
    filters = np.broadcast_to(np.eye(places, dtype=np.float32)[:, None], (places, channels, places)).reshape(1, *size, -1)
    bias = graph.filled((channels * places,), 0.0)
    options = {
        0: flat.i8(paddings[0]), 1: flat.i32(sliding.stride[1]), 2: flat.i32(sliding.stride[0]), 3: flat.i32(places),
        5: flat.i32(sliding.dilation[1]), 6: flat.i32(sliding.dilation[0]),
    }  # fmt: skip
    seen = (shape[0], *sliding.count, channels * places)
    made = graph.op(ops.DEPTHWISE_CONV_2D, (x, graph.constant_of(filters), bias), seen, options)
    out = graph.reshape(made, (prod(seen[:3]), seen[3]))
    if 4 * prod(seen) <= KEPT_COLUMNS:
        graph.columns[key] = out
    return out, True


def by_channel(graph: GraphBuilder, filters: int) -> int:
    """Return filters [out, height, width, in] as rows [out, in * height * width], the order of `gathered`."""
    out, down, across, channels = graph.shape(filters)
    laid = graph.transpose(graph.reshape(filters, (out, down * across, channels)), (0, 2, 1)) if channels > 1 else filters
    return graph.reshape(laid, (out, channels * down * across))


def from_channels(graph: GraphBuilder, rows: int, shape: Shape) -> int:
    """Return rows of the order of `gathered` as filters of `shape`, [out, height, width, in]."""
    out, down, across, channels = shape
    laid = graph.transpose(graph.reshape(rows, (out, channels, down * across)), (0, 2, 1)) if channels > 1 else rows
    return graph.reshape(laid, shape)


def _columns(graph: GraphBuilder, x: int, sliding: Windows) -> int:
    batch, height, width, channels = graph.shape(x)
    (down, across), (rows, along) = sliding.size, sliding.count
    shape = (batch * rows * along, down * across * channels)
    if sliding.size == (1, 1) and sliding.stride == (1, 1):
        return graph.reshape(x, shape)
    if back_to_back(sliding, (batch, height, width, channels)):
        inside = graph.slice(x, [0, 0, 0, 0], [batch, rows * down, along * across, channels])
        parts = graph.reshape(inside, (batch * rows, down, along, across * channels))
        return graph.reshape(graph.transpose(parts, (0, 2, 1, 3)) if down > 1 else parts, shape)
    if sliding.stride[1] == 1 or sliding.dilation != (1, 1):
        return graph.reshape(graph.concatenate(taps(graph, x, sliding), 3), shape)
    # Neighbours in a row of a window lie side by side in a block of the stride: they are taken together.
    view, (high, wide) = _blocks(graph, x, sliding, 0.0)
    (step, stride), lines, pieces = sliding.stride, dict[int, int](), []
    for row in range(down):
        if row % step not in lines:
            line = graph.slice(view, [0, row % step, 0, 0], [batch * high, 1, wide, stride * channels])
            lines[row % step] = graph.reshape(line, (batch, high, wide, stride * channels))
        for block in range(-(-across // stride)):
            taken = min(stride, across - block * stride) * channels
            pieces.append(graph.slice(lines[row % step], [0, row // step, block, 0], [batch, rows, along, taken]))
    return graph.reshape(graph.concatenate(pieces, 3), shape)


def spread(graph: GraphBuilder, dy: int, stride: Pair) -> int:
    """Return the maps with stride - 1 zeros between their entries."""
    batch, height, width, channels = graph.shape(dy)
    down, across = stride
    if across > 1 and width > 1:
        dy = graph.pad(graph.reshape(dy, (batch * height * width, 1, channels)), [(0, 0), (0, across - 1), (0, 0)])
        dy = graph.reshape(dy, (batch, height, width * across, channels))
        width = (width - 1) * across + 1
        dy = graph.slice(dy, [0, 0, 0, 0], [batch, height, width, channels])
    if down > 1 and height > 1:
        dy = graph.pad(graph.reshape(dy, (batch * height, 1, width * channels)), [(0, 0), (0, down - 1), (0, 0)])
        dy = graph.reshape(dy, (batch, height * down, width, channels))
        dy = graph.slice(dy, [0, 0, 0, 0], [batch, (height - 1) * down + 1, width, channels])
    return dy


def facing(graph: GraphBuilder, dy: int, sliding: Windows, shape: Shape) -> int:
    """Return dy spread and padded so that windows of the same size and stride 1 over it give maps of `shape`.

    Entries that no window saw get rows of zeros; entries of dy that saw padding alone are cut off.
    """
    dy = spread(graph, dy, sliding.stride)
    pads, begin, size = [(0, 0)], [0], [graph.shape(dy)[0]]
    for axis in (0, 1):
        span, have = (sliding.size[axis] - 1) * sliding.dilation[axis] + 1, graph.shape(dy)[1 + axis]
        first = span - 1 - sliding.before[axis]
        last = shape[1 + axis] + span - 1 - first - have
        pads.append((max(first, 0), max(last, 0)))
        begin.append(max(-first, 0))
        size.append(have + min(first, 0) + min(last, 0))
    channels = graph.shape(dy)[3]
    return graph.pad(graph.slice(dy, [*begin, 0], [*size, channels]), [*pads, (0, 0)])


def back_to_back(sliding: Windows, shape: Shape) -> bool:
    """Return whether the windows tile the maps from their start on, with at most a rest that none sees."""
    return sliding.size == sliding.stride and sliding.dilation == (1, 1) and sliding.before == (0, 0) and sliding.after == (0, 0)


def interleaved(graph: GraphBuilder, parts: list[int], sliding: Windows, shape: Shape) -> int:
    """Return maps of `shape` from what belongs to each place of back-to-back windows: `parts` in the order of `offsets`."""
    batch, _, _, channels = shape
    (down, across), (rows, columns) = sliding.size, sliding.count
    lines = []
    for i in range(down):
        line = graph.concatenate(parts[i * across : (i + 1) * across], 3)
        lines.append(graph.reshape(line, (batch * rows, 1, columns * across * channels)))
    whole = graph.reshape(graph.concatenate(lines, 1), (batch, rows * down, columns * across, channels))
    rest = [(0, 0), (0, shape[1] - rows * down), (0, shape[2] - columns * across), (0, 0)]
    return graph.pad(whole, rest)


def depthwise(graph: GraphBuilder, x: int, filters: int, dilation: Pair) -> int:
    """Return the depthwise convolution, VALID and of stride 1, of x with filters [1, height, width, channels]."""
    batch, height, width, channels = graph.shape(x)
    _, down, across, _ = graph.shape(filters)
    shape = (batch, height - (down - 1) * dilation[0], width - (across - 1) * dilation[1], channels)
    options = {
        0: flat.i8(ops.VALID), 1: flat.i32(1), 2: flat.i32(1), 3: flat.i32(1), 5: flat.i32(dilation[1]), 6: flat.i32(dilation[0]),
    }  # fmt: skip
    bias = graph.filled((channels,), 0.0)
    return graph.op(ops.DEPTHWISE_CONV_2D, (x, filters, bias), shape, options)


def conv(graph: GraphBuilder, x: int, filters: int, *, stride: Pair, dilation: Pair, padding: int, count: Pair) -> int:
    """Return the convolution of x with filters [out, height, width, in]."""
    options = {
        0: flat.i8(padding), 1: flat.i32(stride[1]), 2: flat.i32(stride[0]), 4: flat.i32(dilation[1]), 5: flat.i32(dilation[0]),
    }  # fmt: skip
    channels = graph.shape(filters)[0]
    bias = graph.filled((channels,), 0.0)
    return graph.op(ops.CONV_2D, (x, filters, bias), (graph.shape(x)[0], *count, channels), options)


def turned(graph: GraphBuilder, filters: int) -> int:
    """Return the filters [n, height, width, m] turned by half a circle: one reversal over both axes laid together."""
    n, down, across, m = shape = graph.shape(filters)
    if down * across == 1:
        return filters
    return graph.reshape(graph.reverse(graph.reshape(filters, (n, down * across, m)), 1), shape)
