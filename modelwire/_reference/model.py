"""A whole model's arrays, and an update applied to all of them: read first, then judged, then written."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modelwire.errors import IndexOutOfRange, KernelError, Malformed, ModelWireError, NonFinite, RangeOverflow, RootMismatch
from modelwire.limits import EXPONENT_MAX, EXPONENT_MIN, Q_MAX, STEP_SHIFT_MAX

from .arrays import Array, octets, take
from .coder import decode_sections
from .integrity import check_rounding, fingerprint_sparse
from .lattice import weights_at
from .planes import past_codes, rounded, stored_weights_at

_ROW = struct.Struct("<HBBBbHI")  # tensor, codec, m, j, exponent, reserved, count
_CODEC_RANGE = 1
_ENTRIES_PER_BYTE, _VIRTUAL_BYTES = 16_000, 4
_LATTICE, _VERBATIM = 0, 1
_BUCKETS = 256
_FLOAT32, _INT8, _INT32 = 1, 4, 5
_LANE = (1 << 64) - 1
Lanes: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Tensor:
    base: Array
    w: Array
    q: Array
    start: int
    end: int
    rows: int
    columns: int
    dtype: int
    kind: int


@dataclass(frozen=True, slots=True)
class _Row:
    tensor: int
    step: int
    exponent: int
    count: int


class Model:
    """The arrays of one model, checked once and held; model-wide kernels read and write them without asking again."""

    def __init__(
        self, base: Sequence[Array], w: Sequence[Array], q: Sequence[Array], *, dtypes: bytes, kinds: bytes,
        shapes: Sequence[tuple[int, int]],
    ) -> None:  # fmt: skip
        self.arrays = (tuple(base), tuple(w), tuple(q))
        if len({len(x) for x in (*self.arrays, dtypes, kinds, shapes)}) != 1:
            raise KernelError(what="model", reason="its lists are not of one length")
        self.tensors, start = [], 0
        for t, (rows, columns) in enumerate(shapes):
            if rows < 0 or columns < 0 or rows * columns > 0xFFFFFFFF:
                raise Malformed(what="section", reason="rows, columns and count do not fit together")
            n, held = rows * columns, np.int32 if dtypes[t] == _INT32 else np.float32
            if kinds[t] > _VERBATIM:  # planes move an exact tensor: to the kernels it has no entries
                none = np.zeros(0, np.int32)
                self.tensors.append(_Tensor(none, none, none, start, start + n, 0, 0, dtypes[t], kinds[t]))
                start += n
                continue
            arrays = (
                take("base", base[t], held, n=n),
                take("w", w[t], held, n=n, writable=True),
                take("q", q[t], np.int32, n=n, writable=True),
            )
            self.tensors.append(_Tensor(*arrays, start, start + n, rows, columns, dtypes[t], kinds[t]))
            start += n

    def holds(self, base: Sequence[Array], w: Sequence[Array], q: Sequence[Array]) -> bool:
        """Return whether these lists still have the very arrays that were taken."""
        given = (base, w, q)
        return all(
            len(g) == len(mine) and all(a is b for a, b in zip(g, mine, strict=True))
            for g, mine in zip(given, self.arrays, strict=True)
        )


def check_table(table: bytes | bytearray | memoryview, *, snapshot: bool) -> bool:
    """Return whether every row is a range-coded section in its one form and the tensors rise."""
    data = octets(table)
    try:
        _read_table(data, snapshot)
    except Malformed:
        return False
    return len(data) % _ROW.size == 0


def apply_stream(
    model: Model,
    exponents: Sequence[int],
    table: bytes | bytearray | memoryview,
    stream: bytes | bytearray | memoryview,
    *,
    snapshot: bool,
    lanes: Lanes,
    expect: Lanes | None = None,
    progress: Callable[[int], None] | None = None,
    counted: tuple[Array, Array, Array] | None = None,
) -> Lanes:
    """Apply an update and return the fingerprint after it; on any error nothing has changed."""
    data, coded = octets(table), octets(stream)
    if len(data) % _ROW.size or len(exponents) != len(model.tensors):
        raise KernelError(what="table", reason="its rows are not whole, or the exponents are not one a tensor")
    counts = None if counted is None else _counts(model, *counted)
    check_rounding()
    rows = _read_table(data, snapshot)
    _check_rows(model, exponents, rows, len(coded))
    tensors = [model.tensors[r.tensor] for r in rows]
    sections = decode_sections(coded, [(t.rows, t.columns, r.count) for t, r in zip(tensors, rows, strict=True)])
    after = (0, 0) if snapshot else lanes
    moves = []
    for row, t, (index, value) in zip(rows, tensors, sections, strict=True):
        before = np.zeros(len(index), np.int32) if snapshot else t.q[index]
        moves.append((t, index, *_moved(row, t, before, index, value)))
        part = fingerprint_sparse(index, value, step=row.step, start=t.start, verbatim=t.kind == _VERBATIM)
        after = (after[0] + part[0]) & _LANE, (after[1] + part[1]) & _LANE
    if expect is not None and after != (expect[0] & _LANE, expect[1] & _LANE):
        raise RootMismatch(what="the update", kind="fingerprint", device="DEVICE")
    if snapshot:
        for t in model.tensors:
            t.q[:] = 0
            t.w.view(np.uint32)[:] = t.base.view(np.uint32)
    for t, index, q, bits in moves:
        t.q[index] = q
        t.w.view(np.uint32)[index] = bits
    if counts is not None:
        codes, factors, sums = counts
        for row, t, (index, value) in zip(rows, tensors, sections, strict=True):
            factor = np.uint32(row.step * int(factors[row.tensor]) & 0xFFFFFFFF)
            code, moved = codes[t.start + index.astype(np.int64)], value.view(np.uint32) * factor
            np.add.at(sums, code % _BUCKETS, np.where(code & _BUCKETS, np.uint32(0) - moved, moved))
    if progress is not None:
        progress(len(coded))
    return after


def _counts(model: Model, codes: Array, factors: Array, sums: Array) -> tuple[Array, Array, Array]:
    last = model.tensors[-1] if model.tensors else None
    return (
        take("codes", codes, np.uint16, n=last.end if last else 0),
        take("factors", factors, np.uint32, n=len(model.tensors)),
        take("sums", sums, np.uint32, n=_BUCKETS, writable=True),
    )


def _read_table(data: bytes, snapshot: bool) -> list[_Row]:
    out: list[_Row] = []
    for tensor, codec, m, j, exponent, reserved, count in _ROW.iter_unpack(data[: len(data) // _ROW.size * _ROW.size]):
        sound = codec == _CODEC_RANGE and not reserved and m % 2 == 1 and j <= STEP_SHIFT_MAX
        sound = sound and EXPONENT_MIN <= exponent <= EXPONENT_MAX and (not out or tensor > out[-1].tensor)
        if not sound or (count == 0 and (not snapshot or (m, j) != (1, 0))):
            raise _bad_row(0)
        out.append(_Row(tensor, m << j, exponent, count))
    return out


def _bad_row(tensor: int) -> Malformed:
    return Malformed(what="section table", reason=f"the row of tensor {tensor} is not one of this wire, or not for its class")


def _check_rows(model: Model, exponents: Sequence[int], rows: Sequence[_Row], length: int) -> None:
    for row in rows:
        if row.tensor >= len(model.tensors):
            raise IndexOutOfRange(tensor=row.tensor, index=0, size=len(model.tensors))
        t = model.tensors[row.tensor]
        if row.count > len(t.base):
            raise IndexOutOfRange(tensor=row.tensor, index=row.count, size=len(t.base))
        if t.kind == _VERBATIM and (row.step != 1 or row.exponent):
            raise Malformed(what="section", reason=f"tensor {row.tensor} is verbatim and has a step or unit")
        if t.kind > _VERBATIM or (t.kind == _LATTICE and not _FLOAT32 <= t.dtype <= _INT8):
            raise _bad_row(row.tensor)
        if row.exponent != exponents[row.tensor]:
            raise Malformed(what="section", reason=f"tensor {row.tensor} has another unit than its parent")
    if sum(r.count for r in rows) > _ENTRIES_PER_BYTE * (length + _VIRTUAL_BYTES):
        raise Malformed(what="section table", reason="it counts more entries than its stream can hold")


def _moved(row: _Row, t: _Tensor, before: Array, index: Any, value: Any) -> tuple[Array, Array]:
    """Return Q and the bits of the weights at `index` after the update. Raises what the first entry at fault deserves."""
    base = t.base[index]
    if t.kind == _VERBATIM:
        difference = before.view(np.uint32) + value.view(np.uint32)
        bits: Array = base.view(np.uint32) + difference
        bad = np.zeros(len(bits), bool) if t.dtype == _INT32 else ~_storable(bits.view(np.float32), t.dtype)
        _raise_first(bad, lambda i: NonFinite(what="the weights", tensor=row.tensor, index=i), index)
        return difference.view(np.int32), bits
    moved = before.astype(np.int64) + value.astype(np.int64) * row.step
    over = np.abs(moved) > Q_MAX
    reached = np.where(over, 0, moved)
    weights = stored_weights_at(base, reached, row.exponent, t.dtype)
    unfit = ~np.isfinite(weights)
    past = unfit & past_codes(weights_at(base, reached, row.exponent), t.dtype)
    over, unfit = over | past, unfit & ~past
    first = np.argmax(over | unfit) if len(over) else 0
    if len(over) and over[first]:
        raise RangeOverflow(tensor=row.tensor, index=int(index[first]))
    _raise_first(unfit, lambda i: NonFinite(what="the weights", tensor=row.tensor, index=i), index)
    return moved.astype(np.int32), weights.view(np.uint32)


def _storable(w: Array, dtype: int) -> Array:
    """Return where weights are finite and have no more digits than their storage type."""
    with np.errstate(all="ignore"):
        same: Array = np.isfinite(w) & (rounded(w, dtype).view(np.uint32) == w.view(np.uint32))
    return same


def _raise_first(bad: Array, error: Callable[[int], ModelWireError], index: Any) -> None:
    if bad.any():
        raise error(int(index[np.argmax(bad)]))
