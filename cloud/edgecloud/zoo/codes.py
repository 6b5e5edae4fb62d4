"""Retrains an int8 head on what it sees of made-up samples, in a process of its own: python -m edgecloud.zoo.codes MEMORY SECONDS FILE

Prints the loss before and after, both with the head as integers, and whether the layers in front still give the same codes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.graft import retraining
from edgecloud.graft.stock import consistent, read
from edgecommon import runtime
from edgecommon.files import read_model_file
from modelwire.errors import BadArgument, ModelWireError
from modelwire.tflite.file import read_head, read_weights
from modelwire.tflite.int8_head import MSE, Int8Head
from modelwire.tflite.int8_numbers import F64, features_of, layer_of

from .limited import bound
from .trying import said

SAMPLES = 24
STEPS = (0.5, 0.2, 0.1, 0.05, 0.02)  # tried in this order: how far the weight that moves most goes, of the largest weight
_OFF = 0.5  # of the answers' spread: how far the targets of numbers lie from what the model says now


def learnt(data: bytes, installed: runtime.Runtime, *, model: str) -> dict[str, Any]:
    """Return `before` and `after`, losses of the head as the file holds it, and `same`: whether what it sees kept its bits."""
    with consistent(model):
        head = read_head(data, model=model)
        if head is None:
            return {"reason": "it has no int8 head"}
        stock = read(data, model)
        seen = _rows(installed, retraining.exposing(stock, head.seen))
        features = features_of(head, seen)
        targets = _targets(head, _logits(head, data, features))
        before, after, reason = _loss(head, _logits(head, data, features), targets), float("inf"), ""
        for step in STEPS:
            try:
                made = retraining.put(data, head, *_moved(head, data, features, targets, step), features)
            except BadArgument as error:  # a scale that others read as well would have to change
                reason = said(error)
                continue
            after, reason = _loss(head, _logits(head, made.file, features), targets), ""
            if after < before:
                break
        if reason:
            return {"reason": reason}
        again = _rows(installed, retraining.exposing(read(made.file, model), head.seen))
    return {"before": before, "after": after, "same": seen.tobytes() == again.tobytes(), "reason": ""}


def _rows(installed: runtime.Runtime, file: bytes) -> NDArray[Any]:
    """Return what the head sees of made-up samples, a row each: the last output of a file that exposes it."""
    interpreter = runtime.interpreter_for(installed.interpreter, file, delegates=False)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    rng, rows = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        for detail in inputs:
            shape, dtype = tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"])
            codes = dtype.kind in "iu"
            value = rng.integers(0, 100, shape) if codes else rng.standard_normal(shape)
            interpreter.set_tensor(detail["index"], value.astype(dtype))
        interpreter.invoke()
        rows.append(np.asarray(interpreter.get_tensor(outputs[-1]["index"])).reshape(-1))
    return np.stack(rows)


def _targets(head: Int8Head, z: F64) -> F64:
    """Return what the head shall say, [rows, outputs]: classes one after the other, or numbers a little off what it says now."""
    rows, outputs = z.shape
    if head.loss == MSE:
        return z + _OFF * (float(z.std()) or 1.0) * np.random.default_rng(1).standard_normal(z.shape)
    classes = np.arange(rows)[:, None] % max(2, outputs)
    return np.asarray(classes == np.arange(outputs) + (outputs == 1), np.float64)


def _moved(head: Int8Head, file: bytes, features: F64, targets: F64, step: float) -> tuple[F64, F64]:
    """Return kernel and bias after one step down the loss. step: of STEPS."""
    weights = read_weights(retraining.trainable(file, head))
    kernel, bias = layer_of(head.with_weights(weights), weights)
    z = features @ kernel.T + bias
    if head.loss == MSE:
        d = z - targets
    elif head.logistic:
        d = 0.5 * (1 + np.tanh(0.5 * z)) - targets
    else:
        p = np.exp(z - z.max(1, keepdims=True))
        d = p / p.sum(1, keepdims=True) - targets
    slope = d.T @ features / len(z)
    rate = step * (np.abs(kernel).max(initial=0) or 1.0) / (np.abs(slope).max(initial=0) or 1.0)
    return kernel - rate * slope, bias - rate * d.mean(0)


def _logits(head: Int8Head, file: bytes, features: F64) -> F64:
    """Return what the head that a file holds gives before its softmax or logistic, [rows, outputs]."""
    weights = read_weights(retraining.trainable(file, head))
    kernel, bias = layer_of(head.with_weights(weights), weights)
    return features @ kernel.T + bias


def _loss(head: Int8Head, z: F64, targets: F64) -> float:
    """Return the mean loss of the rows."""
    if head.loss == MSE:
        return float(((z - targets) ** 2).mean())
    if head.logistic:
        return float((np.logaddexp(0, z) - z * targets).mean())
    z = z - z.max(1, keepdims=True)
    return float((np.log(np.exp(z).sum(1)) - (z * targets).sum(1)).mean())


def main(words: Sequence[str]) -> None:
    (path,) = bound(words)
    name = Path(path).name
    try:
        document = learnt(read_model_file(Path(path), name), runtime.load(), model=name)
    except ModelWireError as error:
        document = {"reason": said(error)}
    print(json.dumps(document))


if __name__ == "__main__":
    main(sys.argv[1:])
