"""Makes the stock files of tests/models/stock that hold functions of one entry, choices, look-ups and sequences.

Not needed at run time: the files are committed. Run from the top folder with tensorflow-cpu 2.21:
    python -m tests.models.author_sequences              all files
    python -m tests.models.author_sequences gathers      some of them

The weights are random, since only their gradients matter.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import tensorflow as tf
from keras import layers as kl

from tests.models.author_stock import F32, STOCK, convert, head, net


class Net(tf.Module):
    """Formulas with weights in front of them, so that a gradient has to pass each; the seed is the file's own."""

    x: tuple[int, ...] = (1, 4, 6)

    def __init__(self, seed: int = 5) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.kept: dict[str, Any] = {}

    def w(self, name: str, *shape: int) -> Any:
        if name not in self.kept:
            self.kept[name] = tf.Variable(self.rng.standard_normal(shape) / np.sqrt(max(2, shape[0])), dtype=F32, name=name)
        return self.kept[name]

    def build(self, x: Any) -> Any:
        raise NotImplementedError

    def file(self) -> bytes:
        self.build(tf.zeros(self.x))  # the weights
        call = tf.function(self.build, input_signature=[tf.TensorSpec(self.x, F32)])
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], self).convert())


class Functions(Net):
    """SIN, COS, POW, MINIMUM, FLOOR_MOD, FLOOR, ROUND, CEIL, SIGN, RELU_N1_TO_1, RELU_0_TO_1, ADD_N, L2_NORMALIZATION, REVERSE_V2."""

    def build(self, x: Any) -> Any:
        h = tf.matmul(tf.reshape(x, [4, 6]), self.w("a", 6, 8))
        a = tf.sin(h) + tf.cos(2.0 * h) * tf.minimum(h, 0.3)
        base = tf.exp(0.3 * tf.matmul(h, self.w("b", 8, 8)))
        b = tf.pow(base, h) + tf.pow(base, 1.7)
        c = tf.math.floormod(h, 0.7 + tf.square(base)) + tf.floor(h) * h + tf.sign(h) * a + tf.math.ceil(a) * h + tf.round(a)
        d = tf.nn.l2_normalize(b + c, axis=-1)
        e = tf.clip_by_value(h, 0.0, 1.0) + tf.clip_by_value(h * 1.3, -1.0, 1.0)
        f = tf.add_n([a, b, c, d, e, tf.sqrt(base)])
        y = tf.reverse(f, [1]) * f
        return tf.matmul(tf.reshape(y, [1, 32]), self.w("out", 32, 3))


class Choices(Net):
    """SELECT and SELECT_V2 with and without broadcasting, comparisons, logical operators, CAST, ONE_HOT, ARG_MAX, TOPK_V2."""

    def build(self, x: Any) -> Any:
        h = tf.reshape(tf.matmul(tf.reshape(x, [4, 6]), self.w("a", 6, 8)), [1, 4, 8])
        g = tf.reshape(tf.matmul(tf.reshape(x, [4, 6]), self.w("b", 6, 1)), [1, 4, 1])
        a = tf.where(h > 0.1, h, g)  # three shapes
        b = tf.where(g <= h, tf.tanh(h), h * h)
        c = tf.where(tf.logical_and(h > -0.5, tf.logical_not(tf.not_equal(h, tf.abs(h)))), a, b)
        d = tf.where(tf.logical_or(h < 0.2, tf.equal(a, h)), a * b, 0.25)
        best = tf.one_hot(tf.argmax(h, axis=-1), 8)
        top = tf.math.top_k(x, 3)[0]
        y = tf.concat([c + d * best, tf.cast(h > g, F32) * h, top], axis=2)
        return tf.matmul(tf.reshape(y, [1, 4 * 19]), self.w("out", 76, 3))


class Gathers(Net):
    """GATHER with indices that are constant, that the sample gives, and of each its own; GATHER_ND; an embedding."""

    def build(self, x: Any) -> Any:
        h = tf.reshape(tf.matmul(tf.reshape(x, [4, 6]), self.w("a", 6, 8)), [1, 4, 8])
        ids = tf.cast(tf.abs(x[:, :, 0]) * 3.0, tf.int32) % 7  # [1, 4]
        embedded = tf.gather(self.w("table", 7, 8), ids)  # [1, 4, 8]
        a = tf.gather(h, [3, 1, 1], axis=1)  # [1, 3, 8]
        b = tf.gather(h, [7, 0, 2, 2, 5], axis=2)  # [1, 4, 5]
        c = tf.gather(h, ids % 4, axis=1, batch_dims=1)  # [1, 4, 8]
        d = tf.gather_nd(tf.identity(self.w("grid", 7, 3, 4)), tf.stack([ids, ids % 3], axis=-1))  # [1, 4, 4]
        y = tf.concat([tf.reshape(t, [1, -1]) for t in (tf.tanh(a), b * b, c * embedded, d)], axis=1)
        return tf.matmul(y, self.w("out", 24 + 20 + 32 + 16, 3))


