"""Many devices' trailing layers on one pass of features, as one product, with a bound on what rounding may have done to each output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire.tensors import F32
from modelwire.tflite.graph import LOGISTIC, SOFTMAX

from .tails import RELU, RELU6, TANH, Dense, Param, Tail

F64: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[np.int64]
Named: TypeAlias = Mapping[str, F32]

UNIT = 2.0**-24  # of one float32 operation, relative
ULPS = 16 * UNIT  # how far two implementations of tanh, exp and the logistic may be apart
MARGIN = 1.01  # of the norms, which are float32 sums themselves
PIECE = 1 << 18  # multiplications of one product of matrices
HELD = 1 << 20  # bytes of one array of outputs: versions are taken in parts of so many


@dataclass(frozen=True, slots=True)
class Outputs:
    """What versions give for rows, before softmax or logistic."""

    scores: F32  # [versions, outputs, rows]
    apart: F32  # [versions, rows]: two scores that are farther apart are in this order in any order of summing


def at_once(rows: int, tail: Tail, base: Named) -> int:
    """Return how many versions fit into one product."""
    widths = [_inputs_and_outputs(layer.matrix, base) for layer in tail.layers if layer.matrix is not None]
    widest = max((outputs for _, outputs in widths), default=tail.features)  # what goes in is shared, but for what a layer gives the next
    weights = sum(a * b for a, b in widths)
    return max(1, HELD // (4 * max(1, max(rows * widest, weights))))


def outputs_of(tail: Tail, features: F32, base: Named, versions: Sequence[Named]) -> Outputs:
    """Return the outputs of all versions. features: [rows, n]; base: its variables by name; versions: what each has otherwise.

    The bound is the common one of a sum of k products in any order, k u / (1 - k u) times the norms of both factors, carried through
    the layers and counted twice, for this product and for the interpreter's, for either of two scores; what tanh, exp and the logistic
    of two libraries differ by comes on top. Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1.
    """
    n = len(versions)
    a: F32 = np.ascontiguousarray(features.T)[None]  # rows last: what is done to each output of all rows is then done to whole vectors
    error: F64 = np.zeros((1, 1))
    most: F64 = np.zeros((n, len(features)))
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in tail.layers:
            a, error, most = _through(layer, a, error, base, versions)
        scores = np.broadcast_to(a, (n, *a.shape[-2:]))
        apart: F32 = np.broadcast_to(4 * most + 2 * ULPS, (n, len(features))).astype(np.float32)
        return Outputs(scores, apart)


def closer(
    tail: Tail, features: F32, base: Named, versions: Sequence[Named], pairs: tuple[Numbers, Numbers], own: Numbers
) -> tuple[F64, F64] | None:
    """Return how far an output is ahead of all others in float64, and how far the interpreter's float32 may be from that, pair by pair.

    pairs: numbers of versions and of rows; own: the output that is meant, of each. The bound is of the sum of the magnitudes of these very
    products, k u / (1 - k u) times it, for either of two scores. None for a tail of several layers.
    """
    if len(tail.layers) != 1 or tail.layers[0].matrix is None or tail.layers[0].activation:
        return None
    (layer,) = tail.layers
    assert layer.matrix is not None
    w = _stacked(layer.matrix, base, versions)
    b = _stacked(layer.biases, base, versions) if layer.biases is not None else np.zeros((1, w.shape[1]), np.float32)
    ahead, room = np.empty(len(own)), np.empty(len(own))
    gamma = (w.shape[2] + 1) * UNIT / (1 - (w.shape[2] + 1) * UNIT)
    step = max(1, HELD // (8 * w.shape[1] * w.shape[2]))
    for start in range(0, len(own), step):
        part = slice(start, start + step)
        version, row = (one[part] for one in pairs)
        a, at = features[row].astype(np.float64), np.arange(len(row))
        matrix, bias = (held[version if len(held) > 1 else np.zeros_like(version)].astype(np.float64) for held in (w, b))
        products = matrix * a[:, None]
        scores, sizes = products.sum(-1) + bias, gamma * (np.abs(products).sum(-1) + np.abs(bias))
        others = scores.copy()
        others[at, own[part]] = -np.inf
        ahead[part] = scores[at, own[part]] - others.max(1)
        room[part] = sizes[at, own[part]] + sizes.max(1)
    return ahead, room * MARGIN + 2 * ULPS


def values_of(tail: Tail, scores: F32) -> F32:
    """Return what the model gives, [..., outputs, rows], of its scores before the last function."""
    if tail.last == LOGISTIC:
        even: F32 = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * scores))
        return even
    if tail.last != SOFTMAX:
        return scores
    with np.errstate(invalid="ignore"):
        out: F32 = np.exp(scores - scores.max(-2, keepdims=True))
        out /= out.sum(-2, keepdims=True)
    return out


def _through(layer: Dense, a: F32, error: F64, base: Named, versions: Sequence[Named]) -> tuple[F32, F64, F64]:
    """Return what a layer gives, a bound on the error's 2-norm, and one on the largest error of an output. a: [1 or n, inputs, rows]."""
    z, most = a, error
    if layer.matrix is not None:
        w = _stacked(layer.matrix, base, versions)  # [1 or n, outputs, inputs]
        count = w.shape[2] + 1
        z = _product(w, a)
        squares = np.einsum("voi,voi->vo", w, w).astype(np.float64)
        largest, whole = np.sqrt(squares.max(1))[:, None], np.sqrt(squares.sum(1))[:, None]
        length = np.sqrt(np.einsum("vir,vir->vr", a, a).astype(np.float64))
        gamma = MARGIN * count * UNIT / (1 - count * UNIT)
        error, most = whole * (error + gamma * length), largest * (error + gamma * length)
    if layer.biases is not None:
        z = z + _stacked(layer.biases, base, versions)[:, :, None]
        size = np.maximum(z.max(1), -z.min(1)).astype(np.float64)
        error, most = error + UNIT * np.sqrt(z.shape[1]) * size, most + UNIT * size
    if layer.activation == TANH:
        z = np.tanh(z)
        error, most = error + ULPS * np.sqrt(z.shape[1]), most + ULPS
    elif layer.activation in (RELU, RELU6):
        z = np.clip(z, 0, None if layer.activation == RELU else 6)
    return z, error, most


def _product(w: F32, a: F32) -> F32:
    """Return w @ a of every version, in pieces for which no library starts threads that then wait for each other on a busy machine."""
    n, outputs, inputs = max(len(w), len(a)), w.shape[1], w.shape[2]
    out = np.empty((n, outputs, a.shape[2]), np.float32)
    width = max(16, PIECE // (outputs * inputs))
    for start in range(0, a.shape[2], width):
        np.matmul(w, a[:, :, start : start + width], out=out[:, :, start : start + width])
    return out


def _stacked(param: Param, base: Named, versions: Sequence[Named]) -> F32:
    """Return a parameter of all versions, [n, ...]; of one where all have the same."""
    if param.value is not None:
        held = [param.value]
    elif any(param.name in version for version in versions):
        held = [version.get(param.name, base[param.name]) for version in versions]
    else:
        held = [base[param.name]]
    out: F32 = np.stack([one.reshape(base[param.name].shape) if param.value is None else one for one in held])
    if out.ndim == 3:
        return np.ascontiguousarray(out.transpose(0, 2, 1)) if param.turned else out
    return out.reshape(len(out), -1)


def _inputs_and_outputs(param: Param, base: Named) -> tuple[int, int]:
    a, b = base[param.name].shape if param.value is None else param.value.shape
    return (a, b) if param.turned else (b, a)
