"""The head trainer in numpy, with every sum in the order of csrc/mw_head.c: 16 striped sums and a tree, or one after the other.

docs/head-trainer.md has the formulas. float32 throughout; numpy's own exp, sums and products of matrices have no fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from modelwire.errors import KernelError, Malformed, NonFinite, SubnormalsFlushed, TrainingDiverged
from modelwire.output_head_settings import Activation, Loss, Optimizer, OutputHeadSettings, Schedule
from modelwire.tensors import F32, U32

from .arrays import Array, take
from .integrity import check_rounding

STRIPES = 16
_MASK = (1 << 64) - 1
_F = np.float32
_FLT_MIN = 2.0**-126


def check_arithmetic() -> None:
    """Raise RoundingMode or SubnormalsFlushed unless float32 is what IEEE 754 says."""
    check_rounding()
    least, half, subnormal, large = (np.full(1, x, _F) for x in (2.0**-126, 0.5, 2.0**-149, 2.0**100))
    if (least * half)[0] == 0 or (subnormal * large)[0] == 0:
        raise SubnormalsFlushed


def exp(x: Array) -> Array:
    """Return e^x of float32."""
    c = np.where(x > _F(89), _F(89), x)
    c = np.where(c < _F(-105), _F(-105), c)
    shifted = c * _F(float.fromhex("0x1.715476p+0")) + _F(12582912)
    k = shifted - _F(12582912)
    r = (c - k * _F(0.693359375)) - k * _F(-2.12194440e-4)
    p = np.full_like(r, 1.9875691500e-4)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + _F(coefficient)
    p = p * (r * r) + r
    p = p + _F(1)
    n = shifted.view(np.uint32) - np.uint32(0x4B400000)
    half = ((n + np.uint32(512)) >> np.uint32(1)) - np.uint32(256)
    first, second = ((part + np.uint32(127)) << np.uint32(23) for part in (half, n - half))
    result: Array = p * first.view(_F) * second.view(_F)
    return result


def log(x: Array) -> Array:
    """Return the natural logarithm of positive normal float32."""
    u = x.view(np.uint32) + np.uint32(0x3F800000 - 0x3F3504F3)
    k = ((u >> np.uint32(23)).astype(np.int32) - 127).astype(_F)
    f = ((u & np.uint32(0x7FFFFF)) + np.uint32(0x3F3504F3)).view(_F) - _F(1)
    s = f / (_F(2) + f)
    z = s * s
    w = z * z
    even = w * (_F(0.40000972152) + w * _F(0.24279078841))
    odd = z * (_F(0.66666662693) + w * _F(0.28498786688))
    half_square = _F(0.5) * f * f
    result: Array = s * (half_square + (odd + even)) + k * _F(9.0580006145e-06) - half_square + f + k * _F(6.9313812256e-01)
    return result


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of float32."""
    a = np.abs(x)
    z = a * a
    p = np.full_like(a, -5.70498872745e-3)
    for coefficient in (2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
        p = p * z + _F(coefficient)
    near, far = p * z * a + a, _F(1) - _F(2) / (exp(_F(2) * a) + _F(1))
    return np.copysign(np.where(a < _F(0.625), near, far), x)


def permutation(seed: int, epoch: int, n: int) -> U32:
    """Return the order of n rows in an epoch: Fisher-Yates from the end, driven by splitmix64."""
    state = _mixed((index(seed) & _MASK) ^ _mixed((index(epoch) & _MASK) + 1 & _MASK))
    order = list(range(index(n)))
    for left in range(len(order), 1, -1):
        uneven = (1 << 64) % left
        while True:
            state = state + 0x9E3779B97F4A7C15 & _MASK
            draw = _mixed(state)
            if draw >= uneven:
                break
        other = draw % left
        order[left - 1], order[other] = order[other], order[left - 1]
    return np.array(order, np.uint32)


def _mixed(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


def head_train(
    recipe: OutputHeadSettings, features: Array, wanted: Array, weights: F32, slots: F32, *, scale: float, step: int, count: int
) -> F32:
    """Return the loss of each of `count` steps from step `step` on; weights and slots move. Raises as the compiled one does."""
    rows = _Rows(recipe, features, scale)
    rows.expect(wanted)
    take("weights", weights, np.float32, n=recipe.size, writable=True)
    take("slots", slots, np.float32, n=recipe.slots * recipe.size, writable=True)
    if not 0 <= index(step) <= recipe.steps or not 0 <= index(count) <= recipe.steps - step:
        raise _out_of_range()
    check_arithmetic()
    _weights_finite(weights, slots)
    layers = _layers(recipe, weights.copy(), slots.copy())
    a_round = -(-rows.n // recipe.batch)
    losses = np.empty(index(count), np.float32)
    order = np.zeros(0, np.uint32)
    with np.errstate(all="ignore"):
        for k in range(len(losses)):
            now = step + k
            epoch, place = divmod(now, a_round)
            if not k or not place:
                order = permutation(recipe.seed, epoch, rows.n)
            batch = order[place * recipe.batch : (place + 1) * recipe.batch]
            values = _look(recipe, layers, rows.take(batch))
            losses[k], delta = _judge(recipe, values[-1], rows, batch)
            if not np.isfinite(losses[k]):
                raise _diverged(now)
            _learn(recipe, layers, values, delta, now)
    after, slots_after = (np.concatenate([getattr(layer, name) for layer in layers]) for name in ("flat", "flat_slots"))
    if not np.isfinite(after).all() or not np.isfinite(slots_after).all():
        raise _diverged(now if len(losses) else 0)
    weights[:] = after
    for s in range(recipe.slots):  # layer by layer in each slot
        slots[s * recipe.size : (s + 1) * recipe.size] = np.concatenate([layer.slot(s) for layer in layers])
    return losses


def head_infer(recipe: OutputHeadSettings, features: Array, weights: F32, *, scale: float) -> F32:
    """Return the outputs of the last layer for each row, before softmax or logistic."""
    rows = _Rows(recipe, features, scale)
    take("weights", weights, np.float32, n=recipe.size)
    check_arithmetic()
    _weights_finite(weights, np.zeros(0, np.float32))
    layers = _layers(recipe, weights.copy(), np.zeros(recipe.slots * recipe.size, np.float32))
    with np.errstate(all="ignore"):
        out: F32 = _look(recipe, layers, rows.take(np.arange(rows.n)))[-1].reshape(-1)
    out.view(np.uint32)[np.isnan(out)] = 0x7FC00000  # processors differ in the sign of a NaN that they make
    return out


def _out_of_range() -> Malformed:
    return Malformed(what="head", reason="its settings are out of range")


def _diverged(step: int) -> TrainingDiverged:
    return TrainingDiverged(model="the head", what="a loss or weight that is not finite", steps=str(step))


def _weights_finite(weights: F32, slots: F32) -> None:
    if not np.isfinite(weights).all() or not np.isfinite(slots).all():
        raise NonFinite(what="the weights", tensor=0, index=0)


class _Rows:
    def __init__(self, recipe: OutputHeadSettings, features: Array, scale: float) -> None:
        dtype = getattr(features, "dtype", np.dtype(np.float32))
        kind = dtype.type if dtype in (np.int8, np.float16) else np.float32
        self.raw = take("features", features, kind)
        self.n = len(self.raw) // recipe.features
        if not self.n or self.n * recipe.features != len(self.raw):
            raise KernelError(what="features", reason=f"expected whole rows of {recipe.features}, got {len(self.raw)} entries")
        self.raw = self.raw.reshape(self.n, recipe.features)
        self.recipe, self.scale = recipe, _F(scale)
        if kind is np.int8 and not _FLT_MIN <= self.scale <= 2.0**100:
            raise _out_of_range()
        self.wanted: Array = np.zeros(0)

    def expect(self, wanted: Array) -> None:
        if self.recipe.loss == Loss.SOFTMAX:
            self.wanted = take("labels", wanted, np.uint32, n=self.n)
        else:
            self.wanted = take("targets", wanted, np.float32, n=self.n * self.recipe.outputs).reshape(self.n, -1)

    def take(self, order: Array) -> Array:
        raw = self.raw[order]
        values: Array = raw.astype(np.float32) * self.scale if raw.dtype == np.int8 else raw.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise NonFinite(what="the features", tensor=0, index=int(order[bad[0]]))
        return values


@dataclass(slots=True)
class _Layer:
    inputs: int
    neurons: int
    flat: F32  # the matrix, then the biases
    flat_slots: F32  # as many for each slot

    @property
    def w(self) -> Array:
        return self.flat[: self.inputs * self.neurons].reshape(self.neurons, self.inputs)

    @property
    def bias(self) -> Array:
        return self.flat[self.inputs * self.neurons :]

    def slot(self, s: int) -> Array:
        return self.flat_slots[s * len(self.flat) : (s + 1) * len(self.flat)]


def _layers(recipe: OutputHeadSettings, weights: F32, slots: F32) -> list[_Layer]:
    out, at = [], 0
    for inputs, neurons in zip(recipe.widths, recipe.widths[1:], strict=False):
        size = neurons * (inputs + 1)
        kept = [slots[s * recipe.size + at : s * recipe.size + at + size] for s in range(recipe.slots)]
        out.append(_Layer(inputs, neurons, weights[at : at + size].copy(), np.concatenate([*kept, np.zeros(0, np.float32)])))
        at += size
    return out


def _striped(terms: Array) -> Array:
    """Return the sums over the last axis: 16 stripes from zero, then halves onto each other."""
    sums = np.zeros((*terms.shape[:-1], STRIPES), np.float32)
    for i in range(0, terms.shape[-1], STRIPES):
        part = terms[..., i : i + STRIPES]
        sums[..., : part.shape[-1]] += part
    return _tree(sums)


def _tree(sums: Array) -> Array:
    half = STRIPES // 2
    while half:
        sums = sums[..., :half] + sums[..., half : 2 * half]
        half //= 2
    folded: Array = sums[..., 0]
    return folded


def _in_order(terms: Any, shape: tuple[int, ...]) -> Array:
    """Return the sum of the terms, one after the other from zero."""
    total = np.zeros(shape, np.float32)
    for term in terms:
        total = total + term
    return total


def _look(recipe: OutputHeadSettings, layers: list[_Layer], x: Array) -> list[Array]:
    """Return what goes into each layer, and what comes out of the last."""
    values = [x]
    for k, layer in enumerate(layers):
        sums = np.zeros((len(x), layer.neurons, STRIPES), np.float32)
        for i in range(0, layer.inputs, STRIPES):
            part = values[-1][:, None, i : i + STRIPES] * layer.w[None, :, i : i + STRIPES]
            sums[..., : part.shape[-1]] += part
        z = _tree(sums) + layer.bias
        if k + 1 < len(layers):
            z = tanh(z) if recipe.activation == Activation.TANH else np.where(z > 0, z, _F(0))
        values.append(z)
    return values


def _judge(recipe: OutputHeadSettings, z: Array, rows: _Rows, batch: Array) -> tuple[np.float32, Array]:
    """Return the batch's loss, and its slope by each output."""
    n = recipe.outputs
    part = _F(1) / _F(len(batch))
    wanted = rows.wanted[batch]
    bad = np.flatnonzero(wanted >= n) if recipe.loss == Loss.SOFTMAX else np.flatnonzero(~np.isfinite(wanted).all(axis=1))
    if len(bad):
        reason = f"that of row {int(batch[bad[0]])} is no class, or its target is not a finite number"
        raise Malformed(what="labels", reason=reason)
    if recipe.loss == Loss.SOFTMAX:
        each = np.arange(len(batch))
        top = z.max(axis=1)
        e = exp(z - top[:, None])
        whole = _striped(e)
        delta = e / whole[:, None]
        delta[each, wanted] -= _F(1)
        delta = delta * part
        losses = log(whole) - (z[each, wanted] - top)
    elif recipe.loss == Loss.MSE:
        error = z - wanted
        losses = _striped(error * error) / _F(n)
        delta = error * (_F(2) * (part / _F(n)))
    else:
        e = exp(-np.abs(z))
        more = _F(1) + e
        losses = _striped((np.where(z > 0, z, _F(0)) - z * wanted) + log(more)) / _F(n)
        delta = (np.where(z >= 0, _F(1), e) / more - wanted) * (part / _F(n))
    loss = np.float32(_in_order(losses, ())[()] * part)
    slope: Array = delta
    return loss, slope


def _learn(recipe: OutputHeadSettings, layers: list[_Layer], values: list[Array], delta: Array, now: int) -> None:
    for k in range(len(layers) - 1, -1, -1):
        layer, x = layers[k], values[k]
        below = _in_order((delta[:, j, None] * layer.w[None, j] for j in range(layer.neurons)), x.shape) if k else delta
        grads = _in_order((delta[b, :, None] * x[None, b] for b in range(len(x))), layer.w.shape)
        bias_grads = _in_order(delta, (layer.neurons,))
        _move(recipe, layer, np.concatenate([grads.reshape(-1), bias_grads]), now)
        if k and recipe.activation == Activation.TANH:
            below = below * (_F(1) - x * x)
        elif k:
            below = np.where(x > 0, below, _F(0))
        delta = below


def _move(recipe: OutputHeadSettings, layer: _Layer, d: Array, now: int) -> None:
    rate = float(_F(recipe.rate))
    if recipe.schedule == Schedule.LINEAR:
        rate = rate + (float(_F(recipe.rate_end)) - rate) * (now / recipe.steps)
    elif recipe.schedule == Schedule.STAIRS:
        rate = rate * _power(float(_F(recipe.factor)), now // recipe.every)
    plain = _F(rate)
    beta1, beta2 = _F(recipe.beta1), _F(recipe.beta2)
    if recipe.optimizer == Optimizer.ADAM:
        rate = rate * math.sqrt(1.0 - _power(float(beta2), now + 1)) / (1.0 - _power(float(beta1), now + 1))
    w = layer.flat
    decay = np.zeros(len(w), np.float32)
    decay[: layer.inputs * layer.neurons] = plain * _F(recipe.decay)
    if recipe.optimizer == Optimizer.SGD:
        by = d
    elif recipe.optimizer == Optimizer.MOMENTUM:
        one = layer.slot(0)
        one[:] = beta1 * one + d
        by = one
    else:
        one, two = layer.slot(0), layer.slot(1)
        one[:] = beta1 * one + (_F(1) - beta1) * d
        two[:] = beta2 * two + (_F(1) - beta2) * (d * d)
        # In float64, rounded once more: the same bits as a right float32 root. On 32-bit ARM numpy 1.24's own is one unit off.
        by = one / (np.sqrt(two.astype(np.float64)).astype(np.float32) + _F(recipe.epsilon))
    layer.flat = w - (_F(rate) * by + decay * w)


def _power(x: float, n: int) -> float:
    product = 1.0
    while n:
        if n & 1:
            product = product * x
        n >>= 1
        x = x * x
    return product
