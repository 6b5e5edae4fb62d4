"""Makes int8 files as converters write them, over kinds of nets and of conversions: what an int8 head is tried on.

Needs TensorFlow, which the project itself does not:

    python tests/models/author_int8.py FOLDER [NAME...]

The smallest few stand in tests/models/stock, where tests find them; the rest go wherever FOLDER says. No net is trained: a head
learns from what the layers in front make of its samples, and random layers tell random samples apart as well as any.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras.layers as kl
import numpy as np
import tensorflow as tf

FILES: dict[str, Callable[[], bytes]] = {}
INT8, UINT8, FLOAT32 = tf.int8, tf.uint8, tf.float32


def converted(
    model: Any, *, ends: tuple[Any, Any] = (FLOAT32, FLOAT32), biases: bool = True, wide: bool = False, dense_per_channel: bool = True,
    per_channel: bool = True, old: bool = False, bias32: bool = False, spread: float = 1.0,
) -> bytes:  # fmt: skip
    """Return the model as a file of int8, calibrated on noise.

    ends: types of input and output. biases: fresh ones are zero, and then the converter leaves them out. wide: activations of int16.
    bias32: its biases of 32 bits, not 64. old: by the quantizer of before 2020. spread: of the noise.
    """
    rng = np.random.default_rng(8)
    if biases and isinstance(model, keras.Model):
        for layer in model.layers:
            for v in layer.weights:
                if v.path.endswith("bias") and "lstm" not in v.path:
                    v.assign(rng.normal(0, 0.2, v.shape))
    if isinstance(model, keras.Model):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        shapes = [(1, *x.shape[1:]) for x in model.inputs]
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([model.call.get_concrete_function()], model)
        shapes = [tuple(x.shape) for x in model.call.get_concrete_function().inputs if x.dtype == tf.float32][:1]
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([(spread * rng.standard_normal(s)).astype(np.float32) for s in shapes] for _ in range(48))
    int8, int16 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    converter.target_spec.supported_ops = [int16 if wide else int8]
    converter.inference_input_type, converter.inference_output_type = ends
    converter._experimental_disable_per_channel = not per_channel
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not dense_per_channel
    if old:
        converter.experimental_new_quantizer = False
    if bias32:
        converter._experimental_full_integer_quantization_bias_type = tf.int32
    return bytes(converter.convert())


def net(shape: tuple[int, ...], build: Callable[[Any], Any], seed: int = 5) -> Any:
    keras.utils.set_random_seed(seed)
    x = keras.Input(shape)
    return keras.Model(x, build(x))


def mlp(classes: int = 4, hidden: int = 24, inputs: int = 20, last: str | None = "softmax", bias: bool = True) -> Any:
    return net((inputs,), lambda x: kl.Dense(classes, activation=last, use_bias=bias, name="head")(kl.Dense(hidden, activation="relu")(x)))


def conv(classes: int = 4, last: str | None = "softmax") -> Any:
    def build(x: Any) -> Any:
        x = kl.Conv2D(8, 3, strides=2, activation="relu")(x)
        x = kl.DepthwiseConv2D(3, activation="relu6")(x)
        return kl.Dense(classes, activation=last, name="head")(kl.GlobalAveragePooling2D()(x))

    return net((12, 12, 2), build)


def spotting() -> Any:
    """A DS-CNN for words: 49 frames of 10 coefficients."""

    def build(x: Any) -> Any:
        x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(32, (10, 4), strides=2, padding="same")(x)))
        for _ in range(3):
            x = kl.ReLU()(kl.BatchNormalization()(kl.DepthwiseConv2D(3, padding="same")(x)))
            x = kl.ReLU()(kl.BatchNormalization()(kl.Conv2D(32, 1)(x)))
        return kl.Dense(12, activation="softmax")(kl.Dropout(0.2)(kl.GlobalAveragePooling2D()(x)))

    return net((49, 10, 1), build)


def mobilenet(classes: int = 10) -> Any:
    keras.utils.set_random_seed(5)
    return keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=classes)


def pointwise(reshape: bool) -> Any:
    """A classifier whose last layer is a convolution of 1x1."""

    def build(x: Any) -> Any:
        x = kl.GlobalAveragePooling2D(keepdims=True)(kl.Conv2D(16, 3, strides=2, activation="relu")(x))
        x = kl.Conv2D(5, 1)(x)
        return kl.Softmax()(kl.Reshape((5,))(x)) if reshape else kl.Flatten()(kl.Softmax()(x))

    return net((12, 12, 2), build)


def lstm() -> Any:
    """A recurrent net; the converter fuses its layer only for a batch of a fixed size."""
    keras.utils.set_random_seed(5)
    x = keras.Input((16, 6), batch_size=1)
    return keras.Model(x, kl.Dense(4, activation="softmax")(kl.LSTM(16)(x)))


def two_outputs() -> Any:
    keras.utils.set_random_seed(5)
    x = keras.Input((20,))
    h = kl.Dense(24, activation="relu")(x)
    return keras.Model(x, [kl.Dense(4, activation="softmax", name="kind")(h), kl.Dense(2, name="place")(h)])


def decoder(last: str | None) -> Any:
    """An auto-encoder."""
    return net((32,), lambda x: kl.Dense(32, activation=last)(kl.Dense(16, activation="relu")(kl.Dense(6, activation="relu")(x))))


class Aware(tf.Module):
    """A net that was trained with the rounding in mind: the ranges stand in it, and are those that the training came to."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.a = tf.Variable(rng.normal(0, 0.3, (20, 24)), dtype=tf.float32)
        self.b = tf.Variable(rng.normal(0, 0.3, (24, 4)), dtype=tf.float32)
        self.c = tf.Variable(rng.normal(0, 0.1, (4,)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 20), tf.float32)])
    def call(self, x: Any) -> Any:
        fake = tf.quantization.fake_quant_with_min_max_args
        h = fake(x, -4, 4)
        h = fake(tf.nn.relu(tf.matmul(h, fake(self.a, -1, 1, narrow_range=True))), 0, 6)
        z = fake(tf.matmul(h, fake(self.b, -1, 1, narrow_range=True)) + self.c, -9, 9)
        return tf.nn.softmax(z)


