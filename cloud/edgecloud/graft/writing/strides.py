"""Which entries a strided slice takes: its masks, ellipsis and negative numbers read into one plain form, and that form written.

Source of the rules: strided_slice_logic.h of TensorFlow Lite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from . import flat, ops
from .build import GraphBuilder, Shape


@dataclass(frozen=True, slots=True)
class Masks:
    """The bit masks of a strided slice; bit i speaks of the i-th of its begins, ends and strides."""

    begin: int = 0
    end: int = 0
    ellipsis: int = 0
    new: int = 0
    shrink: int = 0


@dataclass(frozen=True, slots=True)
class StridedSlice:
    """What is taken along each axis of the input, and where that axis is in the output."""

    begin: tuple[int, ...]
    stride: tuple[int, ...]  # may be negative
    count: tuple[int, ...]
    place: tuple[int | None, ...]  # axis of the output; None for one that is gone
    shape: Shape  # of the output

    def whole(self, axis: int, entries: int) -> StridedSlice:
        """Return the same with all of an axis that has this many entries now, in their order."""

        def put(values: tuple[int, ...], value: int) -> tuple[int, ...]:
            return (*values[:axis], value, *values[axis + 1 :])

        place = self.place[axis]
        shape = self.shape if place is None else (*self.shape[:place], entries, *self.shape[place + 1 :])
        return StridedSlice(put(self.begin, 0), put(self.stride, 1), put(self.count, entries), self.place, shape)


def taken(
    shape: Shape, begin: Sequence[int], end: Sequence[int], stride: Sequence[int], masks: Masks, *, offset: bool = False
) -> StridedSlice:
    """Return what is taken of a tensor of this shape. offset: the ends are relative to the begins.

    Raises ValueError for a slice that fits no such tensor.
    """
    if not len(begin) == len(end) == len(stride) or 0 in stride:
        raise ValueError(f"a strided slice of {len(begin)} begins, {len(end)} ends and the strides {list(stride)}")
    out: list[tuple[int, int, int, int | None]] = []
    sizes: list[int] = []
    named = sum(not (masks.new | masks.ellipsis) >> i & 1 for i in range(len(begin)))

    def take(first: int, step: int, many: int, *, gone: bool = False) -> None:
        out.append((first, step, many, None if gone else len(sizes)))
        if not gone:
            sizes.append(many)

    for i in range(len(begin)):
        if masks.ellipsis >> i & 1:
            for n in shape[len(out) : len(out) + len(shape) - named]:
                take(0, 1, n)
        elif masks.new >> i & 1:
            sizes.append(1)
        elif len(out) == len(shape):
            raise ValueError(f"a strided slice of more axes than the {len(shape)} there are")
        else:
            first, last = _ends(shape[len(out)], begin[i], end[i] + (begin[i] if offset else 0), stride[i], masks, i)
            gone = bool(masks.shrink >> i & 1)
            many = 1 if gone else len(range(first, last, stride[i]))
            take(first, 1 if gone else stride[i], many, gone=gone)
    for n in shape[len(out) :]:
        take(0, 1, n)
    begins, steps, counts, places = zip(*out, strict=True) if out else ((), (), (), ())
    if any(not 0 <= b < n for b, n, c in zip(begins, shape, counts, strict=True) if c):
        raise ValueError("a strided slice beyond its tensor")
    return StridedSlice(begins, steps, counts, places, tuple(sizes))


def _ends(size: int, begin: int, end: int, step: int, masks: Masks, i: int) -> tuple[int, int]:
    """Return the first entry and the one behind the last, as a range has them."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first, last = (min(max(n + size if n < 0 else n, low), high) for n in (begin, end))
    if masks.begin >> i & 1:
        first = 0 if step > 0 else size - 1
    if masks.end >> i & 1:
        last = size if step > 0 else -1
    return first, last


def cut(graph: GraphBuilder, x: int, what: StridedSlice, out: int) -> None:
    """Append the slice, into the tensor `out`, whose shape is that of what is taken."""
    counts, last = what.count, [b + (n - 1) * s + (1 if s > 0 else -1) for b, n, s in zip(what.begin, what.count, what.stride, strict=True)]
    # An end of -1 would be the last entry: the mask says that all to the start are taken.
    options = {1: flat.i32(sum(1 << i for i, n in enumerate(last) if n < 0))}
    numbers = [graph.constant_of([int(n) for n in v]) for v in (what.begin, last, what.stride)]
    part = graph.op(ops.STRIDED_SLICE, (x, *numbers), counts, options)
    graph.add_op(ops.RESHAPE, (part, graph.constant_of(what.shape)), [out], {0: flat.integers(what.shape)})


def put_back(graph: GraphBuilder, dy: int, what: StridedSlice, shape: Shape) -> int:
    """Return a tensor of `shape` that has dy where it was taken from, and zeros between."""
    dy, pads = graph.reshape(dy, what.count), []
    for axis, (begin, step) in enumerate(zip(what.begin, what.stride, strict=True)):
        have = list(graph.shape(dy))
        if step < 0 and have[axis] > 1:
            dy = graph.reverse(dy, axis)
            begin += (have[axis] - 1) * step
        if abs(step) > 1 and have[axis] > 1:
            behind = prod(have[axis + 1 :])
            wide = graph.pad(graph.reshape(dy, (prod(have[: axis + 1]), 1, behind)), [(0, 0), (0, abs(step) - 1), (0, 0)])
            wide = graph.reshape(wide, (*have[:axis], have[axis] * abs(step), *have[axis + 1 :]))
            have[axis] = (have[axis] - 1) * abs(step) + 1
            dy = graph.slice(wide, [0] * len(have), have)
        pads.append((begin, shape[axis] - begin - have[axis]))
    return graph.pad(dy, pads)
