"""Retrains the head of an int8 classifier: fits it in float on the activations that it sees, and puts it back in place.

The file keeps its size; nothing changes but the head's weights, and its scales where the new weights do not fit the old ones. The layers in
front give the same bits as before, also in files that keep state from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import BadArgument, NotTrainable
from modelwire.tflite.flatbuffer import Table

from .stock import Stock, read
from .writing import flat, ops
from .writing.flat import At, Node, Number, Vectors

F64 = NDArray[np.float64]
_BEHIND = (ops.LOGISTIC, ops.SOFTMAX, ops.RESHAPE, ops.SQUEEZE, ops.QUANTIZE, ops.DEQUANTIZE)
LARGEST = 127  # narrow range, as the runtimes want it of weights
RIDGE, STEPS, RATE = 1e-3, 1500, 0.05  # of the fit


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer of an int8 classifier. Values are what the integers stand for."""

    features: int  # the tensor that it sees
    kernel: int  # tensors
    bias: int  # -1: none
    output: int  # the logits
    scales: F64  # of the kernel: one for each class, equal ones where the file has one for all
    feature_scale: float
    feature_zero: int
    binary: bool  # through a logistic; else through a softmax

    def kernel_of(self, stock: Stock) -> F64:
        """Return the kernel as numbers, [classes, features]."""
        return stock.value(self.kernel).reshape(len(self.scales), -1).astype(np.float64) * self.scales[:, None]

    def bias_of(self, stock: Stock) -> F64:
        if self.bias < 0:
            return np.zeros(len(self.scales))
        return stock.value(self.bias).astype(np.float64) * self.scales * self.feature_scale

    def numbers(self, activations: NDArray[Any]) -> F64:
        """Return what int8 activations stand for, [rows, features]."""
        rows = activations.reshape(len(activations), -1).astype(np.float64)
        return (rows - self.feature_zero) * self.feature_scale


@dataclass(frozen=True, slots=True)
class Retrained:
    """A file with another head, and how it came out."""

    file: bytes
    changed: int  # bytes
    rescaled: bool  # whether the old scales were too small for the new weights


def head(stock: Stock, output: int, *, model: str = "the model") -> Head:
    """Return the head that leads to the output. Raises NotTrainable for a file whose last layer is not a dense one of int8."""

    def refuse(reason: str) -> NotTrainable:
        return NotTrainable(model=model, reason=reason)

    tensor, binary, op = output, False, stock.source.get(output)
    while op is not None and op.code in _BEHIND:
        binary = binary or op.code == ops.LOGISTIC
        tensor = op.inputs[0]
        op = stock.source.get(tensor)
    if op is None or op.code not in (ops.FULLY_CONNECTED, ops.CONV_2D):
        raise refuse("its output does not come from a dense layer through a logistic or a softmax")
    x, w = (stock.tensors[t] for t in op.inputs[:2])
    bias = op.inputs[2] if len(op.inputs) > 2 else -1
    if x.type != ops.INT8 or w.type != ops.INT8 or len(x.scales) != 1 or len(w.scales) not in (1, w.shape[0]) or any(w.zeros):
        raise refuse(f"its last layer (operator {op.index}) is {ops.TYPE_NAMES.get(w.type, 'something')}, not int8 with symmetric scales")
    if op.code == ops.CONV_2D and (w.shape[1:3] != (1, 1) or x.shape[1:3] != (1, 1)):
        raise refuse(f"its last layer (operator {op.index}) is a convolution over a map")
    weights = [t for t in (op.inputs[1], bias) if t >= 0]
    shared = [t for t in weights if sum(other.buffer == stock.tensors[t].buffer for other in stock.tensors) > 1 or len(stock.users[t]) > 1]
    if shared or not all(stock.is_constant(t) for t in weights) or (bias >= 0 and stock.tensors[bias].type != ops.INT32):
        raise refuse(f"the weights of its last layer (operator {op.index}) are not constants of its own")
    scales = np.broadcast_to(np.array(w.scales, np.float64), (w.shape[0],)).copy()
    return Head(op.inputs[0], op.inputs[1], bias, op.outputs[0], scales, x.scales[0], x.zeros[0], binary)


