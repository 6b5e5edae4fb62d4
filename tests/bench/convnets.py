"""Convolutional nets with batch normalisation in plain numpy, trained for real: the CNN and the MobileNetV2-like net of the bench.

Weights are laid out as TensorFlow's variables are, which is what a trainable .tflite holds: kernels [height, width, in, out],
depthwise [height, width, channels, 1]. Images are [n, height, width, channels].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import F32, Schema, TensorSpec

MOMENTUM, EPSILON = np.float32(0.9), np.float32(1e-3)  # of batch normalisation; short trainings want a quick average
Arrays = dict[str, F32]
Back = Callable[[F32], F32]  # gradient by the output -> gradient by the input; gradients by weights go where forward was told
Specs = list[tuple[str, tuple[int, ...]]]


class Layer(ABC):
    """One step of a net; without weights unless `specs` names some."""

    def specs(self) -> Specs:
        return []

    @abstractmethod
    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        """Return (output, back). live: batch normalisation uses the batch's statistics and moves its averages."""


class Dense(Layer):
    def __init__(self, name: str, inputs: int, outputs: int) -> None:
        self.name, self.shape = name, (inputs, outputs)

    def specs(self) -> Specs:
        return [(f"{self.name}_kernel", self.shape), (f"{self.name}_bias", self.shape[1:])]

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        kernel = w[f"{self.name}_kernel"]
        flat = x.reshape(len(x), -1)

        def back(g: F32) -> F32:
            grads[f"{self.name}_kernel"], grads[f"{self.name}_bias"] = flat.T @ g, g.sum(0)
            return (g @ kernel.T).reshape(x.shape)

        return flat @ kernel + w[f"{self.name}_bias"], back


