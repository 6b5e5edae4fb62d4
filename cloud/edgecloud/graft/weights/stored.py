"""Says how a file stores a weight, and what it is as float32: behind the operators that only widen it, or as a kernel takes it.

A weight behind DEQUANTIZE or DENSIFY is float32 for the layer, so a variable in its place computes the same. One that the layer itself
takes as int8, int4 or sparse goes through a kernel of another arithmetic: trained, such a layer becomes one of float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.graft.writing import ops
from modelwire.errors import ModelError
from modelwire.tflite.flatbuffer import I8, I32, U8, Table

from . import sparse

_BLOCKWISE = 2  # QuantizationDetails: BlockwiseQuantization
_CODES = {ops.INT8: "i1", ops.UINT8: "u1", ops.INT16: "<i2", ops.INT4: "u1"}
PLAIN = {
    ops.FLOAT32: "<f4", ops.FLOAT16: "<f2", ops.INT32: "<i4", ops.INT64: "<i8", ops.INT8: "i1", ops.UINT8: "u1", ops.INT16: "<i2",
    ops.BOOL: "?",
}  # fmt: skip


def constant(table: Table, shape: tuple[int, ...], type: int, place: tuple[int, int], name: str) -> NDArray[Any]:
    """Return a constant of the file as its type is, a sparse one made dense. table: the tensor's. place: where its buffer lies.

    Raises ModelError for one that can't be read, Malformed for one that contradicts itself.
    """
    start, size = place
    data = table.file.data
    count = int(np.prod(shape, dtype=np.int64))
    sparsity = table.table(6)
    if type == ops.INT4 and sparsity is None and size == (count + 1) // 2:
        packed = np.frombuffer(data, "u1", size, start)
        both = np.stack([packed << 4, packed & 0xF0], axis=1).astype("u1").view("i1") >> 4  # the lower half first, with its sign
        return both.reshape(-1)[:count].reshape(shape)
    dtype = np.dtype(PLAIN[type]) if type in PLAIN else None
    if dtype is None or (size % dtype.itemsize if sparsity is not None else size != count * dtype.itemsize):
        raise ModelError(model=name, reason="a constant of a type or size that can't be read")
    values = np.frombuffer(data, dtype, size // dtype.itemsize, start)
    return values.reshape(shape) if sparsity is None else sparse.dense(values, shape, sparsity)


def widened(value: NDArray[Any], table: Table, name: str) -> NDArray[np.float32]:
    """Return codes as the float32 that they stand for, to the bit as the kernels of DEQUANTIZE have it; floats are only widened.

    table: of the tensor that holds the codes. Raises ModelError where its scales do not fit it.
    """
    if value.dtype.kind == "f":
        return value.astype("<f4")
    why = refused(table)
    if why:
        raise ModelError(model=name, reason=why)
    scales, zeros = _numbers(table, 2, "<f4"), _numbers(table, 3, "<i8")
    zeros = zeros if zeros.size else np.zeros(1, np.int64)
    if scales.size > 1:
        quantization = table.table(4)
        axis = 0 if quantization is None else quantization.integer(6, I32)
        if not 0 <= axis < value.ndim or value.shape[axis] != scales.size or zeros.size not in (1, scales.size):
            raise ModelError(model=name, reason=f"{scales.size} scales for {list(value.shape)}")
        along = tuple(-1 if i == axis else 1 for i in range(value.ndim))
        scales, zeros = scales.reshape(along), zeros.reshape(along if zeros.size > 1 else (1,) * value.ndim)
    # A product of a float32 and a difference of codes is exact in float64, so it is rounded once, as in the kernels.
    out: NDArray[np.float32] = (scales.astype(np.float64) * (value.astype(np.int64) - zeros)).astype("<f4")
    if not np.isfinite(out).all():
        raise ModelError(model=name, reason="codes that stand for no finite numbers")
    return out


def refused(table: Table) -> str:
    """Return why codes can't be made float32 numbers; empty when they can."""
    type, quantization = table.integer(1, I8), table.table(4)
    if type not in _CODES:
        return f"{ops.TYPE_NAMES.get(type, 'a type of its own')} is no kind of weight that can be made float32"
    if quantization is None or not quantization.vector(2, 4).count:
        blockwise = quantization is not None and quantization.integer(4, U8) == _BLOCKWISE
        return "its weights are quantized in blocks (blockwise), which are not read" if blockwise else "its codes have no scale"
    if quantization.integer(4, U8) == _BLOCKWISE:
        return "its weights are quantized in blocks (blockwise), which are not read"
    scales = _numbers(table, 2, "<f4")
    return "" if np.isfinite(scales).all() and (scales > 0).all() else "a scale of its codes is no positive number"


def _numbers(table: Table, number: int, dtype: str) -> NDArray[Any]:
    quantization = table.table(4)
    assert quantization is not None  # `refused` has seen to it
    v = quantization.vector(number, np.dtype(dtype).itemsize)
    return np.frombuffer(table.file.data, dtype, v.count, v.start)