def exposing(stock: Stock, of: Head) -> bytes:
    """Return the file with what its head sees as one output more, behind those that it has; everything else is as it was.

    Run with any TFLite runtime it gives the rows that `fit` takes, at the speed of the model itself.
    """
    (graph, *others) = list(stock.root.tables(2))
    fields: dict[int, Number | Node] = {
        0: Vectors([At(t.at) for t in stock.tensors]), 1: flat.integers(stock.inputs), 2: flat.integers((*stock.outputs, of.features)),
        3: Vectors([At(op.at) for op in stock.operators]), 4: flat.text(graph.text(4) or "main"),
    }  # fmt: skip
    graphs: list[Node] = [flat.Table(fields), *(At(t.at) for t in others)]
    root: dict[int, Number | Node] = {
        0: flat.u32(3), 1: Vectors([At(at) for at in stock.codes]), 2: Vectors(graphs),
        4: Vectors([At(at) for at in stock.buffer_tables]), 6: Vectors([At(t.at) for t in stock.root.tables(6)]),
    }  # fmt: skip
    return flat.write(flat.Table(root), b"TFL3", stock.data)  # without signatures: theirs name the outputs


def check(of: Head, features: F64, labels: NDArray[np.int64]) -> None:
    """Raise BadArgument unless there is a label that the head can give for each row."""
    rows, most = len(features), 1 if len(of.scales) == 1 else len(of.scales) - 1
    fix = f"one label from 0 to {most} for each row of finite numbers"
    if rows != len(labels) or rows == 0:
        raise BadArgument(reason=f"{len(labels)} labels for {rows} rows of features", fix=fix)
    if labels.min() < 0 or labels.max() > most:
        raise BadArgument(reason=f"labels from {labels.min()} to {labels.max()} for a head of {len(of.scales)} outputs", fix=fix)
    if not np.abs(features).max(initial=0) <= np.finfo(np.float32).max:  # also what is no number
        raise BadArgument(reason="an entry of the rows is not a finite number of float32", fix=fix)


def fit(of: Head, features: F64, labels: NDArray[np.int64]) -> tuple[F64, F64]:
    """Return (kernel, bias) of the logistic or softmax regression of labels on features [rows, n], in float64.

    labels: classes from 0; for a logistic head of one unit 0 and 1. Features are first
    brought to one size, and a ridge keeps weights small.
    """
    check(of, features, labels)
    rows, n = features.shape
    classes = len(of.scales)
    mean, spread = features.mean(0), features.std(0)
    spread[spread <= 1e-6 * spread.max()] = np.inf  # what never changes says nothing
    x = (features - mean) / spread
    target = labels[:, None].astype(np.float64) if classes == 1 else np.eye(classes)[labels]
    w, b = np.zeros((classes, n)), np.zeros(classes)
    moments = [np.zeros_like(w), np.zeros_like(w), np.zeros_like(b), np.zeros_like(b)]
    for step in range(1, STEPS + 1):
        z = x @ w.T + b
        if of.binary:
            p = 0.5 * (1 + np.tanh(0.5 * z))
        else:
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
        d = (p - target) / rows
        for i, (value, g) in enumerate(((w, d.T @ x + RIDGE * w), (b, d.sum(0)))):
            first, second = moments[2 * i], moments[2 * i + 1]
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            rate = RATE * (1 - step / (STEPS + 1))
            value -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
    kernel = w / spread
    return kernel, b - kernel @ mean


