"""Makes the stock, inference-only .tflite files of tests/models/stock with Keras and the converter: what users bring to `edgecloud graft`.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21:
    python tests/models/author_stock.py              all files
    python tests/models/author_stock.py har gru      some of them

The small ones hold one family of operators each; the weights are random, since only their gradients matter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

STOCK = Path(__file__).parent / "stock"
F32 = tf.float32
MODELS: dict[str, Callable[[], Any]] = {}


def stock(make: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[make.__name__] = make
    return make


def vary(net: Any, seed: int) -> Any:
    """Give every weight a random value away from zero, so that no gradient hides: biases, scales and statistics too."""
    rng = np.random.default_rng(seed)
    values = []
    for w in net.weights:
        value = np.asarray(w)
        name = w.path.rsplit("/", 1)[-1]
        if name in ("moving_variance", "gamma"):
            values.append(rng.uniform(0.5, 1.5, value.shape))
        elif name in ("beta", "moving_mean", "bias", "alpha"):
            values.append(0.2 * rng.standard_normal(value.shape) + (0.25 if name == "alpha" else 0))
        else:
            fan = max(1, int(np.prod(value.shape[:-1])))
            values.append(rng.standard_normal(value.shape) * np.sqrt(2.0 / fan))
    net.set_weights([v.astype(np.float32) for v in values])
    return net


def net(shape: tuple[int, ...], build: Callable[[Any], Any], seed: int = 7) -> Any:
    x = keras.Input(shape, batch_size=1)
    return vary(keras.Model(x, build(x)), seed)


def head(x: Any, classes: int = 4) -> Any:
    return kl.Dense(classes, activation="softmax", name="head")(x)


def convert(model: Any, *, half: bool = False) -> bytes:
    if isinstance(model, tf.Module) and not isinstance(model, keras.Model):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([model.call.get_concrete_function()], model)
    else:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if half:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


# Whole models.


@stock
def mobilenet() -> Any:
    """MobileNetV2-0.35 at 96 x 96 for four classes."""
    return vary(keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=4), 1)


@stock
def har() -> Any:
    """A conv1d net on windows of wrist motion, as in human activity recognition."""

    def build(x: Any) -> Any:
        x = kl.Conv1D(32, 5, activation="relu", name="conv1")(x)
        x = kl.MaxPooling1D(2)(x)
        x = kl.Conv1D(48, 5, padding="same", name="conv2")(x)
        x = kl.ReLU()(kl.BatchNormalization()(x))
        x = kl.AveragePooling1D(4)(x)
        x = kl.Dense(64, activation="relu", name="hidden")(kl.Flatten()(x))
        return head(x)

    return net((100, 6), build)


@stock
def autoencoder() -> Any:
    """A convolutional auto-encoder of vibration windows: strided convolutions down, nearest neighbours up."""

    def build(x: Any) -> Any:
        x = kl.Conv1D(16, 5, strides=2, padding="same", activation="relu", name="down1")(x)
        x = kl.Conv1D(8, 5, strides=2, padding="same", activation="relu", name="down2")(x)
        x = kl.Reshape((32, 1, 8))(x)
        x = kl.UpSampling2D((2, 1))(x)
        x = kl.Conv2D(16, (5, 1), padding="same", activation="relu", name="up1")(x)
        x = kl.UpSampling2D((2, 1))(x)
        x = kl.Conv2D(3, (5, 1), padding="same", name="up2")(x)
        return kl.Reshape((128, 3))(x)

    return net((128, 3), build)


@stock
def gru() -> Any:
    """An unrolled GRU over 24 steps."""
    return net((24, 6), lambda x: head(kl.GRU(16, unroll=True, reset_after=False)(x)))


@stock
def lstm() -> Any:
    """An unrolled LSTM over 12 steps."""
    return net((12, 6), lambda x: head(kl.LSTM(8, unroll=True)(x)))


# One family of operators each.


@stock
def dense() -> Any:
    def build(x: Any) -> Any:
        x = kl.Dense(7, activation="relu")(x)
        x = kl.Dense(6, activation="relu6")(x)
        return head(kl.Dense(5, activation="tanh", use_bias=False)(x), 3)

    return net((9,), build)


@stock
def regression() -> Any:
    return net((5, 6), lambda x: kl.Dense(2, name="out")(kl.Dense(7, activation="relu")(x)))


@stock
def binary() -> Any:
    return net((6,), lambda x: kl.Dense(2, activation="sigmoid", name="head")(kl.Dense(5, activation="sigmoid")(x)))


@stock
def softmax_inside() -> Any:
    """Attention of a kind: a softmax in the middle, multiplied with what it looked at."""

    def build(x: Any) -> Any:
        a = kl.Dense(6, activation="softmax", name="looks")(x)
        return kl.Dense(3, name="out")(kl.Multiply()([a, kl.Dense(6, name="values")(x)]))

    return net((8,), build)


@stock
def conv() -> Any:
    """Convolutions: SAME with stride 2 on odd sizes, VALID with stride, dilation, 1x1, 1x1 with stride."""

    def build(x: Any) -> Any:
        x = kl.Conv2D(5, 3, strides=2, padding="same", activation="relu6")(x)
        x = kl.Conv2D(6, 1, activation="relu")(x)
        x = kl.Conv2D(4, 3, dilation_rate=2, padding="same")(x)
        x = kl.Conv2D(5, (2, 3), strides=(1, 2), padding="valid", use_bias=False)(x)
        x = kl.Conv2D(4, 1, strides=2)(x)
        return head(kl.Flatten()(x))

    return net((13, 11, 3), build)


@stock
def conv_even() -> Any:
    """Strides over even sizes, where SAME pads one side only; a stride larger than the kernel; a large kernel."""

    def build(x: Any) -> Any:
        x = kl.Conv2D(4, 5, strides=2, padding="same", activation="relu")(x)
        x = kl.Conv2D(4, 2, strides=3, padding="valid", activation="relu")(x)
        x = kl.Conv2D(5, 3, padding="valid", dilation_rate=(1, 1))(kl.ZeroPadding2D(((1, 2), (0, 3)))(x))
        return head(kl.GlobalAveragePooling2D()(x))

    return net((16, 20, 2), build)


@stock
def depthwise() -> Any:
    def build(x: Any) -> Any:
        x = kl.DepthwiseConv2D(3, strides=2, padding="same", activation="relu")(x)
        x = kl.DepthwiseConv2D((3, 2), padding="valid", use_bias=False)(x)
        x = kl.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
        x = kl.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
        return head(kl.GlobalAveragePooling2D(keepdims=True)(x))

    return net((13, 12, 4), build)


@stock
def depthwise_one() -> Any:
    """One input channel that a depthwise convolution multiplies."""

    def build(x: Any) -> Any:
        x = kl.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=5, activation="relu6")(x)
        x = kl.SeparableConv2D(6, 3, padding="same")(x)
        return head(kl.Flatten()(x))

    return net((9, 8, 1), build)


@stock
def transposed() -> Any:
    def build(x: Any) -> Any:
        x = kl.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
        x = kl.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu")(x)
        return kl.Conv2DTranspose(2, (2, 3), strides=(2, 1), padding="valid", name="out")(x)

    return net((6, 8, 2), build)


@stock
def residual() -> Any:
    """ADD, SUB, MUL with and without broadcast, CONCATENATION, fused activations."""

    def build(x: Any) -> Any:
        a = kl.Conv2D(6, 3, padding="same")(x)
        b = kl.Conv2D(6, 1)(x)
        gate = kl.Dense(6, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(a))
        c = kl.ReLU()(kl.Add()([a, b]))
        d = kl.Subtract()([a, kl.Multiply()([c, gate])])
        x = kl.Concatenate()([c, d, kl.Conv2D(2, 1)(x)])
        return head(kl.Flatten()(kl.Conv2D(3, 3, strides=2)(x)))

    return net((7, 6, 3), build)


@stock
def pools() -> Any:
    """Windows that tile the map and windows that overlap, on odd sizes, padded and not."""

    def build(x: Any) -> Any:
        x = kl.Conv2D(5, 3, padding="same")(x)
        a = kl.MaxPooling2D(2)(x)
        b = kl.AveragePooling2D(2)(x)
        c = kl.MaxPooling2D(3, strides=2, padding="same")(kl.Conv2D(4, 2, padding="valid")(x))
        d = kl.AveragePooling2D(3, strides=2, padding="same")(kl.Conv2D(4, 2, padding="valid")(x))
        x = kl.Concatenate()([kl.Flatten()(y) for y in (a, b, c, d)])
        return head(x)

    return net((13, 11, 2), build)


@stock
def activations() -> Any:
    def build(x: Any) -> Any:
        x = kl.LeakyReLU(negative_slope=0.2)(kl.Conv2D(5, 3)(x))
        x = kl.PReLU(shared_axes=[1, 2])(kl.Conv2D(5, 1)(x))
        x = kl.Activation("hard_swish")(kl.Conv2D(5, 1)(x))
        x = kl.Activation("tanh")(kl.Conv2D(4, 1)(x))
        x = kl.Activation("silu")(kl.Conv2D(4, 1)(x))
        x = kl.Activation("hard_sigmoid")(kl.Conv2D(4, 1)(x))
        return head(kl.Flatten()(x))

    return net((6, 6, 3), build)


@stock
def resize() -> Any:
    def build(x: Any) -> Any:
        x = kl.UpSampling2D((2, 3))(kl.Conv2D(3, 3, padding="same")(x))
        x = kl.UpSampling2D(2, interpolation="bilinear")(kl.Conv2D(2, 1)(x))
        return kl.Conv2D(2, 3, strides=2, name="out")(x)

    return net((5, 4, 2), build)


@stock
def norms() -> Any:
    """Batch-norm that can't fold into what comes before it, and a layer-norm."""

    def build(x: Any) -> Any:
        x = kl.BatchNormalization()(kl.Dense(8, activation="relu")(x))
        x = kl.LayerNormalization()(kl.Dense(8, activation="tanh")(x))
        return head(x)

    return net((7,), build)


