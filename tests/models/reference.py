"""Runs a stock file in float64 with JAX, operator by operator and one sample at a time: grafts are held against its gradients.

It shares with the grafts neither gradients, nor batches, nor shapes: each operator is written here from the description of TFLite, and the
shape of a tensor is what its operator gives. JAX is no part of the product: the evidence of the zoo installs it (`.[reference]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from edgecloud.graft.stock import Op, Stock

jax.config.update("jax_enable_x64", True)

Apply = Callable[[Op, list[Any]], Any]
OPERATORS: dict[str, Apply] = {}
_FLOATS = {0: np.float64, 1: np.float64, 10: np.float64}  # float32, float16 and float64 are all computed as float64
_TYPES = {2: np.int32, 3: np.uint8, 4: np.int64, 6: np.bool_, 7: np.int16, 9: np.int8, **_FLOATS}
PADDING = {0: "SAME", 1: "VALID"}
FUSED: dict[int, Callable[[Any], Any]] = {
    0: lambda x: x, 1: jax.nn.relu, 2: lambda x: jnp.clip(x, -1.0, 1.0), 3: jax.nn.relu6, 4: jnp.tanh,
}  # fmt: skip


class Unknown(Exception):
    """The file holds an operator that this reference does not compute."""


def register(*names: str) -> Callable[[Apply], Apply]:
    def keep(apply: Apply) -> Apply:
        OPERATORS.update(dict.fromkeys(names, apply))
        return apply

    return keep


def whole(value: Any) -> list[int]:
    """Return the entries of a tensor that says where or how large: it never depends on a weight."""
    return [int(i) for i in np.asarray(value).reshape(-1)]


UNARY: dict[str, Callable[[Any], Any]] = {
    "RELU": jax.nn.relu, "RELU6": jax.nn.relu6, "RELU_N1_TO_1": FUSED[2], "RELU_0_TO_1": lambda x: jnp.clip(x, 0.0, 1.0),
    "TANH": jnp.tanh, "LOGISTIC": jax.nn.sigmoid, "EXP": jnp.exp, "LOG": jnp.log, "NEG": jnp.negative, "ABS": jnp.abs,
    "SQRT": jnp.sqrt, "RSQRT": lambda x: 1 / jnp.sqrt(x), "SQUARE": jnp.square, "SIN": jnp.sin, "COS": jnp.cos, "ELU": jax.nn.elu,
    "HARD_SWISH": lambda x: x * jnp.clip(x + 3.0, 0.0, 6.0) / 6.0, "LOG_SOFTMAX": jax.nn.log_softmax, "FLOOR": jnp.floor,
    "CEIL": jnp.ceil, "ROUND": jnp.round, "SIGN": jnp.sign, "LOGICAL_NOT": jnp.logical_not, "ZEROS_LIKE": jnp.zeros_like,
    "QUANTIZE": lambda x: x, "DEQUANTIZE": lambda x: x, "SHAPE": lambda x: np.array(x.shape, np.int32),
    "RANK": lambda x: np.array(np.ndim(x), np.int32),
}  # fmt: skip
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "ADD": jnp.add, "SUB": jnp.subtract, "MUL": jnp.multiply, "MAXIMUM": jnp.maximum, "MINIMUM": jnp.minimum, "POW": jnp.power,
    "SQUARED_DIFFERENCE": lambda a, b: jnp.square(a - b), "FLOOR_DIV": jnp.floor_divide, "FLOOR_MOD": jnp.mod,
    "DIV": lambda a, b: jnp.divide(a, b) if jnp.issubdtype(jnp.asarray(a).dtype, jnp.floating) else jnp.floor_divide(a, b),
    "GREATER": jnp.greater, "GREATER_EQUAL": jnp.greater_equal, "LESS": jnp.less, "LESS_EQUAL": jnp.less_equal, "EQUAL": jnp.equal,
    "NOT_EQUAL": jnp.not_equal, "LOGICAL_AND": jnp.logical_and, "LOGICAL_OR": jnp.logical_or,
}  # fmt: skip
REDUCE: dict[str, Any] = {
    "MEAN": jnp.mean, "SUM": jnp.sum, "REDUCE_MAX": jnp.max, "REDUCE_MIN": jnp.min, "REDUCE_PROD": jnp.prod, "REDUCE_ANY": jnp.any,
    "REDUCE_ALL": jnp.all,
}  # fmt: skip
_INTEGERS = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "MAXIMUM": np.maximum, "MINIMUM": np.minimum}


def unary(op: Op, v: list[Any]) -> Any:
    return UNARY[op.name](v[0])


def binary(op: Op, v: list[Any]) -> Any:
    if op.name in _INTEGERS and all(isinstance(a, np.ndarray) and a.dtype.kind in "iu" for a in v):
        return _INTEGERS[op.name](*v)  # sizes stay numbers
    return FUSED[op.fused](BINARY[op.name](v[0], v[1]))


def reduced(op: Op, v: list[Any]) -> Any:
    return REDUCE[op.name](v[0], axis=tuple(whole(v[1])), keepdims=bool(op.option(0, small=True)))


OPERATORS |= dict.fromkeys(UNARY, unary) | dict.fromkeys(BINARY, binary) | dict.fromkeys(REDUCE, reduced)


def dense_bias(op: Op, y: Any, v: list[Any], place: int = 2) -> Any:
    return FUSED[op.fused](y + v[place] if len(v) > place and v[place] is not None else y)


@register("FULLY_CONNECTED")
def _dense(op: Op, v: list[Any]) -> Any:
    y = dense_bias(op, v[0].reshape(-1, v[1].shape[1]) @ v[1].T, v)
    return y.reshape(*v[0].shape[:-1], v[1].shape[0]) if op.option(2, small=True) else y


def convolved(x: Any, w: Any, strides: tuple[int, int], padding: str, dilation: tuple[int, int], groups: int) -> Any:
    """Return the convolution of NHWC maps with OHWI filters."""
    numbers = ("NHWC", "OHWI", "NHWC")
    return lax.conv_general_dilated(x, w, strides, padding, rhs_dilation=dilation, dimension_numbers=numbers, feature_group_count=groups)


@register("CONV_2D")
def _conv(op: Op, v: list[Any]) -> Any:
    strides, dilation = (op.option(2), op.option(1)), (op.option(5, 1), op.option(4, 1))
    y = convolved(v[0], v[1], strides, PADDING[op.option(0, small=True)], dilation, v[0].shape[3] // v[1].shape[3])
    return dense_bias(op, y, v)


@register("DEPTHWISE_CONV_2D")
def _depthwise(op: Op, v: list[Any]) -> Any:
    strides, dilation = (op.option(2), op.option(1)), (op.option(6, 1), op.option(5, 1))
    filters = jnp.transpose(v[1], (3, 1, 2, 0))
    return dense_bias(op, convolved(v[0], filters, strides, PADDING[op.option(0, small=True)], dilation, v[0].shape[3]), v)


@register("TRANSPOSE_CONV")
def _transpose_conv(op: Op, v: list[Any]) -> Any:
    strides, filters = (op.option(2), op.option(1)), jnp.transpose(v[1], (3, 1, 2, 0))
    padding, larger = PADDING[op.option(0, small=True)], jnp.zeros(tuple(whole(v[0])))
    _, back = jax.vjp(lambda maps: convolved(maps, filters, strides, padding, (1, 1), 1), larger)
    return dense_bias(op, back(v[2])[0], v, 3)


def _pool(op: Op, v: list[Any], first: float, join: Any) -> Any:
    size, strides = (1, op.option(4), op.option(3), 1), (1, op.option(2), op.option(1), 1)
    return lax.reduce_window(v[0], first, join, size, strides, PADDING[op.option(0, small=True)])


@register("MAX_POOL_2D")
def _max_pool(op: Op, v: list[Any]) -> Any:
    return FUSED[op.fused](_pool(op, v, -np.inf, lax.max))


@register("AVERAGE_POOL_2D")
def _average_pool(op: Op, v: list[Any]) -> Any:
    return FUSED[op.fused](_pool(op, v, 0.0, lax.add) / _pool(op, [jnp.ones(v[0].shape)], 0.0, lax.add))


@register("BATCH_MATMUL")
def _batch_matmul(op: Op, v: list[Any]) -> Any:
    a, b = (jnp.swapaxes(t, -1, -2) if op.option(i, small=True) else t for i, t in enumerate(v[:2]))
    return a @ b


@register("SOFTMAX")
def _softmax(op: Op, v: list[Any]) -> Any:
    return jax.nn.softmax(v[0] * op.number(0, 1.0))


@register("LEAKY_RELU")
def _leaky(op: Op, v: list[Any]) -> Any:
    return jnp.where(v[0] > 0, v[0], v[0] * op.number(0))


@register("PRELU")
def _prelu(_: Op, v: list[Any]) -> Any:
    return jnp.where(v[0] >= 0, v[0], v[0] * v[1])


@register("GELU")
def _gelu(op: Op, v: list[Any]) -> Any:
    return jax.nn.gelu(v[0], approximate=bool(op.option(0, small=True)))


@register("L2_NORMALIZATION")
def _l2(op: Op, v: list[Any]) -> Any:
    return FUSED[op.fused](v[0] / jnp.sqrt(jnp.maximum(jnp.sum(v[0] * v[0], -1, keepdims=True), 1e-6)))


@register("RESHAPE")
def _reshape(op: Op, v: list[Any]) -> Any:
    to = whole(v[1]) if len(v) > 1 and v[1] is not None else whole(op.options.integers(0) if op.options is not None else ())
    return v[0].reshape(to)


@register("SQUEEZE")
def _squeeze(op: Op, v: list[Any]) -> Any:
    axes = tuple(op.options.integers(0)) if op.options is not None else ()
    return v[0].squeeze(axes or None)


@register("EXPAND_DIMS")
def _expand(_: Op, v: list[Any]) -> Any:
    return np.expand_dims(v[0], whole(v[1])[0]) if isinstance(v[0], np.ndarray) else jnp.expand_dims(v[0], whole(v[1])[0])


@register("TRANSPOSE")
def _transpose(_: Op, v: list[Any]) -> Any:
    return v[0].transpose(whole(v[1]))


@register("CONCATENATION")
def _concat(op: Op, v: list[Any]) -> Any:
    sizes = all(isinstance(t, np.ndarray) for t in v)
    return np.concatenate(v, op.option(0)) if sizes else FUSED[op.fused](jnp.concatenate(v, op.option(0)))


@register("PACK")
def _pack(op: Op, v: list[Any]) -> Any:
    return np.stack(v, op.option(1)) if all(isinstance(t, np.ndarray) for t in v) else jnp.stack(v, op.option(1))


@register("UNPACK")
def _unpack(op: Op, v: list[Any]) -> Any:
    axis = op.option(1)
    return [part.squeeze(axis) for part in jnp.split(v[0], v[0].shape[axis], axis)]


@register("SPLIT")
def _split(op: Op, v: list[Any]) -> Any:
    return jnp.split(v[1], op.option(0), whole(v[0])[0])


@register("SPLIT_V")
def _split_v(_: Op, v: list[Any]) -> Any:
    axis, sizes = whole(v[2])[0], whole(v[1])
    sizes = [v[0].shape[axis] - sum(s for s in sizes if s >= 0) if s < 0 else s for s in sizes]
    return jnp.split(v[0], np.cumsum(sizes)[:-1].tolist(), axis)


@register("SLICE")
def _slice(_: Op, v: list[Any]) -> Any:
    return v[0][tuple(slice(b, None if s < 0 else b + s) for b, s in zip(whole(v[1]), whole(v[2]), strict=True))]


@register("STRIDED_SLICE")
def _strided(op: Op, v: list[Any]) -> Any:
    begin, end, step, index = whole(v[1]), whole(v[2]), whole(v[3]), list[Any]()
    masks = [op.option(i) for i in range(5)]
    for i, (b, e, s) in enumerate(zip(begin, end, step, strict=True)):
        bits = [bool(mask >> i & 1) for mask in masks]
        if bits[2]:
            index.append(Ellipsis)
        elif bits[3]:
            index.append(None)
        elif bits[4]:
            index.append(b)
        else:
            index.append(slice(None if bits[0] else b, None if bits[1] else e, s))
    return v[0][tuple(index)]


@register("PAD", "PADV2")
def _pad(_: Op, v: list[Any]) -> Any:
    return jnp.pad(v[0], np.asarray(v[1]), constant_values=v[2].reshape(()) if len(v) > 2 else 0)


@register("MIRROR_PAD")
def _mirror(op: Op, v: list[Any]) -> Any:
    return jnp.pad(v[0], np.asarray(v[1]), mode="symmetric" if op.option(0, small=True) else "reflect")


@register("TILE")
def _tile(_: Op, v: list[Any]) -> Any:
    return jnp.tile(v[0], whole(v[1]))


@register("BROADCAST_TO")
def _broadcast(_: Op, v: list[Any]) -> Any:
    return jnp.broadcast_to(v[0], whole(v[1]))


@register("FILL")
def _fill(_: Op, v: list[Any]) -> Any:
    return np.full(whole(v[0]), np.asarray(v[1]))


@register("RANGE")
def _range(_: Op, v: list[Any]) -> Any:
    return np.arange(*(np.asarray(t).item() for t in v), dtype=np.asarray(v[0]).dtype)


@register("CAST")
def _cast(_: Op, v: list[Any]) -> Any:
    return v[0]  # the type is that of the output: `run` sees to it


@register("GATHER")
def _gather(op: Op, v: list[Any]) -> Any:
    if op.option(1):
        raise Unknown("GATHER of batches")
    return jnp.take(v[0], np.asarray(v[1]), op.option(0))


@register("EMBEDDING_LOOKUP")
def _lookup(_: Op, v: list[Any]) -> Any:
    return jnp.take(v[1], np.asarray(v[0]), 0)


@register("GATHER_ND")
def _gather_nd(_: Op, v: list[Any]) -> Any:
    return v[0][tuple(np.moveaxis(np.asarray(v[1]), -1, 0))]


@register("SELECT", "SELECT_V2")
def _select(_: Op, v: list[Any]) -> Any:
    return jnp.where(v[0], v[1], v[2])


@register("ADD_N")
def _add_n(_: Op, v: list[Any]) -> Any:
    return sum(v[1:], v[0])


@register("REVERSE_V2")
def _reverse(_: Op, v: list[Any]) -> Any:
    return jnp.flip(v[0], tuple(whole(v[1])))


@register("CUMSUM")
def _cumsum(op: Op, v: list[Any]) -> Any:
    axis, exclusive, reverse = whole(v[1])[0], op.option(0, small=True), op.option(1, small=True)
    x = jnp.flip(v[0], axis) if reverse else v[0]
    total = jnp.cumsum(x, axis) - (x if exclusive else 0)
    return jnp.flip(total, axis) if reverse else total


@register("ARG_MAX", "ARG_MIN")
def _arg(op: Op, v: list[Any]) -> Any:
    return (jnp.argmax if op.name == "ARG_MAX" else jnp.argmin)(v[0], whole(v[1])[0])


@register("ONE_HOT")
def _one_hot(op: Op, v: list[Any]) -> Any:
    axis = op.option(0, -1)
    return jax.nn.one_hot(v[0], whole(v[1])[0], axis=axis) * (v[2] - v[3]) + v[3]


@register("DEPTH_TO_SPACE")
def _depth_to_space(op: Op, v: list[Any]) -> Any:
    n, h, w, c = v[0].shape
    b = op.option(0)
    return v[0].reshape(n, h, w, b, b, c // b // b).transpose(0, 1, 3, 2, 4, 5).reshape(n, h * b, w * b, c // b // b)


@register("SPACE_TO_DEPTH")
def _space_to_depth(op: Op, v: list[Any]) -> Any:
    n, h, w, c = v[0].shape
    b = op.option(0)
    return v[0].reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // b, w // b, c * b * b)


@register("SPACE_TO_BATCH_ND")
def _space_to_batch(_: Op, v: list[Any]) -> Any:
    block, pads = whole(v[1]), np.asarray(v[2])
    k, x = len(block), jnp.pad(v[0], [(0, 0), *pads.tolist(), *[(0, 0)] * (v[0].ndim - 1 - len(block))])
    split = [x.shape[0]]
    for size, b in zip(x.shape[1:], block, strict=False):
        split += [size // b, b]
    x = x.reshape(*split, *x.shape[1 + k :])
    order = [*range(2, 2 * k + 1, 2), 0, *range(1, 2 * k, 2), *range(2 * k + 1, x.ndim)]
    x = x.transpose(order)
    return x.reshape(prod(x.shape[: k + 1]), *x.shape[k + 1 :])


@register("BATCH_TO_SPACE_ND")
def _batch_to_space(_: Op, v: list[Any]) -> Any:
    block, crops, x = whole(v[1]), np.asarray(v[2]), v[0]
    k, n = len(block), x.shape[0] // prod(whole(v[1]))
    x = x.reshape(*block, n, *x.shape[1:])
    order = [k]
    for i in range(k):
        order += [k + 1 + i, i]
    x = x.transpose([*order, *range(2 * k + 1, x.ndim)])
    x = x.reshape(n, *(x.shape[1 + 2 * i] * b for i, b in enumerate(block)), *x.shape[2 * k + 1 :])
    return x[(slice(None), *(slice(a, x.shape[1 + i] - b) for i, (a, b) in enumerate(crops.tolist())))]


def _places(op: Op, v: list[Any], axis: int, corners: int, half: int) -> tuple[int, int, Any]:
    """Return the old size, the new one, and where each new entry lies between the old ones."""
    old, new = v[0].shape[axis], whole(v[1])[axis - 1]
    scale = (old - 1) / (new - 1) if op.option(corners, small=True) and new > 1 else old / new
    return old, new, (np.arange(new) + 0.5) * scale - 0.5 if op.option(half, small=True) else np.arange(new) * scale


@register("RESIZE_BILINEAR")
def _bilinear(op: Op, v: list[Any]) -> Any:
    x = v[0]
    for axis in (1, 2):
        old, new, place = _places(op, v, axis, 2, 3)
        low = np.maximum(np.floor(place), 0).astype(int)
        matrix, share = np.zeros((new, old)), place - low
        np.add.at(matrix, (np.arange(new), np.minimum(low, old - 1)), 1 - share)
        np.add.at(matrix, (np.arange(new), np.minimum(np.ceil(place).astype(int).clip(0), old - 1)), share)
        x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


@register("RESIZE_NEAREST_NEIGHBOR")
def _nearest(op: Op, v: list[Any]) -> Any:
    x = v[0]
    for axis in (1, 2):
        old, _, place = _places(op, v, axis, 0, 1)
        near = np.round(place) if op.option(0, small=True) else np.floor(place + (0.5 if op.option(1, small=True) else 0))
        x = jnp.take(x, np.clip(near.astype(int), 0, old - 1), axis)
    return x


def run(stock: Stock, given: Mapping[int, Any], weights: Mapping[int, Any], wanted: int) -> dict[int, Any]:
    """Return the values of the tensors that `wanted` is computed from. given: the inputs' values; weights: those that are moved.

    Raises Unknown for an operator that is not among those above.
    """
    leading, values = stock.leading_to(wanted), dict[int, Any](given)
    values[-1] = None
    for op in stock.operators:
        if op.index not in leading:
            continue
        for t in op.inputs:
            if t not in values and stock.holds(t):
                held = stock.value(t)
                values[t] = held.astype(_TYPES[0]) if held.dtype.kind == "f" else held
        values |= {t: weights[t] for t in op.inputs if t in weights}
        if all(t in values for t in op.outputs):
            continue  # a weight that is only widened
        if op.name not in OPERATORS:
            raise Unknown(op.name)
        made = OPERATORS[op.name](op, [values[t] for t in op.inputs])
        for t, value in zip(op.outputs, made if isinstance(made, list) else [made], strict=True):
            kind = _TYPES[stock.tensors[t].type]
            values[t] = value if getattr(value, "dtype", None) == kind else value.astype(kind)
    return values
