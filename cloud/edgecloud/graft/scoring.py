"""Writes how badly an auto-encoder reconstructs a sample, and whether that is beyond the threshold that the file holds."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from modelwire.errors import BadArgument
from modelwire.tflite.notes import SCORE, THRESHOLD

from .stock import Stock
from .writing import ops
from .writing.build import GraphBuilder

# The largest float32: until a device has set a threshold no sample is beyond it.
NONE_YET = np.array([np.finfo(np.float32).max], "<f4")


def check(stock: Stock, output: int, loss: str, weights: Mapping[str, int]) -> None:
    """Raise BadArgument for a model that gives no reconstruction of what it takes."""
    x, y = stock.tensors[stock.inputs[0]].shape, stock.tensors[output].shape
    if loss != "mse":
        raise BadArgument(reason=f"a score is a squared error; this output is trained by {loss!r}", fix="--loss mse, or leave --score out")
    if x != y:
        raise BadArgument(reason=f"a score compares x {list(x)} with its reconstruction {list(y)}", fix="leave --score out")
    if THRESHOLD in weights:
        raise BadArgument(reason=f"a weight of the model is called {THRESHOLD!r} already", fix="leave --score out")


def write(graph: GraphBuilder, x: int, output: int, threshold: int) -> dict[str, int]:
    """Return the outputs of `score`: the mean squared error, the threshold, and 1 where the first is beyond the second, else 0."""
    difference = graph.reshape(graph.sub(output, x), (1, prod(graph.shape(x))))
    score = graph.sum(graph.mul(difference, difference), [1], code=ops.MEAN)
    # Not "greater": a score that is no number, from a sensor that gives none, is an alarm too.
    inside = graph.as_float(graph.compare(ops.LESS_EQUAL, score, threshold))
    return {SCORE: score, "threshold": threshold, "alarm": graph.sub(graph.constant_of(1.0), inside)}
