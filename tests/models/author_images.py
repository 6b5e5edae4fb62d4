"""Makes the stock files of tests/models/stock that move, mirror, cut, resize, pool and convolve maps; and TensorFlow's gradients of them.

Not needed at run time: the files and stock/gradients_images.npz are committed. Run from the top folder with tensorflow-cpu 2.21:
    python -m tests.models.author_images              all files
    python -m tests.models.author_images strided      some of them, and the gradients of all

The weights are random, since only their gradients matter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf

from edgecloud.graft.stock import Op, Stock
from edgecloud.graft.writing import ops
from tests.models import author_gradients
from tests.models.author_gradients import FUSED, PADDING
from tests.models.author_stock import F32, STOCK
from tests.models.gradients import IMAGES

FILES: dict[str, Callable[[], bytes]] = {}


class Net(tf.Module):
    """Weights made on the way, of a seed of their own, so that a gradient has to pass what stands behind them."""

    def __init__(self, shape: tuple[int, ...], build: Callable[[Net, Any], Any]) -> None:
        super().__init__()
        self.rng, self.shape, self.build = np.random.default_rng(9), shape, build
        self.kept: dict[str, Any] = {}

    def w(self, name: str, *shape: int) -> Any:
        if name not in self.kept:
            fan = max(2, int(np.prod(shape[:-1])))
            self.kept[name] = tf.Variable(self.rng.standard_normal(shape) / np.sqrt(fan), dtype=F32, name=name)
        return self.kept[name]

    def conv(self, name: str, x: Any, gives: int, size: int = 3, **how: Any) -> Any:
        y = tf.nn.conv2d(x, self.w(name, size, size, x.shape[3] // how.pop("groups", 1), gives), **{"strides": 1, "padding": "SAME"} | how)
        return y + self.w(f"{name}_bias", gives)

    def out(self, x: Any, gives: int = 3) -> Any:
        flat = tf.reshape(x, [1, int(np.prod(x.shape[1:]))])
        return tf.matmul(flat, self.w("out", flat.shape[1], gives))

    def file(self) -> bytes:
        self.build(self, tf.zeros(self.shape))  # the weights
        call = tf.function(lambda x: self.build(self, x), input_signature=[tf.TensorSpec(self.shape, F32)])
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], self).convert())


def image(*shape: int) -> Callable[[Callable[[Net, Any], Any]], Callable[[Net, Any], Any]]:
    def register(build: Callable[[Net, Any], Any]) -> Callable[[Net, Any], Any]:
        FILES[build.__name__] = Net(shape, build).file
        return build

    return register


@image(1, 6, 4, 3)
def spaces(net: Net, x: Any) -> Any:
    """DEPTH_TO_SPACE, SPACE_TO_DEPTH, MIRROR_PAD of both kinds."""
    x = tf.nn.relu(tf.nn.depth_to_space(net.conv("a", x, 8), 2))
    x = tf.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]], "REFLECT")
    x = net.conv("b", x, 3, strides=[1, 1], padding="VALID")
    x = tf.nn.space_to_depth(tf.pad(x, [[0, 0], [2, 1], [0, 1], [1, 0]], "SYMMETRIC"), 2)
    return net.out(tf.tanh(x))


@image(1, 7, 6, 3)
def blocks(net: Net, x: Any) -> Any:
    """SPACE_TO_BATCH_ND and BATCH_TO_SPACE_ND around convolutions, as dilation was once written: on maps, and on a sequence."""
    x = net.conv("a", x, 4)
    x = tf.space_to_batch(x, [2, 3], [[2, 3], [3, 3]])
    x = tf.nn.relu(net.conv("b", x, 5, padding="VALID")) * net.w("scale", 5)
    x = tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 0], [0, 1], [0, 0]]), 2, 1, "VALID")
    x = tf.batch_to_space(x, [2, 3], [[1, 0], [0, 1]])
    steps = tf.reshape(x, [1, x.shape[1] * x.shape[2], 5])
    steps = tf.space_to_batch(steps, [2], [[1, 1 + steps.shape[1] % 2]])
    steps = tf.tanh(tf.reshape(steps, [2, steps.shape[1], 1, 5]))
    steps = tf.reshape(net.conv("c", steps, 4, 1), [2, steps.shape[1], 4])
    return net.out(tf.batch_to_space(steps, [2], [[1, 0]]))


@image(1, 8, 9, 4)
def strided(net: Net, x: Any) -> Any:
    """Strided slices that step, go back, drop and add axes; SPLIT_V, UNPACK, PACK, TILE, BROADCAST_TO, PADV2, SLICE."""
    x = tf.tanh(net.conv("a", x, 6, 1))
    a = x[:, 1::2, ::-3, :]  # [1, 4, 3, 6]
    b = x[:, -2:0:-2, 7, 1:5:3]  # [1, 3, 2]
    c = x[..., 4] * x[:, :, :, tf.newaxis, 2][..., 0]  # [1, 8, 9]
    d, e, _ = tf.split(x, [1, 3, 2], axis=-1)
    rows = tf.unstack(e[:, ::4, 2:5, :], axis=2)  # three of [1, 2, 3]
    f = tf.stack([rows[2], rows[0] * rows[0]], axis=-2)  # [1, 2, 2, 3]
    g = tf.tile(b, [1, 2, 3])  # [1, 6, 6]
    h = tf.broadcast_to(d[:, :1, :, :], [1, 5, 9, 4])
    i = tf.pad(c, [[0, 0], [1, 0], [0, 2]], constant_values=0.5)  # [1, 9, 11]
    j = tf.slice(i, [0, 2, 3], [1, 4, -1])
    parts = [tf.reshape(v, [1, int(np.prod(v.shape[1:]))]) for v in (a, b, f, g * g, h * h, i, j * j)]
    return net.out(tf.concat(parts, 1))


@image(1, 9, 8, 4)
def grouped(net: Net, x: Any) -> Any:
    """Convolutions of channels in groups: SAME and strided, dilated, of one place, with as many groups as channels."""
    x = tf.nn.relu(net.conv("a", x, 6, groups=2))
    x = net.conv("b", x, 12, groups=3, strides=[1, 2], padding="VALID")
    x = tf.nn.relu6(net.conv("c", x, 8, 1, groups=4))
    x = net.conv("d", x, 16, groups=8, dilations=[2, 1])
    x = net.conv("e", x, 4, 2, groups=2, strides=2)
    return net.out(x)


@image(1, 5, 6, 2)
def resizes(net: Net, x: Any) -> Any:
    """RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR, up and down, with corners aligned, centres of half a pixel, and neither."""
    parts = []
    for i, (corners, centers) in enumerate(((False, False), (True, False), (False, True))):
        for raw, size in ((tf.raw_ops.ResizeBilinear, (8, 4)), (tf.raw_ops.ResizeNearestNeighbor, (3, 11))):
            y = tf.tanh(net.conv(f"{raw.__name__}{i}", x, 2))
            y = raw(images=y, size=size, align_corners=corners, half_pixel_centers=centers)
            parts.append(tf.reshape(y, [1, int(np.prod(y.shape[1:]))]))
    return net.out(tf.concat(parts, 1))


@image(1, 6, 4, 3)
def products(net: Net, x: Any) -> Any:
    """REDUCE_PROD with zeros among its entries, REDUCE_MIN, REDUCE_MAX, MEAN and SUM over some axes, kept and not."""
    x = tf.nn.relu(net.conv("a", x, 5) + 0.4)
    a = tf.reduce_prod(0.5 + x, axis=[1, 3])  # [1, 4]
    b = tf.reduce_prod(x, axis=2, keepdims=True)[..., 0, :] * 9.0  # [1, 6, 5], many of them zero
    c = tf.reduce_min(x + 0.01 * b[:, :, None, :], axis=[2])  # [1, 6, 5]
    d = tf.reduce_max(x, axis=[1, 2], keepdims=True)
    e = tf.reduce_mean(x * d, axis=-1) + tf.reduce_sum(tf.square(x), axis=3)
    parts = [tf.reshape(v, [1, int(np.prod(v.shape[1:]))]) for v in (a, b, c, d, e)]
    return net.out(tf.concat(parts, 1))


@image(1, 5, 4, 3)
def lifted(net: Net, x: Any) -> Any:
    """Tensors of fewer axes that are broadcast over those behind another's batch, which converters leave to the operator."""
    x = tf.nn.relu(net.conv("a", x, 4))
    x = x + tf.expand_dims(tf.reduce_mean(x, axis=1), 1)
    y = tf.tanh(net.conv("b", x, 4, 1))
    x = tf.expand_dims(tf.reduce_max(y, axis=[1, 2]), 1)[:, :, None, :] * y - x
    x = tf.math.squared_difference(0.3 * x, tf.expand_dims(tf.reduce_sum(0.1 * x, axis=1), 1))
    return net.out(tf.where(tf.expand_dims(y[:, 1], 1) > 0.0, x, tf.expand_dims(tf.reduce_min(y, axis=1), 1)))


