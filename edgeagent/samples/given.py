"""What an application hands over, held against what the model's file says of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelwire.errors import ModelError, ShapeMismatch
from modelwire.tensors import F32, Codes

from .strange_rows import Shape

ROWS = "edgecloud int8-head expose writes a second file; what that one gives for a sample, as it is, is the row to add"
CLASSES = "count the classes from 0, as the model's outputs do; a model of other classes is made where it was trained"


def floats_of(model: str, what: str, value: ArrayLike, shape: tuple[int, ...]) -> F32:
    """Return numbers that were handed over, in the model's shape. what: x or target. Raises ModelError or ShapeMismatch."""
    a = np.asarray(value)
    if a.dtype.kind not in "fiub":
        raise ModelError(model=model, reason=f"{what} holds {a.dtype}, not numbers")
    if a.shape[1:] != shape:
        if a.ndim and len(a) and a[0].size == prod(shape):  # flat rows of a table are in order
            a = a.reshape(len(a), *shape)
        else:
            flat = f"or a flat row of {prod(shape)} numbers each"
            ends = flat if len(shape) > 1 else "of a stock file's several inputs one behind the other, as edgecloud graft says of x"
            fix = f"an array [samples, {', '.join(map(str, shape))}], as the model takes them, {ends}"
            raise ShapeMismatch(tensor=f"{model}: {what}", expected=list(shape), got=list(a.shape[1:]), fix=fix)
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(a, "<f4")
    if not np.isfinite(out).all():
        raise ModelError(model=model, reason=f"{what} holds a value that is not a finite float32")
    return out


def check_rows(model: str, value: ArrayLike, shape: Shape) -> None:
    """Raise ModelError where an int8 head is given other than rows of its features, as images that the whole model takes."""
    got, features = np.shape(value)[1:], prod(shape.x)
    if prod(got) != features:
        reason = f"its int8 head learns from rows of {features} codes, what its last layer sees, not from samples of shape {list(got)}"
        raise ModelError(model=model, reason=reason, fix=ROWS)


def check_codes(model: str, xs: F32, codes: Codes, ys: F32 | None, labelled: bool) -> None:
    """Raise ModelError unless the samples are what an int8 head sees, the integers that a runtime gives, each with what it should answer.

    ys: targets, None where there are none.
    """
    if not labelled and Codes.TARGETS not in codes:
        raise ModelError(model=model, reason="its int8 head learns classes: a sample has a label")
    if not labelled and ys is None:
        raise ModelError(model=model, reason="a sample of its int8 head has a label or a target")
    if not codes.hold(xs):
        raise ModelError(model=model, reason=f"its int8 head sees {codes.said}, as the runtime gives them", fix=ROWS)
    if ys is not None and Codes.SHARES in codes and not bool(((ys >= 0) & (ys <= 1)).all()):
        raise ModelError(model=model, reason="its int8 head gives probabilities: a target is from 0 to 1")


def classes_of(model: str, labels: Sequence[int] | NDArray[Any], shape: Shape) -> NDArray[np.int64]:
    """Return labels that were handed over as class numbers. Raises ModelError."""
    a = np.asarray(labels)
    if a.ndim != 1 or (a.dtype.kind not in "iub" and not (a.dtype.kind == "f" and np.array_equal(a, np.rint(a)))):
        raise ModelError(model=model, reason="labels are whole class numbers, one a sample", fix=CLASSES)
    out = a.astype(np.int64)
    if not shape.classes:
        raise ModelError(model=model, reason=f"it learns targets of shape {list(shape.y)}, not classes")
    if len(out) and (out.min() < 0 or out.max() >= shape.classes):
        raise ModelError(model=model, reason=f"a label is outside 0 to {shape.classes - 1}", fix=CLASSES)
    return out
