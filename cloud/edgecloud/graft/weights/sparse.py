"""Makes a sparse constant dense: TFLite's format of levels in a traversal order, dense or compressed, with blocks behind the tensor's axes.

Source: the schema's SparsityParameters, and the runtime's own `FormatConverter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire import limits
from modelwire.tflite.flatbuffer import I8, I32, U8, Table

_VECTORS = {1: "<i4", 2: "<u2", 3: "u1"}  # SparseIndexVector: Int32Vector, Uint16Vector, Uint8Vector
_CSR = 1  # DimensionType


@dataclass(frozen=True, slots=True)
class _Level:
    """One axis in the order in which the values lie: its size where it is dense, else where the entries of each one before it are."""

    size: int
    segments: NDArray[np.int64] | None
    indices: NDArray[np.int64] | None


def dense(values: NDArray[Any], shape: tuple[int, ...], sparsity: Table) -> NDArray[Any]:
    """Return the tensor of this shape. values: what the file holds of it, flat. sparsity: its table.

    Raises Malformed where the table does not describe exactly these values of such a tensor.
    """
    rank = len(shape)
    order, blocks = sparsity.integers(0), sparsity.integers(1)
    levels = [_level(t) for t in sparsity.tables(2)]

    def need(holds: object, what: str) -> None:
        if not holds:
            raise sparsity.file.malformed(f"a sparse tensor of the shape {list(shape)} {what}")

    need(rank and 0 < prod(shape) <= limits.DEFAULT.elements, "holds nothing or too much")
    need(len(set(blocks)) == len(blocks) and all(0 <= axis < rank for axis in blocks), f"has blocks along the axes {list(blocks)[:8]}")
    need(sorted(order[:rank]) == list(range(rank)), "does not lie in an order of its axes")
    need(sorted(order[rank:]) == list(range(rank, rank + len(blocks))) and len(levels) == len(order), "has other blocks than it names")
    block = {blocks[order[rank + i] - rank]: level.size for i, level in enumerate(levels[rank:])}
    need(all(size > 0 and shape[axis] % size == 0 for axis, size in block.items()), "is not a whole number of blocks")
    sizes = [shape[axis] // block.get(axis, 1) for axis in order[:rank]] + [level.size for level in levels[rank:]]
    at: list[NDArray[np.int64]] = []  # where each value stands on each level
    before = np.zeros(1, np.int64)  # the number of the entry on the level before
    for level, size in zip(levels, sizes, strict=True):
        if level.segments is None or level.indices is None:
            need(level.size == size, f"has an axis of {level.size} where {size} are")
            need(len(before) * size <= prod(shape), "repeats itself")
            repeats = np.full(len(before), size, np.int64)
            here = np.tile(np.arange(size, dtype=np.int64), len(before))
            number = np.repeat(before, size) * size + here
        else:
            segments, indices = level.segments, level.indices
            need(len(segments) == int(before.max(initial=-1)) + 1, f"has {len(segments)} segments where {len(before)} end")
            rising = segments.size == 0 or (segments[-1] == len(indices) and (np.diff(segments, prepend=0) >= 0).all())
            need(rising, "has segments that fall, or end elsewhere than its entries")
            need(len(indices) <= prod(shape) and (indices < size).all() and (indices >= 0).all(), "has an index beyond its axis")
            repeats = np.diff(segments, prepend=0)[before]
            number = np.arange(len(indices), dtype=np.int64)
            here = indices
        at = [np.repeat(places, repeats) for places in at] + [here]
        before = number
    need(len(before) == len(values), f"holds {len(values)} values where {len(before)} are named")
    places = [np.zeros(len(values), np.int64)] * rank
    for i, axis in enumerate(order[:rank]):
        places[axis] = at[i]
    for i, number_of in enumerate(order[rank:]):
        axis = blocks[number_of - rank]
        places[axis] = places[axis] * levels[rank + i].size + at[rank + i]
    flat = np.ravel_multi_index(places, shape)
    need(len(np.unique(flat)) == len(flat), "gives an entry twice")
    out = np.zeros(prod(shape), values.dtype)
    out[flat] = values
    return out.reshape(shape)


def _level(table: Table) -> _Level:
    if table.integer(0, I8) != _CSR:
        return _Level(table.integer(1, I32), None, None)
    segments, indices = _vector(table, 2), _vector(table, 4)
    if not len(segments) or segments[0] != 0:
        raise table.file.malformed("the segments of a sparse axis do not begin at 0")
    return _Level(0, segments[1:], indices)


def _vector(table: Table, number: int) -> NDArray[np.int64]:
    """Return the vector in the union whose type has this number in the table."""
    kind, inner = table.integer(number, U8), table.table(number + 1)
    if kind not in _VECTORS or inner is None:
        raise table.file.malformed("a sparse axis without its vectors")
    dtype = np.dtype(_VECTORS[kind])
    v = inner.vector(0, dtype.itemsize)
    table.file.spend(v.count)
    return np.frombuffer(table.file.data, dtype, v.count, v.start).astype(np.int64)