class Shapes(tf.Module):
    """TRANSPOSE, SLICE, STRIDED_SLICE, SPLIT, PACK, UNPACK, BATCH_MATMUL, SUM, MAXIMUM, DIV, SQUARED_DIFFERENCE and the like."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(5)
        self.a = tf.Variable(rng.standard_normal((6, 8)) / 3, dtype=F32)
        self.b = tf.Variable(rng.standard_normal((8, 6)) / 3, dtype=F32)
        self.c = tf.Variable(rng.standard_normal((18, 3)) / 3, dtype=F32)

    @tf.function(input_signature=[tf.TensorSpec((1, 4, 6), F32)])
    def call(self, x: Any) -> Any:
        h = tf.tanh(tf.matmul(tf.reshape(x, [-1, 6]), self.a))
        h = tf.reshape(h, [1, 4, 8])
        p, q = tf.split(h, 2, axis=2)
        scores = tf.matmul(p, q, transpose_b=True)  # [1, 4, 4]
        mixed = tf.matmul(tf.nn.softmax(scores), h)
        t = tf.transpose(mixed, [0, 2, 1])  # [1, 8, 4]
        rows = tf.unstack(t[:, 1:5, :], axis=1)  # four of [1, 4]
        joined = tf.stack([rows[0] * rows[1], rows[2] / (1.5 + tf.square(rows[3]))], axis=1)  # [1, 2, 4]
        spread = tf.math.squared_difference(joined, tf.reduce_mean(joined, axis=2, keepdims=True))
        scale = tf.math.rsqrt(tf.reduce_sum(spread, axis=2, keepdims=True) + 0.1)
        peaks = tf.maximum(tf.reduce_max(tf.matmul(mixed, self.b), axis=1), 0.1)  # [1, 6]
        z = tf.concat([tf.reshape(joined * scale, [1, 8]), peaks, tf.exp(-tf.abs(t[:, 2, :]))], axis=1)
        return tf.matmul(z, self.c)


@stock
def shapes() -> Any:
    return Shapes()


def int8(model: Any, *, per_channel: bool) -> bytes:
    """Return the net with weights, activations, inputs and outputs as int8, calibrated on noise."""
    rng = np.random.default_rng(8)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    shape = (1, *model.input_shape[1:])
    converter.representative_dataset = lambda: ([rng.standard_normal(shape).astype(np.float32)] for _ in range(64))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel = not per_channel
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    return bytes(converter.convert())


def int8_softmax() -> bytes:
    """A conv net of int8 for four classes, with a scale for each class of its head."""

    def build(x: Any) -> Any:
        x = kl.Conv2D(8, 3, strides=2, activation="relu")(x)
        x = kl.DepthwiseConv2D(3, activation="relu6")(x)
        return head(kl.GlobalAveragePooling2D()(x))

    return int8(net((12, 12, 2), build), per_channel=True)


def int8_logistic() -> bytes:
    """A dense net of int8 with one logistic output, and one scale for its whole head."""
    model = net((20,), lambda x: kl.Dense(1, activation="sigmoid", name="head")(kl.Dense(24, activation="relu")(x)))
    return int8(model, per_channel=False)


def half() -> bytes:
    """The net of `residual` with its weights stored as float16."""
    return convert(residual(), half=True)


def main(wanted: list[str]) -> None:
    STOCK.mkdir(exist_ok=True)
    others = {"half": half, "int8_softmax": int8_softmax, "int8_logistic": int8_logistic}
    for name in (*MODELS, *others):
        if not wanted or name in wanted:
            file = others[name]() if name in others else convert(MODELS[name]())
            (STOCK / f"{name}.tflite").write_bytes(file)
            print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
