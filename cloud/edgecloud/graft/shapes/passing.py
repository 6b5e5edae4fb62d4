"""Finds where the batch goes in operators that work along an axis of their own: look-ups, sums along steps, reversals, and the like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgecloud.graft.writing import ops

if TYPE_CHECKING:
    from edgecloud.graft.stock import Op, Stock

# Operators whose every entry depends on the entries in the same place alone.
POINTWISE = frozenset((
    ops.ELU, ops.GELU, ops.RELU_0_TO_1, ops.SIN, ops.COS, ops.POW, ops.FLOOR, ops.CEIL, ops.ROUND, ops.SIGN, ops.FLOOR_DIV, ops.FLOOR_MOD,
    ops.NOT_EQUAL, ops.LESS_EQUAL, ops.LOGICAL_OR, ops.LOGICAL_NOT, ops.ADD_N,
))  # fmt: skip
Refuse = Callable[[str], Exception]
ACROSS = "mixes what belongs to different samples of a batch"


def _along(axis: int, along: Sequence[int], refuse: Refuse) -> int:
    if axis in along:
        raise refuse("works along the axis of the batch")
    return axis


def _cumsum(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    rank = len(stock.tensors[op.inputs[0]].shape)
    if not stock.holds(op.inputs[1]):
        raise refuse("works along an axis that is not known before it runs")
    along = [int(i) % rank for i in np.atleast_1d(stock.value(op.inputs[1]))]
    return _along(_only(op.inputs[0], axes, refuse), along, refuse)


def _last(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    return _along(_only(op.inputs[0], axes, refuse), [len(stock.tensors[op.inputs[0]].shape) - 1], refuse)


def _only(tensor: int, axes: Sequence[int | None], refuse: Refuse) -> int:
    """Return the batch's axis of the one input that may have it."""
    axis = axes[tensor]
    if axis is None or axis < 0:
        raise refuse(ACROSS)
    return axis


def _reverse_sequence(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    along, by = op.option(0), op.option(1)
    axis = _along(_only(op.inputs[0], axes, refuse), [along], refuse)
    if axes[op.inputs[1]] is not None and axis != by:
        raise refuse(ACROSS)
    return axis


def _one_hot(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    axis, along = _only(op.inputs[0], axes, refuse), op.option(0)
    return axis + (0 <= along <= axis)


def shared_axes(stock: Stock, op: Op) -> int:
    """Return how many leading axes the parameters and the indices of a GATHER share, entry by entry."""
    rank = len(stock.tensors[op.inputs[1]].shape)
    return op.option(1) % rank if op.option(1) else 0


def _gather(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    (taken, indices), shared = op.inputs[:2], shared_axes(stock, op)
    along = op.option(0) % len(stock.tensors[taken].shape)
    of, by = axes[taken], axes[indices]
    if (of is not None and of < 0) or (by is not None and by < 0) or of == along:
        raise refuse(ACROSS)
    if of is None:
        assert by is not None
        return by if by < shared else along + by - shared
    if by is None:
        return of if of < along else of - 1 + len(stock.tensors[indices].shape) - shared
    if of != by or of >= shared:
        raise refuse(ACROSS)
    return of


def _gather_nd(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    taken, indices = op.inputs
    of, by = axes[taken], axes[indices]
    lead = len(stock.tensors[indices].shape) - 1
    if of is None and by is not None and 0 <= by < lead:
        return by
    deep = stock.tensors[indices].shape[-1]
    if by is not None or of is None or of < deep:
        raise refuse(ACROSS)
    return lead + of - deep


def _embedding(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    if axes[op.inputs[1]] is not None:
        raise refuse(ACROSS)
    return _only(op.inputs[0], axes, refuse)


def _never(stock: Stock, op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    raise refuse(ACROSS)


Passing = Callable[["Stock", "Op", Sequence[int | None], Refuse], int]
PASSES: Mapping[int, Passing] = {
    ops.CUMSUM: _cumsum, ops.REVERSE_V2: _cumsum, ops.L2_NORMALIZATION: _last, ops.TOPK_V2: _last, ops.REVERSE_SEQUENCE: _reverse_sequence,
    ops.LOCAL_RESPONSE_NORMALIZATION: _last, ops.ONE_HOT: _one_hot, ops.GATHER: _gather, ops.GATHER_ND: _gather_nd,
    ops.EMBEDDING_LOOKUP: _embedding,
    # What they give depends on all that they are given, or its shape on what the numbers are.
    **dict.fromkeys((
        ops.UNIQUE, ops.WHERE, 118, 119, ops.NON_MAX_SUPPRESSION_V4, ops.NON_MAX_SUPPRESSION_V5, ops.SCATTER_ND, ops.SEGMENT_SUM,
        ops.DYNAMIC_UPDATE_SLICE, ops.SPARSE_TO_DENSE, ops.UNSORTED_SEGMENT_PROD, ops.UNSORTED_SEGMENT_MAX, ops.UNSORTED_SEGMENT_SUM,
        ops.UNSORTED_SEGMENT_MIN,
    ), _never),
}  # fmt: skip


def computed_weights(stock: Stock, op: Op, axes: Sequence[int | None]) -> bool:
    """Return whether a FULLY_CONNECTED multiplies with weights that each sample has its own of: attention, as some converters write it."""
    return op.code == ops.FULLY_CONNECTED and axes[op.inputs[1]] is not None


def product_axis(op: Op, axes: Sequence[int | None], refuse: Refuse) -> int:
    """Return where the batch goes in such a product: both sides must have the samples one behind the other."""
    bias = axes[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    if axes[op.inputs[0]] != 0 or axes[op.inputs[1]] != 0 or bias is not None:
        raise refuse(ACROSS)
    return 0
