"""Makes the files of tests/models/open with Keras and the converter: shapes that it leaves open, and inputs of every kind.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21:
    python tests/models/author_open.py              all files
    python tests/models/author_open.py stft tokens  some of them

Unlike those of tests/models/stock they have no fixed batch, as models converted in three lines have none, but for those that say so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import author_stock
import keras
import numpy as np
import tensorflow as tf
from author_stock import head, vary
from keras import layers as kl

OPEN = Path(__file__).parent / "open"
F32 = tf.float32
MODELS: dict[str, Callable[[], Any]] = {}


def opened(make: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[make.__name__] = make
    return make


def net(shape: tuple[int | None, ...], build: Callable[[Any], Any], *, batch: int | None = None) -> Any:
    x = keras.Input(shape, batch_size=batch)
    return vary(keras.Model(x, build(x)), 7)


@opened
def sequence() -> Any:
    """A dense layer on every step of a sequence."""
    return net((10, 6), lambda x: head(kl.Flatten()(kl.Dense(5, activation="relu", name="steps")(x))))


@opened
def open_lstm() -> Any:
    """An unrolled LSTM whose first state is made of the batch's size."""
    return net((4, 5), lambda x: head(kl.LSTM(3, unroll=True)(x)))


@opened
def open_gru() -> Any:
    return net((4, 5), lambda x: head(kl.GRU(3, unroll=True)(x)))


@opened
def dilated() -> Any:
    """Dilated convolutions of one dimension, which become SPACE_TO_BATCH_ND and its inverse."""

    def build(x: Any) -> Any:
        x = kl.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu")(x)
        return head(kl.GlobalAveragePooling1D()(kl.Conv1D(4, 3, dilation_rate=4, padding="same")(x)))

    return net((16, 3), build)


@opened
def transformer() -> Any:
    def build(x: Any) -> Any:
        p = kl.Dense(8)(x)
        x = kl.LayerNormalization()(kl.Add()([p, kl.MultiHeadAttention(2, 4)(p, p)]))
        x = kl.LayerNormalization()(kl.Add()([x, kl.Dense(8)(kl.Dense(12, activation="relu")(x))]))
        return head(kl.GlobalAveragePooling1D()(x))

    return net((7, 6), build)


@opened
def convnext() -> Any:
    """A block of ConvNeXt: norms over channels, dense layers on maps."""

    def build(x: Any) -> Any:
        x = kl.LayerNormalization(epsilon=1e-6)(kl.Conv2D(6, 4, strides=4)(x))
        y = kl.LayerNormalization(epsilon=1e-6)(kl.DepthwiseConv2D(5, padding="same")(x))
        y = kl.Dense(6)(kl.Activation("gelu")(kl.Dense(12)(y)))
        return head(kl.GlobalAveragePooling2D()(kl.Add()([x, y])))

    return net((12, 12, 2), build)


class Stft(keras.Layer):
    def call(self, x: Any) -> Any:
        return tf.abs(tf.signal.stft(x, 64, 32, fft_length=64))


@opened
def stft() -> Any:
    """A spectrogram in front, as audio models have it."""
    return net((256,), lambda x: head(kl.Flatten()(kl.Dense(4, activation="relu")(Stft()(x)))))


@opened
def reshaped() -> Any:
    """Flattened and laid out anew by chains of SHAPE, STRIDED_SLICE and PACK."""
    return net((12, 2), lambda x: kl.Dense(3)(kl.Reshape((6, 4))(kl.Flatten()(kl.Dense(2, activation="tanh")(x)))))


class Token(keras.Layer):
    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")

    def call(self, x: Any) -> Any:
        return tf.concat([tf.broadcast_to(self.token, [tf.shape(x)[0], 1, x.shape[-1]]), x], 1)


@opened
def token() -> Any:
    """A learnt token in front of a sequence, as often as the batch has samples."""
    return net((5, 6), lambda x: head(kl.Lambda(lambda v: v[:, 0])(kl.Dense(6, activation="tanh")(Token()(x)))))


