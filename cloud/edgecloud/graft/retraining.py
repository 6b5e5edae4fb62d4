"""Retrains the head of an int8 classifier: fits it in float on the activations that it sees, and puts it back in place.

The file keeps its size; nothing changes but the head's weights, and its scales where the new weights do not fit the old ones. The layers in
front give the same bits as before, also in files that keep state from call to call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import BadArgument, NotTrainable
from modelwire.tensors import Weights
from modelwire.tflite import int8_finder, int8_numbers
from modelwire.tflite.file import TrainableFile, read_weights, write_weights
from modelwire.tflite.graph import parse
from modelwire.tflite.int8_head import BIAS_SCALE, CODE_MAX, KERNEL_SCALE, OUTPUT_SCALE, Int8Head
from modelwire.tflite.int8_numbers import F64, each

from .stock import Stock
from .writing import flat
from .writing.flat import Node, Number, OldNode, TableVector

RIDGE, STEPS, RATE = 1e-3, 1500, 0.05  # of the fit
ROOM = 255 / 254  # a new scale of logits reaches from code to code: these rows are all that it is made for


@dataclass(frozen=True, slots=True)
class Retrained:
    """A file with another head, and how it came out."""

    file: bytes
    changed: int  # bytes
    rescaled: bool  # whether the old scales were too small for the new weights


def int8_head_of(stock: Stock, output: int, *, model: str = "the model") -> Int8Head:
    """Return the head that leads to the output. Raises NotTrainable for a file whose last layer is not a dense one of int8."""
    return int8_finder.find_behind(stock.data, parse(stock.data), output, model)


def trainable(data: bytes, head: Int8Head) -> TrainableFile:
    """Return a file whose weights, to read and to write, are those of this head. data: its own file, or one retrained."""
    return TrainableFile(data, head.variables, False, parse(data), head)


def exposing(stock: Stock, tensor: int, note: bytes = b"") -> bytes:
    """Return the file with a tensor as one output more, behind those that it has; everything else is as it was.

    note: what a device reads of its head, as `int8_finder.note` makes it; it takes the place of an earlier one.
    Of what its head sees, run with any TFLite runtime, it gives the rows that `fit` takes, at the speed of the model itself.
    """
    (graph, *others) = list(stock.root.tables(2))
    fields: dict[int, Number | Node] = {
        0: TableVector([OldNode(t.byte) for t in stock.tensors]),
        1: flat.integers(stock.inputs), 2: flat.integers((*stock.outputs, tensor)),
        3: TableVector([OldNode(op.byte) for op in stock.operators]), 4: flat.text(graph.text(4) or "main"),
    }  # fmt: skip
    graphs: list[Node] = [flat.TableNode(fields), *(OldNode(t.at) for t in others)]
    metadata: list[Node] = [OldNode(t.at) for t in stock.root.tables(6) if not note or t.text(0) != int8_finder.ENTRY]
    buffers: list[Node] = [OldNode(byte) for byte in stock.buffer_tables]
    if note:
        metadata.append(flat.TableNode({0: flat.text(int8_finder.ENTRY), 1: flat.u32(len(buffers))}))
        buffers.append(flat.TableNode({0: flat.data(note)}))
    root: dict[int, Number | Node] = {
        0: flat.u32(3), 1: TableVector([OldNode(byte) for byte in stock.codes]), 2: TableVector(graphs),
        4: TableVector(buffers), 6: TableVector(metadata),
    }  # fmt: skip
    return flat.write(flat.TableNode(root), b"TFL3", stock.data)  # without signatures: theirs name the outputs


def check(head: Int8Head, features: F64, labels: NDArray[np.int64]) -> None:
    """Raise BadArgument unless there is a label that the head can give for each row."""
    rows, most = len(features), 1 if head.outputs == 1 else head.outputs - 1
    fix = f"one label from 0 to {most} for each row of finite numbers"
    if rows != len(labels) or rows == 0:
        raise BadArgument(reason=f"{len(labels)} labels for {rows} rows of features", fix=fix)
    if labels.min() < 0 or labels.max() > most:
        raise BadArgument(reason=f"labels from {labels.min()} to {labels.max()} for a head of {head.outputs} outputs", fix=fix)
    if not np.abs(features).max(initial=0) <= np.finfo(np.float32).max:  # also what is no number
        raise BadArgument(reason="an entry of the rows is not a finite number of float32", fix=fix)


def fit(head: Int8Head, features: F64, labels: NDArray[np.int64]) -> tuple[F64, F64]:
    """Return (kernel, bias) of the logistic or softmax regression of labels on features [rows, n], in float64.

    labels: classes from 0; for a logistic head of one unit 0 and 1. Features are first
    brought to one size, and a ridge keeps weights small.
    """
    check(head, features, labels)
    rows, n = features.shape
    classes = head.outputs
    mean, spread = features.mean(0), features.std(0)
    w, b = np.zeros((classes, n)), np.zeros(classes)
    if head.kept is not None:  # a bias that stays can't make good what is taken off the features
        mean, spread = np.zeros(n), np.sqrt((features**2).mean(0))
        b = np.array(head.kept) * each(head.bias_scales, classes)
    spread[spread <= 1e-6 * spread.max()] = np.inf  # what never changes says nothing
    x = (features - mean) / spread
    target = labels[:, None].astype(np.float64) if classes == 1 else np.eye(classes)[labels]
    moments = [np.zeros_like(w), np.zeros_like(w), np.zeros_like(b), np.zeros_like(b)]
    single = head.logistic or classes == 1  # one number without a probability is judged as a probability's logit
    for step in range(1, STEPS + 1):
        z = x @ w.T + b
        if single:
            p = 0.5 * (1 + np.tanh(0.5 * z))
        else:
            p = np.exp(z - z.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
        d = (p - target) / rows
        learnt = ((w, d.T @ x + RIDGE * w), (b, d.sum(0)))
        for i, (value, g) in enumerate(learnt if head.kept is None else learnt[:1]):
            first, second = moments[2 * i], moments[2 * i + 1]
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            rate = RATE * (1 - step / (STEPS + 1))
            value -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
    kernel = w / spread
    return kernel, b - kernel @ mean


def put(file: bytes, head: Int8Head, kernel: F64, bias: F64, features: F64) -> Retrained:
    """Return the file with this layer in the place of its head's: of the same length, scales kept unless something would be clipped.

    features: rows that the logits of a softmax head have to leave apart; a logistic one only loses what is certain anyway.
    """
    scales = _scales_for(head, kernel)
    bias_scales = scales * head.feature_scale
    weights: Weights = int8_numbers.to_integers(head, kernel, bias, scales, bias_scales)
    if (scales != each(head.kernel_scales, head.outputs)).any():
        if head.keeps_scales:
            raise NotTrainable(model="the model", reason="the weights of its last layer lie over other parts of the file")
        weights[KERNEL_SCALE] = scales[: len(head.kernel_scales)].astype(np.float32)
        if BIAS_SCALE in head.names:
            weights[BIAS_SCALE] = bias_scales[: len(head.bias_scales)].astype(np.float32)
    logits = features @ kernel.T + bias
    least, most = min(0.0, float(logits.min(initial=0))), max(0.0, float(logits.max(initial=0)))
    if not head.logistic and not head.holds(least, most):
        if OUTPUT_SCALE not in head.names:
            reason = "the new logits leave the range of the old ones, and more than a softmax reads them"
            raise BadArgument(reason=reason, fix="give fewer or less certain rows, so that the head stays smaller")
        weights |= int8_numbers.wider(least, most, room=ROOM, centred=False, wide=head.wide)
    base = trainable(file, head)
    made = write_weights(base, {**read_weights(base), **weights})
    changed = int((np.frombuffer(made, "u1") != np.frombuffer(file, "u1")).sum())
    return Retrained(made, changed, not weights.keys().isdisjoint((KERNEL_SCALE, OUTPUT_SCALE)))


def _scales_for(head: Int8Head, kernel: F64) -> F64:
    """Return the scale of each output: the one that it has, or the least that holds all of its weights."""
    largest = np.abs(kernel).max(1)
    needed = largest if len(head.kernel_scales) > 1 else np.full_like(largest, largest.max())
    new = np.maximum(each(head.kernel_scales, head.outputs), needed / CODE_MAX)
    held: F64 = new.astype(np.float32).astype(np.float64)  # what the file can hold, and then at least as much
    above: F64 = np.nextafter(held.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    return np.where(held * CODE_MAX < largest, above, held)
