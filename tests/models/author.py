"""Makes the trainable .tflite files of this folder with TensorFlow; docs/trainable-models.md explains the recipe.

Not needed at run time: the files are committed. Run with tensorflow-cpu 2.21:
    python tests/models/author.py            all files
    python tests/models/author.py digits     one of them
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import tensorflow as tf
from unshare import with_own_buffers

HERE = Path(__file__).parent
F32 = tf.float32
Forward = Callable[[dict[str, Any], Any], Any]  # (weights by name, x) -> logits
MOTION_SCALE = (0.1, 0.1, 0.1, 0.3, 0.3, 0.3)  # the sensor's units to about one: m/s^2, then rad/s


# Operations whose gradients use builtin operators only. tf.nn.relu and friends have gradients of their own (ReluGrad,
# Conv2DBackpropFilter, AvgPoolGrad) that exist in no small runtime.


@tf.custom_gradient
def relu(x: Any) -> Any:
    """Return max(x, 0)."""
    y = tf.nn.relu(x)
    return y, lambda dy: dy * tf.cast(y > 0.0, F32)


def conv1d(x: Any, kernel: Any) -> Any:
    """Return the VALID convolution along time: x [b, t, c] with kernel [taps, c, filters] -> [b, t - taps + 1, filters].

    One matrix product over the windows laid side by side: plain slices and joins, whose gradients are written out below.
    """
    taps, channels, filters = kernel.shape
    batch, steps, _ = x.shape
    out = steps - taps + 1

    @tf.custom_gradient
    def windows(x: Any) -> Any:
        y = tf.concat([x[:, i : i + out, :] for i in range(taps)], 2)

        def back(dy: Any) -> Any:
            # A chain of additions, not tf.add_n: ADD_N's result depends on the number of threads.
            dx = tf.pad(dy[:, :, :channels], [[0, 0], [0, taps - 1], [0, 0]])
            for i in range(1, taps):
                dx = dx + tf.pad(dy[:, :, i * channels : (i + 1) * channels], [[0, 0], [i, taps - 1 - i], [0, 0]])
            return dx

        return y, back

    flat = tf.reshape(windows(x), [batch * out, taps * channels])
    return tf.reshape(tf.matmul(flat, tf.reshape(kernel, [taps * channels, filters])), [batch, out, filters])


def average_pool1d(x: Any, size: int) -> Any:
    """Return the mean of every `size` steps: x [b, t, c] -> [b, t / size, c]; t must divide."""
    batch, steps, channels = x.shape
    return tf.reduce_mean(tf.reshape(x, [batch, steps // size, size, channels]), 2)


class Trainable(tf.Module):
    """A net with the signatures of the contract: infer, eval, train (plain SGD on cross-entropy), get_weights, set_weights.

    forward(weights, x) -> logits; weights by name. The module owns each variable itself: variables behind a Keras model
    get no initial value in the file, and one runtime then trains on garbage without a word.
    """

    def __init__(self, forward: Forward, initial: dict[str, Any], x: tuple[int, ...], classes: int, batch: int) -> None:
        super().__init__()
        self.forward, self.classes, self.batch = forward, classes, batch
        kept = (np.int8, np.int32)  # all else is float32
        types = {name: value.dtype if getattr(value, "dtype", None) in kept else F32 for name, value in initial.items()}
        self.w = {name: tf.Variable(value, dtype=types[name], name=name) for name, value in sorted(initial.items())}
        one, many = tf.TensorSpec((1, *x), F32, name="x"), tf.TensorSpec((batch, *x), F32, name="x")
        labels, lr = tf.TensorSpec((batch, classes), F32, name="y"), tf.TensorSpec((), F32, name="lr")
        specs = {name: tf.TensorSpec(v.shape, v.dtype, name=name) for name, v in self.w.items()}
        self.exported = {
            "infer": tf.function(self.infer).get_concrete_function(x=one),
            "eval": tf.function(self.infer).get_concrete_function(x=many),
            "train": tf.function(self.train).get_concrete_function(x=many, y=labels, lr=lr),
            "get_weights": tf.function(self.get_weights).get_concrete_function(),
            "set_weights": tf.function(self.set_weights).get_concrete_function(**specs),
        }

    def infer(self, x: Any) -> dict[str, Any]:
        return {"output": tf.nn.softmax(self.forward(self.w, x))}

    def train(self, x: Any, y: Any, lr: Any) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, self.forward(self.w, x)))
        gradients = tape.gradient(loss, self.w)
        # All gradients first: an assignment between them would change what the later ones see.
        updated = {name: v - lr * gradients[name] for name, v in self.w.items()}
        for name, v in self.w.items():
            v.assign(updated[name])
        return {"loss": loss}

    def get_weights(self) -> dict[str, Any]:
        return {name: tf.identity(v) for name, v in self.w.items()}

    def set_weights(self, **weights: Any) -> dict[str, Any]:
        for name, v in self.w.items():
            v.assign(weights[name])
        return {"ok": tf.constant([1], tf.int32)}

    def convert(self) -> bytes:
        """Return the .tflite, straight from the converter: equal initial values may still share one buffer."""
        with tempfile.TemporaryDirectory() as folder:
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            tf.saved_model.save(self, folder, signatures=self.exported, options=options)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=sorted(self.exported))
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            converter.experimental_enable_resource_variables = True
            return bytes(converter.convert())


class Mixed(Trainable):
    """A net whose int8 codes move with the gradient of its biases, and that counts its steps in an int32."""

    def train(self, x: Any, y: Any, lr: Any) -> dict[str, Any]:
        trained = {name: v for name, v in self.w.items() if v.dtype == F32}
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(y, self.forward(self.w, x)))
        gradients = tape.gradient(loss, trained)
        updated = {name: v - lr * gradients[name] for name, v in trained.items()}
        updated["codes"] = tf.cast(tf.cast(self.w["codes"], F32) - 100.0 * lr * gradients["output_bias"], tf.int8)
        updated["count"] = self.w["count"] + 1
        for name, value in updated.items():
            self.w[name].assign(value)
        return {"loss": loss}


def dense(w: dict[str, Any], layer: str, x: Any) -> Any:
    return tf.matmul(x, w[f"{layer}_kernel"]) + w[f"{layer}_bias"]


def mlp(w: dict[str, Any], x: Any) -> Any:
    return dense(w, "output", relu(dense(w, "hidden2", relu(dense(w, "hidden1", x)))))


def conv_net(w: dict[str, Any], x: Any) -> Any:
    """Two convolutions along time, each with a pool, then two dense layers: 100 steps -> 96 -> 24 -> 20 -> 5."""
    x = x * tf.constant(MOTION_SCALE, F32)
    x = average_pool1d(relu(conv1d(x, w["conv1_kernel"]) + w["conv1_bias"]), 4)
    x = average_pool1d(relu(conv1d(x, w["conv2_kernel"]) + w["conv2_bias"]), 4)
    x = tf.reshape(x, [x.shape[0], x.shape[1] * x.shape[2]])
    return dense(w, "output", relu(dense(w, "hidden", x)))


def he_normal(rng: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return kernels of variance 2 / fan-in and zero biases."""
    out = {}
    for name, shape in sorted(shapes.items()):
        scale = 0.0 if name.endswith("_bias") else np.sqrt(2.0 / np.prod(shape[:-1]))
        out[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return out


def layers(**kernels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of each layer's kernel and bias by weight name."""
    out: dict[str, tuple[int, ...]] = {}
    for layer, kernel in kernels.items():
        out |= {f"{layer}_kernel": kernel, f"{layer}_bias": kernel[-1:]}
    return out


def fit(net: Trainable, x: Any, labels: Any, vary: Callable[[Any], Any], rng: np.random.Generator, *, epochs: int, lr: float) -> None:
    """Train in place, through the very function that the file will hold, on fresh variations of x each epoch."""
    batch = net.batch
    one_hot = np.eye(net.classes, dtype=np.float32)[labels]
    for epoch in range(epochs):
        rate = lr * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        seen, order = vary(x).astype(np.float32), rng.permutation(len(x))
        for at in range(0, len(order) - batch + 1, batch):
            pick = order[at : at + batch]
            net.exported["train"](x=tf.constant(seen[pick]), y=tf.constant(one_hot[pick]), lr=tf.constant(rate, F32))


def accuracy(net: Trainable, x: Any, labels: Any) -> float:
    probability = tf.nn.softmax(net.forward(net.w, tf.constant(x, F32))).numpy()
    return float((probability.argmax(1) == labels).mean())


def digits() -> bytes:
    """The MLP 64-256-128-10 on the digits as they were scanned: 50,826 weights."""
    rng = np.random.default_rng(1)
    data = np.load(HERE / "data" / "digits.npz")
    x = {side: data[f"{side}_x"].reshape(-1, 64).astype(np.float32) / 16 for side in ("train", "test")}
    shapes = layers(hidden1=(64, 256), hidden2=(256, 128), output=(128, 10))
    net = Trainable(mlp, he_normal(rng, shapes), (64,), 10, batch=32)

    def moved(x: Any) -> Any:
        """Return the images shifted by up to two thirds of a pixel, with noise."""
        images = x.reshape(-1, 8, 8)
        for axis in (1, 2):
            a = rng.uniform(-0.67, 0.67, (len(x), 1, 1))
            images = (1 - abs(a)) * images + abs(a) * np.where(a > 0, np.roll(images, 1, axis), np.roll(images, -1, axis))
        return images.reshape(x.shape) + 0.05 * rng.standard_normal(x.shape)

    fit(net, x["train"], data["train_y"], moved, rng, epochs=80, lr=0.15)
    print(f"digits: held-out accuracy {accuracy(net, x['test'], data['test_y']):.3f}")
    return net.convert()


def motion() -> bytes:
    """The 1-D conv net on wrist motion from the sensor as it was mounted: 52,900 weights."""
    rng = np.random.default_rng(2)
    data = np.load(HERE / "data" / "motion.npz")
    shapes = layers(conv1=(5, 6, 32), conv2=(5, 32, 64), hidden=(320, 128), output=(128, 4))
    net = Trainable(conv_net, he_normal(rng, shapes), (100, 6), 4, batch=16)

    def moved(x: Any) -> Any:
        shifts = rng.integers(0, x.shape[1], len(x))
        rolled = np.stack([np.roll(window, shift, 0) for window, shift in zip(x, shifts, strict=True)])
        return rolled * rng.uniform(0.9, 1.1, (len(x), 1, 1)) + 0.1 * rng.standard_normal(x.shape)

    x, y = np.tile(data["train_x"], (4, 1, 1)), np.tile(data["train_y"], 4)
    fit(net, x, y, moved, rng, epochs=60, lr=0.05)
    print(f"motion: held-out accuracy {accuracy(net, data['test_x'], data['test_y']):.3f}")
    return net.convert()


def tiny() -> bytes:
    """The net 4-3-3-3 for tests, with zero biases and two equal kernels: the converter folds equal values together."""
    initial = he_normal(np.random.default_rng(3), layers(hidden1=(4, 3), hidden2=(3, 3), output=(3, 3)))
    initial["output_kernel"] = initial["hidden2_kernel"]
    return Trainable(mlp, initial, (4,), 3, batch=16).convert()


def mixed() -> bytes:
    """One layer 4-3 with codes in int8 beside its biases and a counter of steps in int32, for tests of the runtimes."""
    initial = he_normal(np.random.default_rng(5), layers(output=(4, 3)))
    initial |= {"codes": np.array([1, -2, 3], np.int8), "count": np.array([7], np.int32)}
    initial["output_bias"] = np.array([0.01, 0.02, 0.03], np.float32)

    def forward(w: dict[str, Any], x: Any) -> Any:
        return dense(w, "output", x) + 0.01 * tf.cast(w["codes"], F32)

    return Mixed(forward, initial, (4,), 3, batch=4).convert()


def main(wanted: list[str]) -> None:
    for name, make in {"digits": digits, "motion": motion, "tiny": tiny, "mixed": mixed}.items():
        if wanted and name not in wanted:
            continue
        raw = make()
        if name == "tiny":
            (HERE / "tiny_shared.tflite").write_bytes(raw)
        (HERE / f"{name}.tflite").write_bytes(with_own_buffers(raw))
        print(f"{name}.tflite: {(HERE / f'{name}.tflite').stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
