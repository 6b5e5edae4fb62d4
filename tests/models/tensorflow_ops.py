"""What TensorFlow computes for operators of TFLite that are functions of one entry, choices, look-ups or sums along steps.

Used by author_gradients.py alone; not needed at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgecloud.graft.stock import Op
from edgecloud.graft.writing import ops

UNARY: dict[int, Any] = {
    ops.SIN: tf.sin, ops.COS: tf.cos, ops.ELU: tf.nn.elu, ops.FLOOR: tf.floor, ops.CEIL: tf.math.ceil, ops.ROUND: tf.round, ops.SIGN: tf.sign,
    ops.LOGICAL_NOT: tf.logical_not, ops.ZEROS_LIKE: tf.zeros_like, ops.RELU_0_TO_1: lambda x: tf.clip_by_value(x, 0.0, 1.0),
    ops.RELU_N1_TO_1: lambda x: tf.clip_by_value(x, -1.0, 1.0),
}  # fmt: skip
BINARY: dict[int, Any] = {
    ops.POW: tf.pow, ops.FLOOR_MOD: tf.math.floormod, ops.FLOOR_DIV: tf.math.floordiv, ops.EQUAL: tf.equal, ops.NOT_EQUAL: tf.not_equal,
    ops.LESS: tf.less, ops.LESS_EQUAL: tf.less_equal, ops.GREATER: tf.greater, ops.GREATER_EQUAL: tf.greater_equal,
    ops.LOGICAL_AND: tf.logical_and, ops.LOGICAL_OR: tf.logical_or,
}  # fmt: skip
TYPES = {0: tf.float32, 2: tf.int32, 4: tf.int64, 6: tf.bool}
Values = list[Any]  # the inputs, and behind them the type of the first output
OTHERS: dict[int, Callable[[Op, Values], Values]] = {
    ops.GELU: lambda op, v: [tf.nn.gelu(v[0], approximate=bool(op.option(0, small=True)))],
    ops.ADD_N: lambda op, v: [tf.add_n(v[:-1])],
    ops.SELECT: lambda op, v: [tf.where(v[0], v[1], v[2])],
    ops.SELECT_V2: lambda op, v: [tf.where(v[0], v[1], v[2])],
    ops.CAST: lambda op, v: [tf.cast(v[0], v[-1])],
    ops.ARG_MAX: lambda op, v: [tf.argmax(v[0], int(v[1]), v[-1])],
    ops.ONE_HOT: lambda op, v: [tf.one_hot(v[0], int(v[1]), v[2], v[3], op.option(0))],
    ops.TOPK_V2: lambda op, v: list(tf.math.top_k(v[0], int(v[1]))),
    ops.GATHER: lambda op, v: [tf.gather(v[0], v[1], axis=op.option(0), batch_dims=op.option(1))],
    ops.GATHER_ND: lambda op, v: [tf.gather_nd(v[0], v[1])],
    ops.EMBEDDING_LOOKUP: lambda op, v: [tf.gather(v[1], v[0])],
    ops.L2_NORMALIZATION: lambda op, v: [tf.nn.l2_normalize(v[0], axis=-1)],
    ops.LOCAL_RESPONSE_NORMALIZATION: lambda op, v: [
        tf.nn.local_response_normalization(v[0], op.option(0), op.number(1), op.number(2), op.number(3))
    ],
    ops.CUMSUM: lambda op, v: [tf.cumsum(v[0], int(v[1]), bool(op.option(0, small=True)), bool(op.option(1, small=True)))],
    ops.REVERSE_V2: lambda op, v: [tf.reverse(v[0], v[1])],
    ops.REVERSE_SEQUENCE: lambda op, v: [tf.reverse_sequence(v[0], v[1], seq_axis=op.option(0), batch_axis=op.option(1))],
}