@image(1, 4, 5, 3)
def transposed_more(net: Net, x: Any) -> Any:
    """TRANSPOSE_CONV with bias and activation, strides beyond the filter, outputs of every size that leads back."""
    x = tf.nn.conv2d_transpose(x, net.w("a", 3, 3, 4, 3), [1, 10, 12, 4], 2, "VALID") + net.w("a_bias", 4)
    x = tf.nn.relu(x[:, :4, :3, :])
    x = tf.nn.conv2d_transpose(x, net.w("b", 2, 1, 3, 4), [1, 11, 9, 3], 3, "SAME") + net.w("b_bias", 3)
    x = tf.nn.relu(tf.nn.conv2d_transpose(x, net.w("c", 4, 5, 2, 3), [1, 11, 18, 2], [1, 2], "SAME") + net.w("c_bias", 2))
    return net.out(x)


def pooled() -> bytes:
    """MAX_POOL_2D and AVERAGE_POOL_2D with fused activations, and L2_POOL_2D: TensorFlow makes none, so plain ones are changed."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    def build(net: Net, x: Any) -> Any:
        a = tf.nn.max_pool2d(net.conv("a", x, 4), 3, 2, "SAME")
        b = tf.nn.avg_pool2d(net.conv("b", x, 4), 2, 2, "VALID")
        c = tf.nn.avg_pool2d(net.conv("c", x, 4), 3, 2, "SAME")
        d = tf.nn.avg_pool2d(net.conv("d", x, 4), 2, 2, "VALID")
        return net.out(tf.concat([tf.reshape(v, [1, int(np.prod(v.shape[1:]))]) for v in (a, b, c, d)], 1))

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(Net((1, 7, 8, 2), build).file()))
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = ops.L2_POOL_2D
    code.version = 1
    model.operatorCodes.append(code)
    plain = (ops.MAX_POOL_2D, ops.AVERAGE_POOL_2D)
    pools = [op for op in model.subgraphs[0].operators if model.operatorCodes[op.opcodeIndex].builtinCode in plain]
    for op, fused in zip(pools, (ops.FUSED_RELU, ops.FUSED_RELU6, ops.NONE, ops.FUSED_RELU6), strict=True):
        op.builtinOptions.fusedActivationFunction = fused
    for op in pools[2:]:
        op.opcodeIndex = len(model.operatorCodes) - 1
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


FILES["pooled"] = pooled


# What TensorFlow computes for the operators that author_gradients does not know, or knows in fewer forms.


def _resize(stock: Stock, op: Op, v: list[Any]) -> list[Any]:
    bilinear = op.code == ops.RESIZE_BILINEAR
    raw = tf.raw_ops.ResizeBilinear if bilinear else tf.raw_ops.ResizeNearestNeighbor
    corners, centers = (bool(op.option(f, small=True)) for f in ((2, 3) if bilinear else (0, 1)))
    return [raw(images=v[0], size=v[1], align_corners=corners, half_pixel_centers=centers)]


def _l2_pool(stock: Stock, op: Op, v: list[Any]) -> list[Any]:
    size, stride = [op.option(4), op.option(3)], [op.option(2), op.option(1)]
    squares = tf.nn.avg_pool2d(tf.square(v[0]), size, stride, PADDING[op.option(0, small=True)])
    return [FUSED[op.fused](tf.sqrt(squares))]


def _strided(stock: Stock, op: Op, v: list[Any]) -> list[Any]:
    return [tf.strided_slice(*v, *(op.option(n) for n in range(5)))]


author_gradients.MORE.update({
    ops.DEPTH_TO_SPACE: lambda _, op, v: [tf.nn.depth_to_space(v[0], op.option(0))],
    ops.SPACE_TO_DEPTH: lambda _, op, v: [tf.nn.space_to_depth(v[0], op.option(0))],
    ops.SPACE_TO_BATCH_ND: lambda _, op, v: [tf.space_to_batch(*v)],
    ops.BATCH_TO_SPACE_ND: lambda _, op, v: [tf.batch_to_space(*v)],
    ops.MIRROR_PAD: lambda _, op, v: [tf.pad(v[0], v[1], "SYMMETRIC" if op.option(0, small=True) else "REFLECT")],
    ops.PADV2: lambda _, op, v: [tf.pad(v[0], v[1], constant_values=v[2])],
    ops.SPLIT_V: lambda _, op, v: list(tf.split(v[0], v[1], int(v[2]))),
    ops.BROADCAST_TO: lambda _, op, v: [tf.broadcast_to(v[0], v[1])],
    ops.REDUCE_PROD: lambda _, op, v: [tf.reduce_prod(v[0], axis=v[1].tolist(), keepdims=bool(op.option(0, small=True)))],
    ops.RESIZE_BILINEAR: _resize, ops.RESIZE_NEAREST_NEIGHBOR: _resize, ops.L2_POOL_2D: _l2_pool, ops.STRIDED_SLICE: _strided,
})  # fmt: skip


def main(wanted: list[str]) -> None:
    for name, make in FILES.items():
        if not wanted or name in wanted:
            (STOCK / f"{name}.tflite").write_bytes(make())
    out: dict[str, Any] = {}
    for name, cut in IMAGES:
        out |= author_gradients.gradients(STOCK / f"{name}.tflite", cut)
        print(f"{name}: loss {out[f'{name}|{cut}|loss']:.6f}", flush=True)
    np.savez_compressed(STOCK / "gradients_images.npz", **out)


if __name__ == "__main__":
    main(sys.argv[1:])
