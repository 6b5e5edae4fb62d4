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
from modelwire.errors import ModelWireError
from modelwire.tflite.file import read_head, read_weights
from modelwire.tflite.int8_head import Int8Head
from modelwire.tflite.int8_numbers import F64, features_of, layer_of

from .limited import bound
from .trying import said

SAMPLES = 24
WEIGHTS_MAX = 1 << 18  # of a head that is fitted here: more would take minutes


def learnt(data: bytes, installed: runtime.Runtime, *, model: str) -> dict[str, Any]:
    """Return `before` and `after`, losses of the head as the file holds it, and `same`: whether what it sees kept its bits."""
    with consistent(model):
        head = read_head(data, model=model)
        if head is None or head.features * head.outputs > WEIGHTS_MAX:
            return {"reason": "its head is too large to be fitted here" if head else "it has no int8 head"}
        stock = read(data, model)
        seen = _rows(installed, retraining.exposing(stock, head.seen))
        features = features_of(head, seen)
        labels = np.arange(len(seen)) % (2 if head.outputs == 1 else head.outputs)
        kernel, bias = retraining.fit(head, features, labels)
        made = retraining.put(data, head, kernel, bias, features)
        again = _rows(installed, retraining.exposing(read(made.file, model), head.seen))
        before, after = (_loss(head, file, features, labels) for file in (data, made.file))
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


def _loss(head: Int8Head, file: bytes, features: F64, labels: NDArray[np.int64]) -> float:
    """Return the cross-entropy of the head that a file holds."""
    weights = read_weights(retraining.trainable(file, head))
    kernel, bias = layer_of(head.with_weights(weights), weights)
    z = features @ kernel.T + bias
    if head.outputs == 1:
        z = np.concatenate([np.zeros_like(z), z], 1)
    z -= z.max(1, keepdims=True)
    return float((np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]).mean())


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
