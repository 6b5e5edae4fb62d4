"""Computes what depends on shapes and constants alone: the chains by which converters pass sizes on, and constants laid out anew.

Arithmetic is done for integers and truth values only, where every processor gives the same; float32 is moved, never computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from edgecloud.graft.writing import ops

from .at import Array, At, OpenShapeError, Shape
from .rules import taken

ENTRIES = 1 << 14  # of a value that is computed here: sizes, axes, states to begin with, positions
_DTYPES = {ops.FLOAT32: "<f4", ops.INT32: "<i4", ops.INT64: "<i8", ops.BOOL: "?", ops.INT8: "i1", ops.UINT8: "u1"}
_WHOLE = (ops.INT32, ops.INT64, ops.BOOL)
_BINARY: dict[int, Callable[[Array, Array], Array]] = {
    ops.ADD: np.add, ops.SUB: np.subtract, ops.MUL: np.multiply, ops.FLOOR_DIV: np.floor_divide, ops.FLOOR_MOD: np.mod,
    ops.MAXIMUM: np.maximum, ops.MINIMUM: np.minimum, ops.LESS: np.less, ops.GREATER: np.greater, ops.LESS_EQUAL: np.less_equal,
    ops.GREATER_EQUAL: np.greater_equal, ops.EQUAL: np.equal, ops.NOT_EQUAL: np.not_equal, ops.LOGICAL_AND: np.logical_and,
    ops.LOGICAL_OR: np.logical_or, ops.DIV: lambda a, b: np.trunc(np.true_divide(a, b)).astype(a.dtype),
}  # fmt: skip
_REDUCES: dict[int, Callable[..., Array]] = {
    ops.REDUCE_PROD: np.prod, ops.SUM: np.sum, ops.REDUCE_MAX: np.max, ops.REDUCE_MIN: np.min, ops.REDUCE_ANY: np.any,
    ops.REDUCE_ALL: np.all,
}  # fmt: skip
_UNARY: dict[int, Callable[[Array], Array]] = {ops.NEG: np.negative, ops.ABS: np.abs, ops.LOGICAL_NOT: np.logical_not}
_RELAYS = (ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS)


def fold(at: At, shapes: Sequence[Shape]) -> list[Array] | None:
    """Return the values of an operator's outputs, whose shapes are given; None where a run has to tell them."""
    outputs = [at.tensors[t] for t in at.op.outputs]
    if any(prod(shape) > ENTRIES for shape in shapes) or any(t.type not in _DTYPES or t.scales for t in outputs):
        return None
    try:
        with np.errstate(all="ignore"):
            found = _values(at, shapes)
    except OpenShapeError:
        return None
    if found is None:
        return None
    return [np.asarray(v, _DTYPES[t.type]).reshape(shape) for v, t, shape in zip(found, outputs, shapes, strict=True)]


def _values(at: At, shapes: Sequence[Shape]) -> Sequence[Array] | None:
    code = at.op.code
    if code == ops.SHAPE:
        return [np.array(at.shape(), np.int64)]
    if code == ops.RANK:
        return [np.array(len(at.shape()), np.int64)]
    if code == ops.ZEROS_LIKE:
        return [np.zeros(shapes[0], np.int64)]
    if code == ops.BROADCAST_ARGS:
        return [np.array(np.broadcast_shapes(tuple(at.values(0)), tuple(at.values(1))), np.int64)]
    moved = _moved(at, shapes)
    return moved if moved is not None else _computed(at)


def _moved(at: At, shapes: Sequence[Shape]) -> Sequence[Array] | None:
    """Return entries that are only put elsewhere, of any type."""
    op, code = at.op, at.op.code
    if code in _RELAYS:
        return [at.array(0)]
    if code == ops.STRIDED_SLICE:
        return [at.array(0)[tuple(taken(at)[0])]]
    if code == ops.SLICE:
        places = tuple(slice(b, b + n) for b, n in zip(at.values(1), shapes[0], strict=True))
        return [at.array(0)[places]]
    if code == ops.PACK:
        return [np.stack([at.array(i) for i in range(len(op.inputs))], op.option(1))]
    if code == ops.UNPACK:
        return [np.take(at.array(0), i, op.option(1)) for i in range(len(op.outputs))]
    if code == ops.CONCATENATION:
        return [np.concatenate([at.array(i) for i in range(len(op.inputs))], op.option(0))] if not op.fused else None
    if code in (ops.SPLIT, ops.SPLIT_V):
        x, along = (at.array(1), at.value(0)) if code == ops.SPLIT else (at.array(0), at.value(2))
        return np.split(x, np.cumsum([shape[along] for shape in shapes])[:-1], along)
    if code == ops.GATHER and not op.option(1):
        return [np.take(at.array(0), _inside(at.array(1), at.array(0).shape[op.option(0)]), op.option(0))]
    if code == ops.TRANSPOSE:
        return [np.transpose(at.array(0), at.values(1))]
    if code == ops.TILE:
        return [np.tile(at.array(0), at.values(1))]
    if code == ops.BROADCAST_TO:
        return [np.broadcast_to(at.array(0), shapes[0])]
    if code == ops.FILL:
        return [np.full(shapes[0], at.array(1).item())]
    if code == ops.REVERSE_V2:
        return [np.flip(at.array(0), tuple(at.values(1)))]
    if code in (ops.SELECT, ops.SELECT_V2):
        return [np.where(*(at.array(i) for i in range(3)))] if code == ops.SELECT_V2 or at.shape(0) == at.shape(1) else None
    return None


def _inside(places: Array, size: int) -> Array:
    if places.size and (places.min() < 0 or places.max() >= size):
        raise ValueError("a place beyond its tensor")
    return places


def _computed(at: At) -> Sequence[Array] | None:
    """Return what is computed from whole numbers and truth values."""
    op, code = at.op, at.op.code
    if code == ops.CAST:
        x = at.array(0)
        return [x] if np.isfinite(x).all() and np.abs(x.astype(np.float64)).max(initial=0) < 2**31 else None
    if any(t < 0 or at.tensors[t].type not in _WHOLE or at.tensors[t].scales for t in op.inputs) or op.fused:
        return None
    if code in _BINARY:
        a, b = at.array(0), at.array(1)
        if code in (ops.FLOOR_DIV, ops.FLOOR_MOD, ops.DIV) and not np.all(b):
            return None
        return [_BINARY[code](a, b)]
    if code in _UNARY:
        return [_UNARY[code](at.array(0))]
    if code in _REDUCES:
        axes = tuple({i % at.array(0).ndim for i in at.values(1)})
        if code in (ops.REDUCE_MAX, ops.REDUCE_MIN) and not at.array(0).size:
            return None
        return [_REDUCES[code](at.array(0), axis=axes)]
    if code == ops.RANGE:
        return [np.arange(*(at.array(i).item() for i in range(3)))]
    return None
