"""Computes the gradients that grafted files are held against, with TensorFlow's own differentiation; once, into stock/gradients*.npz.

Not needed at run time: the vectors are committed. Run from the top folder with tensorflow-cpu 2.21:
    python -m tests.models.author_gradients [GROUP ...] [FOLDER_WITH_MORE_FILES]

GROUP: one of those in gradients.py, each with a file of its own; all when none is named.

Each stock file is run operator by operator with TensorFlow, one sample after the other: what is compared shares neither the gradients
nor the batches with what is tested. Of large tensors a sample of entries is kept, with the largest entry and a projection of all.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

from edgecloud.graft.grafting import Wish, graft
from edgecloud.graft.stock import Op, Stock, read
from edgecloud.graft.writing import ops
from tests.models import tensorflow_ops
from tests.models.gradients import BATCH, GROUPS, pick, samples

PADDING = {0: "SAME", 1: "VALID"}
FUSED: dict[int, Any] = {
    0: lambda x: x, 1: tf.nn.relu, 2: lambda x: tf.clip_by_value(x, -1.0, 1.0), 3: tf.nn.relu6, 4: tf.tanh,
}  # fmt: skip
UNARY: dict[int, Any] = {
    ops.RELU: tf.nn.relu, ops.RELU6: tf.nn.relu6, ops.TANH: tf.tanh, ops.LOGISTIC: tf.sigmoid, ops.EXP: tf.exp, ops.LOG: tf.math.log,
    ops.NEG: tf.negative, ops.ABS: tf.abs, ops.SQRT: tf.sqrt, ops.RSQRT: tf.math.rsqrt, ops.SQUARE: tf.square,
    **tensorflow_ops.UNARY,
    ops.HARD_SWISH: lambda x: x * tf.nn.relu6(x + 3.0) / 6.0, ops.SOFTMAX: tf.nn.softmax, ops.LOG_SOFTMAX: tf.nn.log_softmax,
}  # fmt: skip
BINARY: dict[int, Any] = {
    ops.ADD: tf.add, ops.SUB: tf.subtract, ops.MUL: tf.multiply, ops.DIV: tf.divide, ops.MAXIMUM: tf.maximum, ops.MINIMUM: tf.minimum,
    ops.SQUARED_DIFFERENCE: tf.math.squared_difference, **tensorflow_ops.BINARY,
}  # fmt: skip
REDUCE: dict[int, Any] = {ops.MEAN: tf.reduce_mean, ops.SUM: tf.reduce_sum, ops.REDUCE_MAX: tf.reduce_max, ops.REDUCE_MIN: tf.reduce_min}
MORE: dict[int, Any] = {}  # of other authors' files: (stock, operator, inputs) to outputs


def apply(stock: Stock, op: Op, v: list[Any]) -> list[Any]:
    """Return the outputs of one operator, computed by TensorFlow."""
    shape = stock.tensors[op.outputs[0]].shape
    fused = FUSED[op.fused]
    if op.code in tensorflow_ops.OTHERS:
        type = tensorflow_ops.TYPES[stock.tensors[op.outputs[0]].type]
        return tensorflow_ops.OTHERS[op.code](op, [*v, type])
    if op.code in MORE:
        return MORE[op.code](stock, op, v)
    if op.code in UNARY:
        return [UNARY[op.code](v[0])]
    if op.code in BINARY:
        return [fused(BINARY[op.code](v[0], v[1]))]
    if op.code in REDUCE:
        return [REDUCE[op.code](v[0], axis=v[1].tolist(), keepdims=bool(op.option(0, small=True)))]
    if op.code in (ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS):
        return [tf.reshape(v[0], shape)]
    if op.code == ops.FULLY_CONNECTED:
        y = tf.matmul(tf.reshape(v[0], [-1, v[1].shape[1]]), v[1], transpose_b=True)
        return [tf.reshape(fused(y + v[2] if len(v) > 2 and v[2] is not None else y), shape)]
    if op.code == ops.CONV_2D:
        strides, dilation = [op.option(2), op.option(1)], [op.option(5, 1), op.option(4, 1)]
        y = tf.nn.conv2d(v[0], tf.transpose(v[1], [1, 2, 3, 0]), strides, PADDING[op.option(0, small=True)], dilations=dilation)
        return [fused(y + v[2] if len(v) > 2 and v[2] is not None else y)]
    if op.code == ops.DEPTHWISE_CONV_2D:
        _, rows, columns, gives = v[1].shape
        takes = v[0].shape[3]
        kernel = tf.reshape(v[1], [rows, columns, takes, gives // takes])
        strides, dilation = [1, op.option(2), op.option(1), 1], [op.option(6, 1), op.option(5, 1)]
        y = tf.nn.depthwise_conv2d(v[0], kernel, strides, PADDING[op.option(0, small=True)], dilations=dilation)
        return [fused(y + v[2] if len(v) > 2 and v[2] is not None else y)]
    if op.code == ops.TRANSPOSE_CONV:
        strides = [op.option(2), op.option(1)]
        y = tf.nn.conv2d_transpose(v[2], tf.transpose(v[1], [1, 2, 0, 3]), shape, strides, PADDING[op.option(0, small=True)])
        return [fused(y + v[3] if len(v) > 3 and v[3] is not None else y)]
    if op.code in (ops.MAX_POOL_2D, ops.AVERAGE_POOL_2D):
        pool = tf.nn.max_pool2d if op.code == ops.MAX_POOL_2D else tf.nn.avg_pool2d
        return [fused(pool(v[0], [op.option(4), op.option(3)], [op.option(2), op.option(1)], PADDING[op.option(0, small=True)]))]
    if op.code == ops.CONCATENATION:
        return [fused(tf.concat(v, op.option(0)))]
    if op.code == ops.LEAKY_RELU:
        return [tf.nn.leaky_relu(v[0], op.number(0))]
    if op.code == ops.PRELU:
        return [tf.where(v[0] >= 0, v[0], v[0] * v[1])]
    if op.code == ops.BATCH_MATMUL:
        return [tf.matmul(v[0], v[1], transpose_a=bool(op.option(0, small=True)), transpose_b=bool(op.option(1, small=True)))]
    if op.code == ops.TRANSPOSE:
        return [tf.transpose(v[0], v[1])]
    if op.code == ops.PAD:
        return [tf.pad(v[0], v[1])]
    if op.code == ops.TILE:
        return [tf.tile(v[0], v[1])]
    if op.code == ops.SPLIT:
        return list(tf.split(v[1], op.option(0), int(v[0])))
    if op.code == ops.PACK:
        return [tf.stack(v, op.option(1))]
    if op.code == ops.UNPACK:
        return list(tf.unstack(v[0], axis=op.option(1)))
    if op.code == ops.STRIDED_SLICE:
        return [tf.strided_slice(v[0], v[1], v[2], v[3], op.option(0), op.option(1), shrink_axis_mask=op.option(4))]
    if op.code == ops.SLICE:
        return [tf.slice(v[0], v[1], v[2])]
    if op.code == ops.RESIZE_BILINEAR:
        assert op.option(3, small=True) and not op.option(2, small=True)
        return [tf.image.resize(v[0], v[1], "bilinear")]
    if op.code == ops.RESIZE_NEAREST_NEIGHBOR:
        return [tf.image.resize(v[0], v[1], "nearest")]
    raise NotImplementedError(op.name)


def loss_of(stock: Stock, kind: str, output: int, x: Any, y: Any, weights: dict[int, Any]) -> Any:
    """Return the loss of one sample."""
    values: dict[int, Any] = {stock.inputs[0]: x, -1: None}
    leading = stock.leading_to(output)
    for t in range(len(stock.tensors)):
        if stock.holds(t):
            values[t] = stock.value(t)
    values |= weights
    for op in stock.operators:
        if op.index not in leading or op.code == ops.DEQUANTIZE:
            continue
        values.update(zip(op.outputs, apply(stock, op, [values[t] for t in op.inputs]), strict=True))
    out = values[output]
    y = tf.reshape(y, out.shape)
    if kind == "mse":
        return tf.reduce_mean(tf.square(out - y))
    logits = values[stock.source[output].inputs[0]]
    if kind == "ce":
        return tf.nn.softmax_cross_entropy_with_logits(tf.reshape(y, [-1, y.shape[-1]]), tf.reshape(logits, [-1, y.shape[-1]]))[0]
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, logits))


def gradients(path: Path, cut: str) -> dict[str, Any]:
    data = path.read_bytes()
    made = graft(data, Wish(train=(cut,), batch=BATCH))
    stock, names = read(data), {name: t for layer in made.layers for name, t in layer.weights.items()}
    variables = {t: tf.Variable(stock.value(t).astype(np.float32)) for t in names.values()}
    output = stock.outputs[0]
    x, y = samples(stock.tensors[stock.inputs[0]].shape[1:], stock.tensors[output].shape[1:], made.loss)
    total = {t: np.zeros(v.shape, np.float64) for t, v in variables.items()}
    loss = 0.0
    for i in range(BATCH):
        with tf.GradientTape() as tape:
            value = loss_of(stock, made.loss, output, tf.constant(x[i : i + 1]), tf.constant(y[i : i + 1]), dict(variables))
        loss += float(value) / BATCH
        for t, g in tape.gradient(value, variables).items():
            total[t] += np.asarray(tf.convert_to_tensor(g), np.float64) / BATCH
    out: dict[str, Any] = {f"{path.stem}|{cut}|loss": np.float64(loss)}
    for name, t in names.items():
        out[f"{path.stem}|{cut}|{name}"] = pick(name, total[t])
    return out


def main(wanted: list[str]) -> None:
    groups = [word for word in wanted if word in GROUPS] or list(GROUPS)
    folders = [Path(__file__).parent / "stock", *(Path(word) for word in wanted if word not in GROUPS)]
    for group in groups:
        out: dict[str, Any] = {}
        for name, cut in GROUPS[group]:
            found = next((f / f"{name}.tflite" for f in folders if (f / f"{name}.tflite").exists()), None)
            if found is None:
                print(f"{name}: not there, left out")
                continue
            out |= gradients(found, cut)
            print(f"{name}: loss {out[f'{name}|{cut}|loss']:.6f}", flush=True)
        np.savez_compressed(Path(__file__).parent / "stock" / f"{group}.npz", **out)


if __name__ == "__main__":
    main(sys.argv[1:])
