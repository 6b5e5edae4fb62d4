"""The exact head trainer, version 1 (trainer page)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import floats
from .errors import Malformed, ShapeMismatch, TrainingDiverged
from .head import ADAM, LINEAR, LOGISTIC, MOMENTUM, RELU, SOFTMAX, SQUARES, STAIRS, Head
from .manifest import Array
from .rows import Rows

_MASK = (1 << 64) - 1
_ZERO = np.float32(0)
_ONE = np.float32(1)


def tree(terms: Callable[[int, int], Array], n: int) -> Array:
    """Sum n terms in 16 stripes; terms gives those from one place to another on its last axis."""
    first = terms(0, min(16, n))
    stripes = np.zeros((*first.shape[:-1], 16), np.float32)
    for at in range(0, n, 16):
        end = min(at + 16, n)
        stripes[..., : end - at] = stripes[..., : end - at] + terms(at, end)
    for half in (8, 4, 2, 1):
        stripes = stripes[..., :half] + stripes[..., half : 2 * half]
    return stripes[..., 0]


def tree_of(terms: Array) -> Array:
    """Sum the last axis in 16 stripes."""
    return tree(lambda a, b: terms[..., a:b], terms.shape[-1])


def _mix(z: int) -> int:
    """Mix 64 bits."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def order_of(rows: int, seed: int, epoch: int) -> list[int]:
    """Give the order of an epoch's rows."""
    state = _mix(seed ^ _mix(epoch + 1))
    order = list(range(rows))
    for left in range(rows, 1, -1):
        while True:
            state = (state + 0x9E3779B97F4A7C15) & _MASK
            draw = _mix(state)
            if draw >= (1 << 64) % left:
                break
        k = draw % left
        order[left - 1], order[k] = order[k], order[left - 1]
    return order


@dataclass
class _Layer:
    """A layer's weights and slots, which its moves change."""

    w: Array
    b: Array
    w_slots: list[Array]
    b_slots: list[Array]


@dataclass(frozen=True)
class _Rates:
    """The two rates of a step."""

    move: np.float32
    decay: np.float32


def _power(x: float, n: int) -> float:
    """Multiply x n times, by repeated squaring."""
    product = 1.0
    while n > 0:
        if n & 1:
            product = product * x
        n //= 2
        x = x * x
    return product