def named(**made: Callable[[], bytes]) -> None:
    FILES.update(made)


named(
    # Kinds of conversion, of the smallest net.
    int8_keras=lambda: converted(mlp(), biases=False),  # as three lines of the tutorials make it, fresh
    int8_float_ends=lambda: converted(mlp()),
    int8_int8_ends=lambda: converted(mlp(), ends=(INT8, INT8)),
    int8_uint8_ends=lambda: converted(mlp(), ends=(UINT8, UINT8)),
    int8_uint8_in=lambda: converted(mlp(), ends=(UINT8, FLOAT32)),
    int8_int8_out=lambda: converted(mlp(), ends=(FLOAT32, INT8)),
    int8_one_scale=lambda: converted(mlp(), dense_per_channel=False),
    int8_one_scale_no_bias=lambda: converted(mlp(bias=False), dense_per_channel=False, ends=(INT8, INT8)),
    int8_no_bias=lambda: converted(mlp(bias=False)),
    int8_old=lambda: converted(mlp(), old=True),
    int8_old_conv=lambda: converted(conv(), old=True, ends=(INT8, INT8)),
    int8_logits=lambda: converted(mlp(last=None)),
    int8_logits_out=lambda: converted(mlp(last=None), ends=(INT8, INT8)),
    int8_one_logistic=lambda: converted(mlp(1, last="sigmoid")),
    int8_one_logistic_u8=lambda: converted(mlp(1, last="sigmoid"), ends=(UINT8, UINT8), biases=False),
    int8_labels=lambda: converted(mlp(5, last="sigmoid")),
    int8_narrow=lambda: converted(mlp(), spread=0.01),
    int8_aware=lambda: converted(Aware()),
    int8_wide=lambda: converted(mlp(), wide=True),
    int8_wide_ends=lambda: converted(mlp(), wide=True, ends=(tf.int16, tf.int16)),
    int8_wide_bias32=lambda: converted(mlp(), wide=True, bias32=True),
    int8_wide_no_bias=lambda: converted(mlp(bias=False), wide=True),
    int8_wide_conv=lambda: converted(pointwise(True), wide=True),
    int8_wide_one_scale=lambda: converted(mlp(1, last="sigmoid"), wide=True, dense_per_channel=False),
    # Kinds of nets.
    int8_conv=lambda: converted(conv(), ends=(INT8, INT8)),
    int8_conv_per_tensor=lambda: converted(conv(), per_channel=False, dense_per_channel=False),
    int8_pointwise=lambda: converted(pointwise(True)),
    int8_pointwise_soft=lambda: converted(pointwise(False), ends=(INT8, INT8)),
    int8_spotting=lambda: converted(spotting(), ends=(INT8, INT8)),
    int8_mobilenet=lambda: converted(mobilenet(), ends=(UINT8, UINT8)),
    int8_lstm=lambda: converted(lstm()),
    int8_two_outputs=lambda: converted(two_outputs()),
    int8_autoencoder=lambda: converted(decoder(None)),
    int8_autoencoder_out=lambda: converted(decoder(None), ends=(INT8, INT8)),
    int8_autoencoder_logistic=lambda: converted(decoder("sigmoid")),
    int8_autoencoder_tanh=lambda: converted(decoder("tanh")),
    int8_regressor=lambda: converted(mlp(1, last=None)),
    int8_regressor_relu=lambda: converted(mlp(1, last="relu")),
    int8_thousand=lambda: converted(mlp(1000, 1280, 20), ends=(INT8, INT8)),
    int8_broad=lambda: converted(mlp(2, 16384, 8)),
    int8_sequence=lambda: converted(net((10, 6), lambda x: kl.Dense(3, activation="softmax")(kl.Conv1D(8, 3, activation="relu")(x)))),
    int8_flat_map=lambda: converted(
        net((12, 12, 2), lambda x: kl.Dense(4, activation="softmax")(kl.Flatten()(kl.Conv2D(4, 3, strides=2, activation="relu")(x))))
    ),
)


def main(folder: str, *wanted: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        if not wanted or name in wanted:
            file = make()
            (Path(folder) / f"{name}.tflite").write_bytes(file)
            print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