def put(stock: Stock, of: Head, kernel: F64, bias: F64, features: F64) -> Retrained:
    """Return the file with this head in the place of its own: of the same length, scales kept unless something would be clipped.

    features: rows that the logits of a softmax head have to leave apart; a logistic one only loses what is certain anyway.
    """
    if of.bias < 0 and np.abs(bias).max() > 0:
        raise BadArgument(reason="the head has no bias to put one into", fix="retrain a model whose last layer has a bias")
    out = bytearray(stock.data)
    largest = np.abs(kernel).max(1)
    each = len(stock.tensors[of.kernel].scales) > 1
    new = np.maximum(of.scales, (largest if each else np.full_like(largest, largest.max())) / LARGEST)
    new = new.astype(np.float32).astype(np.float64)  # what the file can hold, and then at least as much
    new = np.where(new * LARGEST < largest, np.nextafter(new.astype(np.float32), np.float32(np.inf)), new).astype(np.float64)
    rescaled = bool((new != of.scales).any())
    if rescaled:
        file = stock.root.file
        for tensor, scale in ((of.kernel, new), (of.bias, new * of.feature_scale)):
            if tensor >= 0:
                table = Table(file, stock.tensors[tensor].at).table(4)
                assert table is not None
                v = table.vector(2, 4)
                _write(out, v.start, scale[: v.count].astype("<f4"))
    if not of.binary:
        rescaled = _widen(out, stock, of.output, features @ kernel.T + bias) or rescaled
    start, _ = stock.buffers[stock.tensors[of.kernel].buffer]
    _write(out, start, np.clip(np.rint(kernel / new[:, None]), -LARGEST, LARGEST).astype("i1"))
    if of.bias >= 0:
        start, _ = stock.buffers[stock.tensors[of.bias].buffer]
        _write(out, start, np.clip(np.rint(bias / (new * of.feature_scale)), -(2**31) + 1, 2**31 - 1).astype("<i4"))
    file_now = bytes(out)
    _check(stock, read(file_now), of)
    return Retrained(file_now, int((np.frombuffer(file_now, "u1") != np.frombuffer(stock.data, "u1")).sum()), rescaled)


def _widen(out: bytearray, stock: Stock, tensor: int, logits: F64) -> bool:
    """Give the logits a scale that holds all of these, in place, when the old one does not; returns whether it did."""
    found = stock.tensors[tensor]
    low, high = ((edge - found.zeros[0]) * found.scales[0] for edge in (-128, 127))
    least, most = min(0.0, float(logits.min(initial=0))), max(0.0, float(logits.max(initial=0)))
    if low <= least and most <= high:
        return False
    table = Table(stock.root.file, found.at).table(4)
    if table is None or [user.code for user in stock.users[tensor]] != [ops.SOFTMAX]:
        reason = "the new logits leave the range of the old ones, and more than a softmax reads them"
        raise BadArgument(reason=reason, fix="give fewer or less certain rows, so that the head stays smaller")
    scale = np.float32((most - least) / 254)
    _write(out, table.vector(2, 4).start, np.array([scale], "<f4"))
    _write(out, table.vector(3, 8).start, np.array([round(-128 - least / float(scale))], "<i8"))
    return True


def _write(out: bytearray, at: int, values: NDArray[Any]) -> None:
    raw = values.tobytes()
    out[at : at + len(raw)] = raw


def _check(before: Stock, after: Stock, of: Head) -> None:
    """Raise NotTrainable when something else than the head changed: a file whose tables lie over each other."""
    mine = {before.tensors[t].buffer for t in (of.kernel, of.bias) if t >= 0}
    pairs = enumerate(zip(before.tensors, after.tensors, strict=True))
    same = all(a == b for i, (a, b) in pairs if i not in (of.kernel, of.bias, of.output))
    for i, (start, size) in enumerate(before.buffers):
        same = same and (i in mine or before.data[start : start + size] == after.data[start : start + size])
    if not same or before.buffers != after.buffers:
        raise NotTrainable(model="the model", reason="the weights of its last layer lie over other parts of the file")