def _rates(head: Head, s: int) -> _Rates:
    """Compute the rates of step s, in float64 until the end."""
    rate = float(head.rate)
    if head.schedule == LINEAR:
        rate = rate + (float(head.rate_end) - rate) * (s / head.steps)
    elif head.schedule == STAIRS:
        rate = rate * _power(float(head.factor), s // head.every)
    moved = rate
    if head.optimizer == ADAM:
        beta1, beta2 = float(head.beta1), float(head.beta2)
        moved = (rate * math.sqrt(1.0 - _power(beta2, s + 1))) / (1.0 - _power(beta1, s + 1))
    return _Rates(np.float32(moved), np.float32(rate) * head.decay)


def _losses(head: Head, z: Array, wanted: Array) -> tuple[Array, Array]:
    """Give the loss of each row and the slope by each output."""
    n, m = z.shape
    part = _ONE / np.float32(n)
    share = part / np.float32(m)
    if head.loss == SOFTMAX:
        rows = np.arange(n)
        top = np.max(z, axis=1)
        e = floats.exp(z - top[:, None])
        whole = tree_of(e)
        loss = floats.log(whole) - (z[rows, wanted] - top)
        loss = np.where(np.isnan(z).any(axis=1) | np.isinf(top), np.float32(np.nan), loss)
        share_of = e / whole[:, None]
        share_of[rows, wanted] = share_of[rows, wanted] - _ONE
        return loss, share_of * part
    if head.loss == SQUARES:
        d = z - wanted
        return tree_of(d * d) / np.float32(m), d * (np.float32(2) * share)
    e = floats.exp(-np.abs(z))
    more = _ONE + e
    term = (np.where(z > 0, z, _ZERO) - z * wanted) + floats.log(more)
    loss = tree_of(term) / np.float32(m)
    loss = np.where(np.isnan(z).any(axis=1), np.float32(np.nan), loss)
    return loss, ((np.where(z >= 0, _ONE, e) / more) - wanted) * share


class Training:
    """A training: weights, slots and the step's number."""

    def __init__(self, head: Head, rows: Rows, weights: Array, slots: Array | None = None) -> None:
        """Begin with flat weights and slots (T1 to T4)."""
        self.head = head
        self.features = rows.features
        self.step = 0
        if rows.features.shape[1] != head.features:
            raise ShapeMismatch("T1: another number of features")
        if head.loss == SOFTMAX:
            if rows.labels is None:
                raise ShapeMismatch("T2: softmax without labels")
            if np.any(rows.labels >= head.outputs):
                raise Malformed("T4: a label beyond the outputs")
            self.wanted = rows.labels
        else:
            if rows.labels is not None:
                raise ShapeMismatch("T3: labels with targets' loss")
            self.wanted = rows.targets if rows.targets is not None else rows.features
            if self.wanted.shape[1] != head.outputs:
                raise ShapeMismatch("T3: another number of targets")
        flat = slots if slots is not None else np.zeros(head.slots * head.size, np.float32)
        kept = [self._split(flat[k * head.size : (k + 1) * head.size]) for k in range(head.slots)]
        self.layers = []
        for k, (w, b) in enumerate(self._split(weights)):
            self.layers.append(_Layer(w, b, [slot[k][0] for slot in kept], [slot[k][1] for slot in kept]))
        self._epoch = -1
        self._order: list[int] = []

    def _split(self, flat: Array) -> list[tuple[Array, Array]]:
        """Cut a flat array into matrices and biases."""
        out = []
        at = 0
        for neurons, inputs in self.head.layers:
            end = at + neurons * inputs
            out.append((flat[at:end].reshape(neurons, inputs).copy(), flat[end : end + neurons].copy()))
            at = end + neurons
        return out

    @property
    def weights(self) -> Array:
        """Give the flat weights."""
        return np.concatenate([part for layer in self.layers for part in (layer.w.ravel(), layer.b)])

    @property
    def slots(self) -> Array:
        """Give the flat slots."""
        parts = []
        for k in range(self.head.slots):
            parts += [p for layer in self.layers for p in (layer.w_slots[k].ravel(), layer.b_slots[k])]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _batch(self) -> list[int]:
        """Give the rows of the next step."""
        rows, batch = self.features.shape[0], self.head.batch
        steps = -(-rows // batch)
        epoch, place = divmod(self.step, steps)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order_of(rows, self.head.seed, epoch)
        return self._order[place * batch : (place + 1) * batch]

    def forward(self, x: Array) -> list[Array]:
        """Give what comes into each layer, and the outputs last."""
        out = [x]
        for number, layer in enumerate(self.layers):
            z = _product(out[-1], layer.w) + layer.b
            if number < len(self.layers) - 1:
                z = np.where(z > 0, z, _ZERO) if self.head.activation == RELU else floats.tanh(z)
            out.append(z)
        return out

    def run(self, steps: int) -> list[np.float32]:
        """Take steps; give their losses (T5, T6)."""
        losses = []
        with np.errstate(all="ignore"):
            for _ in range(steps):
                losses.append(self._take())
        flat = self.weights, self.slots
        if not all(np.all(np.isfinite(part)) for part in flat):
            raise TrainingDiverged("T6: a weight or slot that is not finite")
        return losses

    def _take(self) -> np.float32:
        """Take one step and give its loss."""
        batch = self._batch()
        inputs = self.forward(self.features[batch])
        per_row, delta = _losses(self.head, inputs.pop(), self.wanted[batch])
        loss = _ZERO
        for value in per_row:
            loss = loss + value
        loss = loss * (_ONE / np.float32(len(batch)))
        if not np.isfinite(loss):
            raise TrainingDiverged("T5: a loss that is not finite")
        rates = _rates(self.head, self.step)
        for number in reversed(range(len(self.layers))):
            layer, x = self.layers[number], inputs[number]
            below = self._below(layer, x, delta) if number else delta
            d_w, d_b = _gradients(x, delta)
            layer.w = self._move(layer.w, d_w, layer.w_slots, rates.move, rates.decay)
            layer.b = self._move(layer.b, d_b, layer.b_slots, rates.move, _ZERO)
            delta = below
        self.step += 1
        return np.float32(loss)

    def _below(self, layer: _Layer, x: Array, delta: Array) -> Array:
        """Give the slope for the layer below."""
        g = np.zeros_like(x)
        for j in range(layer.w.shape[0]):
            g = g + delta[:, j, None] * layer.w[j]
        if self.head.activation == RELU:
            return np.where(x > 0, g, _ZERO)
        return g * (_ONE - x * x)

    def _move(self, w: Array, d: Array, slots: list[Array], rate: np.float32, decay: np.float32) -> Array:
        """Move weights by their gradient."""
        head = self.head
        if not slots:
            return w - ((rate * d) + (decay * w))
        if head.optimizer == MOMENTUM:
            slots[0] = (head.beta1 * slots[0]) + d
            return w - ((rate * slots[0]) + (decay * w))
        slots[0] = (head.beta1 * slots[0]) + ((_ONE - head.beta1) * d)
        slots[1] = (head.beta2 * slots[1]) + ((_ONE - head.beta2) * (d * d))
        return w - ((rate * (slots[0] / (np.sqrt(slots[1]) + head.epsilon))) + (decay * w))


def _product(x: Array, w: Array) -> Array:
    """Multiply rows by neurons, each sum in 16 stripes."""
    return tree(lambda a, b: x[:, None, a:b] * w[None, :, a:b], x.shape[1])


def _gradients(x: Array, delta: Array) -> tuple[Array, Array]:
    """Sum the gradients of a layer over the batch, row after row."""
    d_w = np.zeros((delta.shape[1], x.shape[1]), np.float32)
    d_b = np.zeros(delta.shape[1], np.float32)
    for b in range(x.shape[0]):
        d_w = d_w + x[b][None, :] * delta[b][:, None]
        d_b = d_b + delta[b]
    return d_w, d_b


__all__ = ["LOGISTIC", "Training", "order_of", "tree_of"]