@opened
def upward() -> Any:
    return net((6, 5, 2), lambda x: kl.Conv2DTranspose(2, 3, strides=2, padding="same", name="up")(kl.Conv2D(3, 3, activation="relu")(x)))


@opened
def any_size() -> Any:
    return net((None, None, 3), lambda x: head(kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, activation="relu")(x))))


# Inputs.


@opened
def two_inputs() -> Any:
    a, b = keras.Input((4,), name="left"), keras.Input((3, 2), name="right")
    return vary(keras.Model([a, b], head(kl.Concatenate()([kl.Dense(5, activation="relu")(a), kl.Flatten()(b)]))), 4)


class Gathered(keras.Layer):
    def call(self, x: Any) -> Any:
        pixels, number, flags, counts = x
        parts = [tf.cast(pixels, F32) / 255, number[:, None], tf.reshape(tf.cast(flags, F32), [-1, 4]), tf.cast(counts, F32)]
        return tf.concat(parts, 1)


@opened
def four_kinds() -> Any:
    """Inputs of uint8, float32 without an axis of its own, bool and int64."""
    kinds = [((5,), "uint8"), ((), "float32"), ((2, 2), "bool"), ((3,), "int64")]
    x = [keras.Input(shape, dtype=kind, name=f"part_{i}") for i, (shape, kind) in enumerate(kinds)]
    return vary(keras.Model(x, head(kl.Dense(6, activation="relu")(Gathered()(x)))), 5)


@opened
def tokens() -> Any:
    """Numbers of words, looked up."""
    x = keras.Input((7,), dtype="int32")
    return vary(keras.Model(x, head(kl.GlobalAveragePooling1D()(kl.Embedding(20, 6)(x)))), 3)


@opened
def eight_at_once() -> Any:
    return net((9, 8, 2), lambda x: head(kl.Flatten()(kl.Conv2D(4, 3, strides=2, activation="relu")(x))), batch=8)


class Centred(keras.Layer):
    def call(self, x: Any) -> Any:
        return x - tf.reduce_mean(x, 0, keepdims=True)


@opened
def mixing() -> Any:
    """Four samples at once, of which each sees the others."""
    return net((6,), lambda x: head(Centred()(x)), batch=4)


class Bare(tf.Module):
    """No axis for samples, neither in front nor behind."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(np.random.default_rng(2).standard_normal((60, 3)) / 5, dtype=F32)

    @tf.function(input_signature=[tf.TensorSpec((10, 6), F32)])
    def call(self, x: Any) -> Any:
        return tf.nn.softmax(tf.matmul(tf.reshape(tf.tanh(x), [1, 60]), self.w))[0]


@opened
def bare() -> Any:
    return Bare()


class Two(tf.Module):
    """Two signatures, each of its own subgraph."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.w, self.v = (tf.Variable(rng.standard_normal(shape), dtype=F32) for shape in ((6, 3), (4, 2)))

    @tf.function(input_signature=[tf.TensorSpec((1, 6), F32, name="x")])
    def first(self, x: Any) -> Any:
        return {"y": tf.nn.softmax(tf.matmul(x, self.w))}

    @tf.function(input_signature=[tf.TensorSpec((1, 4), F32, name="left"), tf.TensorSpec((1, 4), tf.int32, name="right")])
    def second(self, left: Any, right: Any) -> Any:
        return {"z": tf.matmul(left * tf.cast(right, F32), self.v)}


def two_signatures() -> bytes:
    module = Two()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"first": module.first, "second": module.second})
        return bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def main(wanted: list[str]) -> None:
    OPEN.mkdir(exist_ok=True)
    for name in (*MODELS, "two_signatures"):
        if not wanted or name in wanted:
            file = two_signatures() if name == "two_signatures" else author_stock.convert(MODELS[name]())
            (OPEN / f"{name}.tflite").write_bytes(file)
            print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
