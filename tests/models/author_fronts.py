"""Makes the stock .tflite files of tests/models/fronts: fronts that take one sample at a time, and weights that are not plain float32.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21:
    python tests/models/author_fronts.py             all files
    python tests/models/author_fronts.py loop        some of them
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import flatbuffers
import numpy as np
import tensorflow as tf
from author_stock import head, net
from keras import layers as kl
from tensorflow.lite.python import schema_py_generated as schema

FRONTS = Path(__file__).parent / "fronts"
F32 = tf.float32
FILES: dict[str, Callable[[], bytes]] = {}


def front(make: Callable[[], bytes]) -> Callable[[], bytes]:
    FILES[make.__name__] = make
    return make


class Module(tf.Module):
    """A front of its own kind behind which a dense head of three classes stands."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        rng = np.random.default_rng(11)
        self.shape = shape
        self.kernel = tf.Variable(rng.standard_normal((width, 3)) / np.sqrt(width), dtype=F32)
        self.bias = tf.Variable(0.1 * rng.standard_normal(3), dtype=F32)

    def answer(self, features: Any) -> Any:
        return tf.nn.softmax(tf.matmul(features, self.kernel) + self.bias)


def converted(module: Module, call: Callable[[Any], Any], *, custom: bool = False, state: bool = False) -> bytes:
    function = tf.function(call, input_signature=[tf.TensorSpec((1, *module.shape), F32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    converter.allow_custom_ops = custom
    converter.experimental_enable_resource_variables = state
    return bytes(converter.convert())


@front
def branch() -> bytes:
    """IF: another filter for loud samples than for quiet ones."""
    module = Module((12,), 8)
    rng = np.random.default_rng(1)
    loud, quiet = (tf.constant(rng.standard_normal((12, 8)) / 3, F32) for _ in range(2))

    def call(x: Any) -> Any:
        mixed = tf.cond(tf.reduce_sum(x) > 0, lambda: tf.tanh(tf.matmul(x, loud)), lambda: tf.nn.relu(tf.matmul(x, quiet)))
        return module.answer(mixed)

    return converted(module, call)


@front
def loop() -> bytes:
    """WHILE: as many turns as the sample asks for."""
    module = Module((12,), 12)
    turn = tf.constant(np.random.default_rng(2).standard_normal((12, 12)) / 3, F32)

    def call(x: Any) -> Any:
        turns = 1 + tf.cast(tf.minimum(tf.abs(tf.reduce_sum(x)), 5.0), tf.int32)
        _, out = tf.while_loop(lambda i, _: i < turns, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, turn)) + x), (0, x))
        return module.answer(out)

    return converted(module, call)


@front
def late() -> bytes:
    """IF behind a layer with weights: no gradient passes it."""
    module = Module((12,), 8)
    module.before = tf.Variable(np.random.default_rng(8).standard_normal((12, 8)) / 3, dtype=F32)

    def call(x: Any) -> Any:
        h = tf.matmul(x, module.before)
        return module.answer(tf.cond(tf.reduce_sum(h) > 0, lambda: tf.tanh(h), lambda: tf.nn.relu(h)))

    return converted(module, call)


@front
def endless() -> bytes:
    """WHILE that never ends where the first number of the sample is above 100."""
    module = Module((12,), 12)

    def call(x: Any) -> Any:
        _, out = tf.while_loop(lambda i, h: tf.logical_or(i < 3, h[0, 0] > 100), lambda i, h: (i + 1, h + 0.5), (0, x))
        return module.answer(out)

    return converted(module, call)


@front
def stream() -> bytes:
    """VAR_HANDLE: what it heard last stands in front of what it hears now, and counts."""
    module = Module((4, 3), 10)
    rng = np.random.default_rng(3)
    module.before = tf.Variable(0.3 * np.ones((1, 2, 3)), dtype=F32)
    kernel = tf.constant(rng.standard_normal((6 * 3, 10)) / 4, F32)

    def call(x: Any) -> Any:
        joined = tf.concat([module.before, x], axis=1)
        module.before.assign(joined[:, 4:, :])
        return module.answer(tf.nn.relu(tf.matmul(tf.reshape(joined, (1, 18)), kernel)))

    return converted(module, call, state=True)


@front
def mask() -> bytes:
    """WHERE: how many entries count is the sample's own."""
    module = Module((10,), 6)
    kernel = tf.constant(np.random.default_rng(4).standard_normal((10, 6)) / 3, F32)

    def call(x: Any) -> Any:
        loud = tf.gather(kernel, tf.reshape(tf.where(x[0] > 0), [-1]))  # [n, 6]
        return module.answer(tf.tanh(tf.reduce_sum(loud, axis=0, keepdims=True)))

    return converted(module, call)


