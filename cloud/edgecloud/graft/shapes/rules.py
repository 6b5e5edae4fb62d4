"""The shape of what each operator gives, as the runtimes' own Prepare functions have it: a rule is one function for one kind of operator.

Source: tensorflow/lite/kernels, and the schema for the numbers of options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from edgecloud.graft.writing import ops

from .at import At, OpenShapeError, Shape

Rule = Callable[[At], Sequence[Shape]]
RULES: dict[int, Rule] = {}
REDUCES = (ops.MEAN, ops.SUM, ops.REDUCE_PROD, ops.REDUCE_MAX, ops.REDUCE_MIN, ops.REDUCE_ANY, ops.REDUCE_ALL)
ALIKE = (
    ops.DEQUANTIZE, ops.FLOOR, ops.L2_NORMALIZATION, ops.LOCAL_RESPONSE_NORMALIZATION, ops.LOGISTIC, ops.RELU, ops.RELU_N1_TO_1, ops.RELU6,
    ops.SOFTMAX, ops.TANH, ops.EXP, ops.LOG_SOFTMAX, ops.CAST, ops.NEG, ops.SIN, ops.COS, ops.LOG, ops.SQRT, ops.RSQRT, ops.FAKE_QUANT,
    ops.LOGICAL_NOT, ops.SQUARE, ops.ZEROS_LIKE, ops.LEAKY_RELU, ops.ABS, ops.CEIL, ops.REVERSE_V2, ops.ADD_N, ops.ELU,
    ops.REVERSE_SEQUENCE, ops.QUANTIZE, ops.MATRIX_SET_DIAG, ops.ROUND, ops.HARD_SWISH, ops.DENSIFY, ops.CUMSUM, ops.IMAG, ops.REAL,
    ops.COMPLEX_ABS, ops.BUCKETIZE, ops.GELU, ops.DYNAMIC_UPDATE_SLICE, ops.RELU_0_TO_1, ops.SIGN, ops.PRELU,
)  # fmt: skip
BROADCASTING = (
    ops.ADD, ops.MUL, ops.SUB, ops.DIV, ops.MAXIMUM, ops.MINIMUM, ops.LESS, ops.GREATER, ops.GREATER_EQUAL, ops.LESS_EQUAL, ops.EQUAL,
    ops.NOT_EQUAL, ops.POW, ops.LOGICAL_OR, ops.LOGICAL_AND, ops.FLOOR_DIV, ops.FLOOR_MOD, ops.SQUARED_DIFFERENCE, ops.SELECT_V2,
    ops.ATAN2, ops.BITWISE_XOR, ops.RIGHT_SHIFT,
)  # fmt: skip


def rule(*codes: int) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(codes, function))
        return function

    return register


def dims(shape: Sequence[int]) -> Shape:
    """Return a shape that values gave. Raises ValueError for a negative size."""
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape of {list(shape)[:8]}")
    return tuple(int(n) for n in shape)


@rule(*ALIKE)
def alike(at: At) -> Sequence[Shape]:
    return [at.shape()]


@rule(*BROADCASTING)
def broadcasting(at: At) -> Sequence[Shape]:
    return [tuple(np.broadcast_shapes(*(at.shape(i) for i in range(len(at.op.inputs)))))]


@rule(ops.SELECT)
def select(at: At) -> Sequence[Shape]:
    return [at.shape(1)]


# Windows.


def windows(n: int, size: int, stride: int, dilation: int, padding: int) -> int:
    """Return how many windows fit along one axis."""
    span = (size - 1) * dilation + 1
    count = -(-n // stride) if padding == ops.SAME else -(-(n - span + 1) // stride)
    if min(size, stride, dilation, count) < 1 or padding not in (ops.SAME, ops.VALID):
        raise ValueError(f"windows of {size} over {n} entries")
    return count


@rule(ops.CONV_2D, ops.DEPTHWISE_CONV_2D)
def conv(at: At) -> Sequence[Shape]:
    (batch, height, width, _), kernel, op = at.shape(), at.shape(1), at.op
    deep = op.code == ops.DEPTHWISE_CONV_2D  # its depth multiplier stands between strides and dilations
    _, down, across, _ = kernel
    padding = op.option(0, small=True)
    rows = windows(height, down, op.option(2), op.option(5 + deep, 1), padding)
    columns = windows(width, across, op.option(1), op.option(4 + deep, 1), padding)
    return [(batch, rows, columns, kernel[3 if deep else 0])]


@rule(ops.AVERAGE_POOL_2D, ops.MAX_POOL_2D, ops.L2_POOL_2D)
def pool(at: At) -> Sequence[Shape]:
    (batch, height, width, channels), op = at.shape(), at.op
    padding = op.option(0, small=True)
    rows = windows(height, op.option(4), op.option(2), 1, padding)
    return [(batch, rows, windows(width, op.option(3), op.option(1), 1, padding), channels)]


@rule(ops.CONV_3D)
def conv_3d(at: At) -> Sequence[Shape]:
    (batch, *sizes, _), kernel, op = at.shape(), at.shape(1), at.op
    strides, dilations = ((op.option(1), op.option(3), op.option(2)), (op.option(5, 1), op.option(7, 1), op.option(6, 1)))
    along = zip(sizes, kernel[:3], strides, dilations, strict=True)
    return [(batch, *(windows(n, k, s, d, op.option(0, small=True)) for n, k, s, d in along), kernel[4])]


@rule(ops.TRANSPOSE_CONV, ops.CONV_3D_TRANSPOSE, ops.FILL, ops.RANDOM_STANDARD_NORMAL, ops.RANDOM_UNIFORM)
def as_the_first_says(at: At) -> Sequence[Shape]:
    return [dims(at.values(0))]


@rule(ops.RESIZE_BILINEAR, ops.RESIZE_NEAREST_NEIGHBOR)
def resize(at: At) -> Sequence[Shape]:
    batch, _, _, channels = at.shape()
    height, width = at.values(1)
    return [dims((batch, height, width, channels))]


@rule(ops.SPACE_TO_DEPTH, ops.DEPTH_TO_SPACE)
def space_and_depth(at: At) -> Sequence[Shape]:
    (batch, height, width, channels), block = at.shape(), at.op.option(0)
    if at.op.code == ops.SPACE_TO_DEPTH:
        return [(batch, height // block, width // block, channels * block * block)]
    return [(batch, height * block, width * block, channels // (block * block))]


@rule(ops.SPACE_TO_BATCH_ND, ops.BATCH_TO_SPACE_ND)
def space_and_batch(at: At) -> Sequence[Shape]:
    (batch, *rest), blocks = at.shape(), at.values(1)
    pairs = np.asarray(at.array(2)).reshape(-1, 2)
    sizes, times = [int(n) for n in rest], prod(blocks)
    for i, (block, (before, after)) in enumerate(zip(blocks, pairs.tolist(), strict=True)):
        if at.op.code == ops.SPACE_TO_BATCH_ND:
            sizes[i] = (sizes[i] + before + after) // block
        else:
            sizes[i] = sizes[i] * block - before - after
    return [dims((batch * times if at.op.code == ops.SPACE_TO_BATCH_ND else batch // times, *sizes))]


# Products.


@rule(ops.FULLY_CONNECTED)
def dense(at: At) -> Sequence[Shape]:
    x, (gives, takes) = at.shape(), at.shape(1)
    if x and at.op.option(2, small=True):
        return [(*x[:-1], gives)]
    rows, rest = divmod(prod(x), takes)
    if rest:
        raise ValueError(f"{list(x)} in rows of {takes}")
    return [(rows, gives)]


@rule(ops.BATCH_MATMUL)
def batch_matmul(at: At) -> Sequence[Shape]:
    a, b, op = at.shape(0), at.shape(1), at.op
    rows = a[-1] if op.option(0, small=True) else a[-2]
    columns = b[-2] if op.option(1, small=True) else b[-1]
    return [(*np.broadcast_shapes(a[:-2], b[:-2]), rows, columns)]


# Layouts.


@rule(ops.RESHAPE)
def reshape(at: At) -> Sequence[Shape]:
    x = at.shape()
    to = at.values(1) if at.has(1) else _listed(at)
    if to == [0] and x == ():
        to = []  # older converters write a scalar so
    fixed = prod(n for n in to if n != -1)
    if to.count(-1) == 1:
        to[to.index(-1)] = prod(x) // fixed if fixed else 0
    if prod(to) != prod(x):
        raise ValueError(f"{list(x)} as {to}")
    return [dims(to)]


def _listed(at: At) -> list[int]:
    if at.op.options is None:
        raise OpenShapeError
    return list(at.op.options.integers(0))


@rule(ops.SQUEEZE)
def squeeze(at: At) -> Sequence[Shape]:
    x = at.shape()
    named = {at.axis(i, len(x)) for i in (_listed(at) if at.op.options is not None else [])}
    gone = named or {i for i, n in enumerate(x) if n == 1}
    if any(x[i] != 1 for i in gone):
        raise ValueError(f"axes {sorted(gone)} of {list(x)} are not 1")
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


@rule(ops.EXPAND_DIMS)
def expand_dims(at: At) -> Sequence[Shape]:
    x = list(at.shape())
    x.insert(at.axis(at.value(1), len(x) + 1), 1)
    return [tuple(x)]


@rule(ops.TRANSPOSE)
def transpose(at: At) -> Sequence[Shape]:
    x, order = at.shape(), at.values(1)
    order = [at.axis(i, len(x)) for i in order]
    if sorted(order) != list(range(len(x))):
        raise ValueError(f"the order {order} of {len(x)} axes")
    return [tuple(x[i] for i in order)]


@rule(ops.SHAPE)
def shape_of(at: At) -> Sequence[Shape]:
    return [(len(at.shape()),)]


@rule(ops.RANK)
def rank(at: At) -> Sequence[Shape]:
    at.shape()
    return [()]


@rule(ops.PAD, ops.PADV2, ops.MIRROR_PAD)
def pad(at: At) -> Sequence[Shape]:
    x, pads = at.shape(), np.asarray(at.array(1)).reshape(-1, 2).tolist()
    return [dims([n + before + after for n, (before, after) in zip(x, pads, strict=True)])]


@rule(ops.TILE)
def tile(at: At) -> Sequence[Shape]:
    return [dims([n * times for n, times in zip(at.shape(), at.values(1), strict=True)])]


@rule(ops.BROADCAST_TO)
def broadcast_to(at: At) -> Sequence[Shape]:
    to = dims(at.values(1))
    if tuple(np.broadcast_shapes(at.shape(), to)) != to:
        raise ValueError(f"{list(at.shape())} over {list(to)}")
    return [to]


@rule(ops.BROADCAST_ARGS)
def broadcast_args(at: At) -> Sequence[Shape]:
    return [(max(at.shape(0)[0], at.shape(1)[0]),)]


@rule(ops.PACK)
def pack(at: At) -> Sequence[Shape]:
    parts = [at.shape(i) for i in range(len(at.op.inputs))]
    if len(set(parts)) != 1:
        raise ValueError("parts of several shapes")
    shape = list(parts[0])
    shape.insert(at.axis(at.op.option(1), len(shape) + 1), len(parts))
    return [tuple(shape)]


@rule(ops.UNPACK)
def unpack(at: At) -> Sequence[Shape]:
    x = at.shape()
    along = at.axis(at.op.option(1), len(x))
    if x[along] != len(at.op.outputs):
        raise ValueError(f"{x[along]} parts for {len(at.op.outputs)} outputs")
    return [x[:along] + x[along + 1 :]] * len(at.op.outputs)


@rule(ops.CONCATENATION)
def concatenate(at: At) -> Sequence[Shape]:
    parts = [at.shape(i) for i in range(len(at.op.inputs))]
    along = at.axis(at.op.option(0), len(parts[0]))
    if len({(*p[:along], 0, *p[along + 1 :]) for p in parts}) != 1:
        raise ValueError("parts that do not fit")
    return [(*parts[0][:along], sum(p[along] for p in parts), *parts[0][along + 1 :])]


@rule(ops.SPLIT, ops.SPLIT_V)
def split(at: At) -> Sequence[Shape]:
    count = len(at.op.outputs)
    if at.op.code == ops.SPLIT:
        x, along = at.shape(1), at.axis(at.value(0), len(at.shape(1)))
        if x[along] % count:
            raise ValueError(f"{x[along]} in {count} parts")
        sizes = [x[along] // count] * count
    else:
        x, along, sizes = at.shape(0), at.axis(at.value(2), len(at.shape(0))), at.values(1)
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = x[along] - sum(sizes) - 1
        if len(sizes) != count or sum(sizes) != x[along]:
            raise ValueError(f"{x[along]} in parts of {sizes[:8]}")
    return [dims((*x[:along], n, *x[along + 1 :])) for n in sizes]


@rule(ops.SLICE)
def slice_(at: At) -> Sequence[Shape]:
    along = list(zip(at.shape(), at.values(1), at.values(2), strict=True))
    sizes = [n - begin if size == -1 else size for n, begin, size in along]
    if any(begin < 0 or begin + size > n for (n, begin, _), size in zip(along, sizes, strict=True)):
        raise ValueError("a slice beyond its tensor")
    return [dims(sizes)]


def taken(at: At) -> tuple[list[slice | int | None], Shape]:
    """Return what a STRIDED_SLICE takes as numpy's index, and the shape that this gives. One place per entry of its vectors."""
    x, op = at.shape(), at.op
    begin, end, stride = (at.values(i) for i in (1, 2, 3))
    begins, ends, ellipsis, new, shrinks = (op.option(i) for i in range(5))
    index: list[slice | int | None] = []
    shape: list[int] = []
    axis = 0
    named = sum(not (new >> i & 1 or ellipsis >> i & 1) for i in range(len(begin)))
    for i, (first, last, step) in enumerate(zip(begin, end, stride, strict=True)):
        if ellipsis >> i & 1:
            rest = len(x) - named
            index += [slice(None)] * rest
            shape += x[axis : axis + rest]
            axis += rest
            continue
        if new >> i & 1:
            index.append(None)
            shape.append(1)
            continue
        n = x[axis]
        axis += 1
        if shrinks >> i & 1:
            if step < 1:
                raise ValueError("one entry taken backwards")
            index.append(0 if begins >> i & 1 else at.axis(first, n))
            continue
        if op.option(5, small=True):
            last += first
        cut = slice(None if begins >> i & 1 else first, None if ends >> i & 1 else last, step)
        index.append(cut)
        shape.append(len(range(*cut.indices(n))))
    return index, (*shape, *x[axis:])


@rule(ops.STRIDED_SLICE)
def strided_slice(at: At) -> Sequence[Shape]:
    return [taken(at)[1]]