class Conv(Layer):
    """Same padding, no bias: a normalisation follows."""

    def __init__(self, name: str, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        self.name, self.shape, self.stride = name, (size, size, inputs, outputs), stride

    def specs(self) -> Specs:
        return [(f"{self.name}_kernel", self.shape)]

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        name, size = f"{self.name}_kernel", self.shape[0]
        kernel = w[name].reshape(-1, self.shape[3])
        windows, spread = _windows(x, size, self.stride)
        n, h, v = windows.shape[:3]
        rows = windows.reshape(n * h * v, -1)

        def back(g: F32) -> F32:
            flat = g.reshape(-1, g.shape[3])
            grads[name] = rows.T @ flat
            return spread((flat @ kernel.T).reshape(windows.shape))

        return (rows @ kernel).reshape(n, h, v, -1), back


class Depthwise(Layer):
    def __init__(self, name: str, channels: int, stride: int = 1) -> None:
        self.name, self.shape, self.stride = name, (3, 3, channels, 1), stride

    def specs(self) -> Specs:
        return [(f"{self.name}_kernel", self.shape)]

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        name = f"{self.name}_kernel"
        kernel = w[name].reshape(9, -1)
        windows, spread = _windows(x, 3, self.stride)

        def back(g: F32) -> F32:
            grads[name] = np.einsum("nhvkc,nhvc->kc", windows, g)
            return spread(g[:, :, :, None] * kernel)

        return np.einsum("nhvkc,kc->nhvc", windows, kernel), back


class Norm(Layer):
    """Batch normalisation: with the batch's own statistics when live, else with the stored averages."""

    def __init__(self, name: str, channels: int) -> None:
        self.name, self.channels = name, channels

    def specs(self) -> Specs:
        return [(f"{self.name}_{part}", (self.channels,)) for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        name = self.name
        mean, variance = w[f"{name}_moving_mean"], w[f"{name}_moving_variance"]
        axes = tuple(range(x.ndim - 1))
        if live:
            seen_mean, seen_variance = x.mean(axes), x.var(axes)
            mean += (1 - MOMENTUM) * (seen_mean - mean)
            variance += (1 - MOMENTUM) * (seen_variance - variance)
            mean, variance = seen_mean, seen_variance
        scale = 1 / np.sqrt(variance + EPSILON)
        unit = (x - mean) * scale
        gamma = w[f"{name}_gamma"]

        def back(g: F32) -> F32:
            grads[f"{name}_gamma"], grads[f"{name}_beta"] = (g * unit).sum(axes), g.sum(axes)
            if live:
                g = g - g.mean(axes) - unit * (g * unit).mean(axes)
            return g * (gamma * scale)

        return unit * gamma + w[f"{name}_beta"], back


class Relu(Layer):
    def __init__(self, top: float = np.inf) -> None:
        self.top = np.float32(top)

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        through = (x > 0) & (x < self.top)
        return np.clip(x, np.float32(0), self.top), lambda g: g * through


class MaxPool(Layer):
    """Over squares of 2 x 2."""

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        n, h, v, c = x.shape
        squares = x.reshape(n, h // 2, 2, v // 2, 2, c)
        top = squares.max((2, 4), keepdims=True)
        first = squares == top
        share = first / first.sum((2, 4), keepdims=True, dtype=x.dtype)  # equal neighbours, as in a blank corner, share

        def back(g: F32) -> F32:
            return (share * g[:, :, None, :, None]).reshape(x.shape)

        return top[:, :, 0, :, 0], back


class MeanPool(Layer):
    """Over the whole image."""

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        area = np.float32(x.shape[1] * x.shape[2])
        return x.mean((1, 2)), lambda g: np.broadcast_to(g[:, None, None] / area, x.shape)


class Chain(Layer):
    """Layers one after the other; with `skip` the input is added to the output."""

    def __init__(self, *layers: Layer, skip: bool = False) -> None:
        self.layers, self.skip = layers, skip

    def specs(self) -> Specs:
        return [spec for layer in self.layers for spec in layer.specs()]

    def forward(self, x: F32, w: Arrays, grads: Arrays, live: bool) -> tuple[F32, Back]:
        y, backs = x, []
        for layer in self.layers:
            y, back = layer.forward(y, w, grads, live)
            backs.append(back)

        def back_all(g: F32) -> F32:
            inner = g
            for one in reversed(backs):
                inner = one(inner)
            return inner + g if self.skip else inner

        return (y + x if self.skip else y), back_all


class ConvNet:
    """A net over flat weights in schema order, with the same calls as the dense net of the chain."""

    def __init__(self, body: Layer) -> None:
        self.body = body
        self.schema = Schema(tuple(TensorSpec(name, shape) for name, shape in sorted(body.specs())))

    def initial(self, rng: np.random.Generator) -> list[F32]:
        """Return He-initialised weights, flat, in schema order."""
        out = []
        for spec in self.schema.tensors:
            if spec.name.endswith("_kernel"):
                fan_in = 9 if spec.shape[-1] == 1 else spec.rows
                out.append((rng.standard_normal(spec.size) * np.sqrt(2 / fan_in)).astype(np.float32))
            else:
                out.append(np.full(spec.size, float(spec.name.endswith(("_gamma", "_variance"))), np.float32))
        return out

    def gradients(self, flat: list[F32], x: F32, y: NDArray[np.int64], live: bool = False) -> list[F32]:
        grads: Arrays = {}
        z, back = self.body.forward(_images(x), self.schema.shaped(flat), grads, live)
        e = np.exp(z - z.max(1, keepdims=True))
        g = e / e.sum(1, keepdims=True)
        g[np.arange(len(y)), y] -= 1
        back(g / np.float32(len(y)))
        # Averages of statistics are moved by `forward`, by no gradient.
        return [
            grads[t.name].reshape(-1).astype(np.float32, copy=False) if t.name in grads else np.zeros(t.size, np.float32)
            for t in self.schema.tensors
        ]

    def judge(self, flat: list[F32], x: F32, y: NDArray[np.int64]) -> tuple[float, float]:
        """Return (cross-entropy in nats, accuracy 0 to 1)."""
        z = self.body.forward(_images(x), self.schema.shaped(flat), {}, False)[0].astype(np.float64)
        top = z.max(1)
        loss = top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(y)), y]
        return float(loss.mean()), float((z.argmax(1) == y).mean())


def cnn(width: int = 32) -> ConvNet:
    """Return a CNN for 16 x 16 images: two convolutions with normalisation, two dense layers; 284,000 weights at width 32."""
    return ConvNet(
        Chain(
            Conv("conv0", 1, width, 3), Norm("norm0", width), Relu(), MaxPool(),
            Conv("conv1", width, 2 * width, 3), Norm("norm1", 2 * width), Relu(), MaxPool(),
            Dense("dense0", 32 * width, 8 * width), Relu(), Dense("dense1", 8 * width, 10),
        )
    )  # fmt: skip


def mobilenet(last: int = 1280, blocks: Sequence[tuple[int, int, int, int]] | None = None) -> ConvNet:
    """Return a MobileNetV2 for 16 x 16 images: its own blocks (expansion, channels, repeats, stride); 2.2 million weights.

    Strides are fewer than for 224 x 224: the last blocks still see 2 x 2.
    """
    blocks = blocks or ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 1), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
    layers: list[Layer] = [Conv("stem", 1, 32, 3, 2), Norm("stem_norm", 32), Relu(6)]
    at, number = 32, 0
    for expansion, channels, repeats, stride in blocks:
        for repeat in range(repeats):
            name, wide, step = f"block{number:02d}", at * expansion, stride if repeat == 0 else 1
            layers.append(
                Chain(
                    Conv(f"{name}_expand", at, wide), Norm(f"{name}_expand_norm", wide), Relu(6),
                    Depthwise(f"{name}_depth", wide, step), Norm(f"{name}_depth_norm", wide), Relu(6),
                    Conv(f"{name}_project", wide, channels), Norm(f"{name}_project_norm", channels),
                    skip=step == 1 and at == channels,
                )
            )  # fmt: skip
            at, number = channels, number + 1
    layers += [Conv("last", at, last), Norm("last_norm", last), Relu(6), MeanPool(), Dense("top", last, 10)]
    return ConvNet(Chain(*layers))


def _images(x: F32) -> F32:
    side = round(x.shape[1] ** 0.5)
    return x.reshape(len(x), side, side, 1)


def _windows(x: F32, size: int, stride: int) -> tuple[F32, Back]:
    """Return [n, h, v, size * size, c] for every place of a window, and what adds such an array back into an image's shape."""
    h, v = x.shape[1:3]
    if size == 1 and stride == 1:
        return x[:, :, :, None], lambda g: g[:, :, :, 0]
    edge = size // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    rows, columns = -(-h // stride), -(-v // stride)
    places = [(i, j) for i in range(size) for j in range(size)]

    def part(of: F32, i: int, j: int) -> F32:
        return of[:, i : i + rows * stride : stride, j : j + columns * stride : stride][:, :rows, :columns]

    windows = np.stack([part(padded, i, j) for i, j in places], 3)

    def spread(g: F32) -> F32:
        out = np.zeros_like(padded)
        for k, (i, j) in enumerate(places):
            part(out, i, j)[...] += g[:, :, :, k]
        return out[:, edge : edge + h, edge : edge + v]

    return windows, spread