@front
def spectrum() -> bytes:
    """AudioSpectrogram and Mfcc, custom operators that the runtimes have."""
    module = Module((400,), 3 * 10)

    def call(x: Any) -> Any:
        heard = tf.raw_ops.AudioSpectrogram(input=tf.reshape(x, (400, 1)), window_size=128, stride=128, magnitude_squared=True)
        rate = tf.constant(8000)
        found = tf.raw_ops.Mfcc(
            spectrogram=heard, sample_rate=rate, upper_frequency_limit=4000, filterbank_channel_count=20, dct_coefficient_count=10
        )
        return module.answer(tf.reshape(found, (1, 30)) * 0.05)

    return converted(module, call, custom=True)


@front
def lstm() -> bytes:
    """UNIDIRECTIONAL_SEQUENCE_LSTM, whose state is a tensor of the interpreter's."""
    return keras_file(net((6, 4), lambda x: head(kl.LSTM(5)(x))))


def keras_file(model: Any, **settings: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    for name, value in settings.items():
        setattr(converter, name, value)
    return bytes(converter.convert())


# tflite-runtime knows no dense layer with a scale for each output.
ONE_SCALE = {"_experimental_disable_per_channel_quantization_for_dense_layers": True}


def small(x: Any) -> Any:
    x = kl.Conv2D(8, 3, strides=2, activation="relu", name="first")(x)
    x = kl.DepthwiseConv2D(3, padding="same", name="second")(x)
    x = kl.Conv2D(32, 1, activation="relu", name="third")(x)
    x = kl.Dense(32, activation="relu", name="hidden")(kl.Flatten()(x))
    return head(x)


@front
def cell() -> bytes:
    """RNN, whose state is a tensor that the runtime keeps from call to call; no converter of today writes one."""
    model = net((4,), lambda x: head(kl.Dense(5, activation="relu", name="cell")(x)))
    file = schema.ModelT.InitFromPackedBuf(bytearray(keras_file(model)), 0)
    graph = file.subgraphs[0]
    op = graph.operators[0]
    buffer, recurrent, state, code = schema.BufferT(), schema.TensorT(), schema.TensorT(), schema.OperatorCodeT()
    buffer.data = np.frombuffer((np.random.default_rng(6).standard_normal((5, 5)) / 2).astype("<f4").tobytes(), "u1")
    recurrent.shape, recurrent.name, recurrent.buffer = [5, 5], b"recurrent", len(file.buffers)
    state.shape, state.name, state.isVariable = [1, 5], b"state", True
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.RNN
    code.version = 1
    op.opcodeIndex, op.builtinOptionsType = len(file.operatorCodes), schema.BuiltinOptions.RNNOptions
    op.builtinOptions = schema.RNNOptionsT()
    op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.TANH
    op.inputs = [op.inputs[0], op.inputs[1], len(graph.tensors), op.inputs[2], len(graph.tensors) + 1]
    file.buffers.append(buffer)
    file.operatorCodes.append(code)
    graph.tensors += [recurrent, state]
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


@front
def dynamic_range() -> bytes:
    """int8 weights, float32 activations, of dense layers and convolutions; the first one is small enough to stay float32."""

    def build(x: Any) -> Any:
        x = kl.Conv2D(8, 3, strides=2, activation="relu", name="first")(x)
        x = kl.Conv2D(128, 1, activation="relu", name="wide")(x)
        x = kl.DepthwiseConv2D(3, strides=2, padding="same", name="deep")(x)
        x = kl.Conv2D(16, 1, activation="relu", name="narrow")(x)
        x = kl.Conv2D(32, (2, 3), name="window")(x)
        return head(kl.Dense(300, activation="relu", name="hidden")(kl.Flatten()(x)))

    return keras_file(net((13, 13, 3), build), optimizations=[tf.lite.Optimize.DEFAULT], **ONE_SCALE)


def pruned() -> Any:
    model = net((13, 13, 3), small)
    rng = np.random.default_rng(5)
    values = []
    for w in model.weights:
        value = np.asarray(w)
        if value.ndim >= 2:  # blocks of zeros
            value = value * (rng.random(value.shape) < 0.2)
        values.append(value)
    model.set_weights(values)
    return model


@front
def sparse() -> bytes:
    return keras_file(pruned(), optimizations=[tf.lite.Optimize.EXPERIMENTAL_SPARSITY])


@front
def sparse_half() -> bytes:
    both = [tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    return keras_file(pruned(), optimizations=both, target_spec=tf.lite.TargetSpec(supported_types=[tf.float16]))


@front
def sparse_int8() -> bytes:
    return keras_file(pruned(), optimizations=[tf.lite.Optimize.DEFAULT, tf.lite.Optimize.EXPERIMENTAL_SPARSITY], **ONE_SCALE)


def main(wanted: list[str]) -> None:
    FRONTS.mkdir(exist_ok=True)
    for name, make in FILES.items():
        if not wanted or name in wanted:
            file = make()
            (FRONTS / f"{name}.tflite").write_bytes(file)
            print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