class Attention(Net):
    """BATCH_MATMUL in all four ways of laying its sides, and broadcast; layer norms."""

    def norm(self, name: str, x: Any) -> Any:
        mean = tf.reduce_mean(x, -1, keepdims=True)
        spread = tf.reduce_mean(tf.math.squared_difference(x, tf.stop_gradient(mean)), -1, keepdims=True)
        return (x - mean) * tf.math.rsqrt(spread + 1e-3) * self.w(name + "g", x.shape[-1]) + self.w(name + "b", x.shape[-1])

    def build(self, x: Any) -> Any:
        x = tf.reshape(x, [4, 6])
        q, k, v = (tf.transpose(tf.reshape(tf.matmul(x, self.w(n, 6, 8)), [1, 4, 2, 4]), [0, 2, 1, 3]) for n in "qkv")
        p = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.5)  # [1, 2, 4, 4]
        a = tf.matmul(p, v)
        b = tf.matmul(p, v, transpose_a=True)
        c = tf.matmul(tf.transpose(q, [0, 1, 3, 2]), p, transpose_a=True, transpose_b=True)
        d = tf.matmul(p, self.w("shared", 4, 4))  # rank 2, for every head
        e = tf.matmul(self.w("one", 1, 1, 4, 4), a)  # broadcast over the heads
        y = self.norm("n", tf.reshape(tf.transpose(tf.concat([a, b, c, d, e], -1), [0, 2, 1, 3]), [1, 4, 40]))
        return tf.matmul(tf.reshape(y, [1, 160]), self.w("out", 160, 3))


class Alike(Net):
    """FULLY_CONNECTED whose weights are not the file's but the sample's: how each step is like the others."""

    def build(self, x: Any) -> Any:
        h = tf.reshape(x, [4, 6])
        likeness = tf.nn.softmax(tf.matmul(tf.matmul(h, self.w("q", 6, 8)), tf.matmul(h, self.w("k", 6, 8)), transpose_b=True))
        return tf.matmul(tf.reshape(tf.tanh(likeness) * 2.0, [1, 16]), self.w("out", 16, 3))


class Sequences(Net):
    """CUMSUM forwards and back, with and without its own entry; REVERSE_V2 and REVERSE_SEQUENCE along the steps."""

    def build(self, x: Any) -> Any:
        h = tf.reshape(tf.matmul(tf.reshape(x, [4, 6]), self.w("a", 6, 5)), [1, 4, 5])
        a = tf.cumsum(h, axis=1) * h
        b = tf.cumsum(tf.tanh(h), axis=2, exclusive=True)
        c = tf.cumsum(h * h, axis=1, reverse=True, exclusive=True)
        d = tf.reverse(h, [1]) * a + tf.reverse(b, [2])
        e = tf.reverse_sequence(h, [3], seq_axis=1, batch_axis=0) * c
        return tf.matmul(tf.reshape(tf.concat([a, b, c, d, e], 2), [1, 100]), self.w("out", 100, 3))


class Response(Net):
    """LOCAL_RESPONSE_NORMALIZATION over channels."""

    x = (1, 3, 4, 2)

    def build(self, x: Any) -> Any:
        h = tf.reshape(tf.matmul(tf.reshape(x, [12, 2]), self.w("a", 2, 7)), [1, 3, 4, 7])
        y = tf.nn.local_response_normalization(h, depth_radius=2, bias=1.2, alpha=0.6, beta=0.75)
        return tf.matmul(tf.reshape(y, [1, 84]), self.w("out", 84, 3))


def gelus() -> bytes:
    def build(x: Any) -> Any:
        x = kl.Lambda(lambda t: tf.nn.gelu(t, approximate=True))(kl.Dense(8)(x))
        x = kl.Lambda(lambda t: tf.nn.gelu(t, approximate=False))(kl.Dense(8)(x))
        x = kl.Activation("elu")(kl.Dense(8)(x))
        return head(x)

    return convert(net((6,), build))


FILES = {
    "alike": lambda: Alike().file(), "gelus": gelus, "functions": lambda: Functions().file(), "choices": lambda: Choices().file(),
    "gathers": lambda: Gathers().file(),
    "attention": lambda: Attention().file(), "sequences": lambda: Sequences().file(), "response": lambda: Response().file(),
}  # fmt: skip


def main(wanted: list[str]) -> None:
    for name, make in FILES.items():
        if not wanted or name in wanted:
            file = make()
            (STOCK / f"{name}.tflite").write_bytes(file)
            print(f"{name}.tflite: {len(file)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
