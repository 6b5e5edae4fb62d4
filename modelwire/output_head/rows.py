"""Rows of features with what they should give, as few bytes: what a recipe carries in place of weights.

Coded by the update's own range coder; docs/format/recipe.md has the bytes, docs/notes/recipe.md why nothing is predicted from other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modelwire import _core
from modelwire.errors import Malformed, ShapeMismatch, TooLarge
from modelwire.output_head_settings import FEATURES_MAX, WIDTH_MAX, Loss, OutputHeadSettings
from modelwire.tensors import F32, U32, Dtype
from modelwire.wire import cbor

ENTRIES_MAX = 4 * 1024 * 1024  # features of all rows together
_HALF_MAX = 0x7BFF  # bits of the largest finite float16
_SCALE_MIN, _SCALE_MAX = 2.0**-126, 2.0**100

Features: TypeAlias = NDArray[np.int8] | NDArray[np.float16]


class Layout(IntEnum):
    """How the integers of the features lie in the stream; the writer takes the smallest."""

    ROWS = 0
    COLUMNS = 1  # feature by feature: the coder's contexts follow each feature's own spread
    CENTRED = 2  # the same, each less its feature's median


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of int8 features that count times `scale`, or of float16 ones (scale 1); labels, or targets, or the features themselves."""

    features: Features  # [rows, features]
    labels: U32 | None = None  # [rows], classes
    targets: F32 | None = None  # [rows, outputs]; with neither, a row's features are its targets
    scale: float = 1.0  # a float32

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype not in (np.int8, np.float16) or not self.features.size:
            raise ShapeMismatch(tensor="rows", expected="int8 or float16 [rows, features]", got=_said(self.features))
        n = len(self.features)
        if self.labels is not None and (self.targets is not None or self.labels.shape != (n,) or self.labels.dtype != np.uint32):
            raise ShapeMismatch(tensor="labels", expected=f"uint32[{n}] and no targets", got=_said(self.labels))
        if self.targets is not None and (self.targets.ndim != 2 or len(self.targets) != n or self.targets.dtype != np.float32):
            raise ShapeMismatch(tensor="targets", expected=f"float32[{n}, outputs]", got=_said(self.targets))
        object.__setattr__(self, "scale", float(np.float32(self.scale)))
        if not _SCALE_MIN <= self.scale <= _SCALE_MAX or (self.features.dtype == np.float16 and self.scale != 1.0):
            raise Malformed(what="rows", reason=f"scale {self.scale} is out of range, or float16 features have one")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def flat(self) -> NDArray[Any]:
        return np.ascontiguousarray(self.features).reshape(-1)

    @property
    def values(self) -> F32:
        """The features as the trainer sees them."""
        return self.features.astype(np.float32) * np.float32(self.scale)

    def wanted_for(self, settings: OutputHeadSettings) -> NDArray[Any]:
        """Return labels or flat targets as the settings' loss asks for them.

        Raises ShapeMismatch, and Malformed for a label that is not below the outputs: of any row, before a step is taken, so that no
        other fault of the training can come first.
        """
        if settings.loss is Loss.SOFTMAX:
            if self.labels is None:
                raise ShapeMismatch(tensor="labels", expected="a class for each row", got="none")
            strange = np.flatnonzero(self.labels >= settings.outputs)
            if len(strange):
                raise Malformed(what="labels", reason=f"that of row {strange[0]} is no class of {settings.outputs}")
            return np.ascontiguousarray(self.labels)
        targets = self.values if self.targets is None and self.labels is None else self.targets
        if targets is None or targets.shape[1] != settings.outputs:
            got = "labels" if targets is None else str(targets.shape[1])
            raise ShapeMismatch(tensor="targets", expected=f"{settings.outputs} a row", got=got)
        return np.ascontiguousarray(targets).reshape(-1)

    def take(self, order: Sequence[int] | NDArray[np.intp]) -> Rows:
        """Return some of the rows, in that order."""
        chosen = np.asarray(order, np.intp)
        return Rows(
            self.features[chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.targets is None else self.targets[chosen],
            self.scale,
        )

    def without(self, rows: Sequence[int]) -> Rows:
        """Return all other rows, in their order. Raises Malformed when one is not there, or none would be left."""
        strange = sorted({row for row in rows if not 0 <= row < len(self)})
        if strange:
            raise Malformed(what="rows", reason=f"there is no row {strange[0]}: they are 0..{len(self) - 1}")
        kept = np.delete(np.arange(len(self)), list(rows))
        if not len(kept):
            raise Malformed(what="rows", reason="none would be left")
        return self.take(kept)


def quantized(features: NDArray[Any], labels: U32 | None = None, targets: F32 | None = None) -> Rows:
    """Return rows of int8 with one scale, the largest magnitude at 127. Train on these: the centre sees no others.

    features: float32 or float16, [rows, features].
    """
    peak = float(np.maximum(features.max(initial=0.0), -features.min(initial=0.0)))
    scale = np.float32(max(peak / 127, _SCALE_MIN))
    out = np.empty(features.shape, np.int8)
    for start in range(0, len(features), 64):  # in pieces: a board has no room for all of them as float32
        out[start : start + 64] = np.clip(np.rint(features[start : start + 64].astype(np.float32) / scale), -127, 127)
    return Rows(out, labels, targets, float(scale))


def as_value(rows: Rows) -> cbor.Value:
    """Return what stands for the rows in a record. Raises TooLarge for more than a reader takes."""
    if rows.features.size > ENTRIES_MAX:
        raise TooLarge(what="the rows", size=rows.features.size, limit=ENTRIES_MAX)
    whole = _integers(rows.features)
    coded = min((_coded(whole, layout) for layout in Layout), key=lambda made: len(made[-1]))
    wanted: cbor.Value = None
    if rows.labels is not None:
        wanted = [int(np.count_nonzero(rows.labels)), _stream([rows.labels.astype(np.int64).reshape(-1, 1)])[1]]
    elif rows.targets is not None:
        wanted = [rows.targets.shape[1], rows.targets.astype("<f4").tobytes()]
    dtype = Dtype.INT8 if rows.features.dtype == np.int8 else Dtype.FLOAT16
    return [1, int(dtype), rows.scale, *rows.features.shape, *coded, 0 if rows.labels is not None else 1, wanted]


def rows_of(value: cbor.Value) -> Rows:
    """Return the rows that `as_value` gave. Everything is checked before it is allocated. Raises Malformed or TooLarge."""
    kinds = (int, int, float, int, int, int, int, int, bytes, int)
    fields: list[Any] = value if isinstance(value, list) else []
    if [type(field) for field in fields[:10]] != list(kinds) or len(fields) != 11 or fields[0] != 1:
        raise Malformed(what="rows", reason="they are not rows of format 1")
    _, dtype, scale, n, width, layout, count, medians, stream, kind, wanted = fields
    if dtype not in (Dtype.INT8, Dtype.FLOAT16) or layout not in tuple(Layout) or kind not in (0, 1):
        raise Malformed(what="rows", reason="a dtype, layout or kind that this release does not read")
    if n < 1 or width < 1:
        raise Malformed(what="rows", reason=f"there are none: {n} rows of {width} features")
    if width > FEATURES_MAX or n * width > ENTRIES_MAX:
        raise TooLarge(what="the rows", size=n * width, limit=ENTRIES_MAX)
    if not _SCALE_MIN <= scale <= _SCALE_MAX or scale != float(np.float32(scale)) or (dtype == Dtype.FLOAT16 and scale != 1.0):
        raise Malformed(what="rows", reason="the scale is out of range")
    if not 0 <= count <= n * width or not 0 <= medians <= width * (layout == Layout.CENTRED):
        raise Malformed(what="rows", reason="a count does not fit")
    shape = (n, width) if layout == Layout.ROWS else (width, n)
    shapes = [(shape, count), *([((width, 1), medians)] if layout == Layout.CENTRED else [])]
    integers, *centres = _decoded(stream, shapes)
    if centres:
        integers = integers + centres[0]
    features = _features(integers if layout == Layout.ROWS else integers.T, Dtype(dtype))
    labels, targets = _wanted(kind, wanted, n)
    return Rows(features, labels, targets, scale)


def _wanted(kind: int, wanted: Any, n: int) -> tuple[U32 | None, F32 | None]:
    if kind == 1 and wanted is None:
        return None, None
    if not isinstance(wanted, list) or len(wanted) != 2 or type(wanted[0]) is not int or not isinstance(wanted[1], bytes):
        raise Malformed(what="rows", reason="labels or targets are not a number and bytes")
    number, data = wanted
    if kind == 0:
        if not 0 <= number <= n:
            raise Malformed(what="rows", reason="a count of labels does not fit")
        (labels,) = _decoded(data, [((n, 1), number)])
        if labels.min() < 0 or labels.max() >= WIDTH_MAX:
            raise Malformed(what="rows", reason="a label is no class")
        return labels.reshape(-1).astype(np.uint32), None
    if not 1 <= number <= WIDTH_MAX or len(data) != 4 * n * number:
        raise Malformed(what="rows", reason="targets do not fill their rows")
    targets = np.frombuffer(data, "<f4").astype(np.float32).reshape(n, number)
    if not np.isfinite(targets).all():
        raise Malformed(what="rows", reason="a target is not a finite number")
    return None, targets


def _said(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _integers(features: Features) -> NDArray[np.int64]:
    """Return the features as integers: int8 as it is, float16 in the order of its values, -0.0 below 0.0."""
    if features.dtype == np.int8:
        return features.astype(np.int64)
    bits = features.view(np.uint16).astype(np.int64)
    if not np.isfinite(features).all():
        raise Malformed(what="rows", reason="a feature is not a finite number")
    return np.where(bits & 0x8000, -1 - (bits & 0x7FFF), bits)


def _features(integers: NDArray[np.int64], dtype: Dtype) -> Features:
    low, high = (-128, 127) if dtype is Dtype.INT8 else (-1 - _HALF_MAX, _HALF_MAX)
    if integers.min() < low or integers.max() > high:
        raise Malformed(what="rows", reason="a feature is out of its type's range")
    if dtype is Dtype.INT8:
        return np.ascontiguousarray(integers.astype(np.int8))
    return np.ascontiguousarray(np.where(integers < 0, 0x8000 | (-1 - integers), integers).astype(np.uint16)).view(np.float16)


def _coded(whole: NDArray[np.int64], layout: Layout) -> tuple[int, int, int, bytes]:
    if layout is Layout.ROWS:
        parts = [whole]
    elif layout is Layout.COLUMNS:
        parts = [whole.T]
    else:
        centres = np.sort(whole, axis=0)[len(whole) // 2]
        parts = [(whole - centres).T, centres.reshape(-1, 1)]
    counts, stream = _stream(parts)
    return int(layout), counts[0], counts[1] if len(parts) > 1 else 0, stream


def _stream(parts: Sequence[NDArray[np.int64]]) -> tuple[list[int], bytes]:
    """Return how many entries of each matrix are not zero, and all of them coded."""
    sections = []
    for part in parts:
        flat = part.reshape(-1)
        index = np.flatnonzero(flat).astype(np.uint32)
        sections.append((*part.shape, index, flat[index].astype(np.int32)))
    return [len(section[2]) for section in sections], _core.encode_sections(sections)


def _decoded(stream: bytes, shapes: Sequence[tuple[tuple[int, int], int]]) -> list[NDArray[np.int64]]:
    out = []
    for (shape, _), (index, value) in zip(shapes, _core.decode_sections(stream, [(*s, count) for s, count in shapes]), strict=True):
        whole = np.zeros(shape[0] * shape[1], np.int64)
        whole[index] = value
        out.append(whole.reshape(shape))
    return out
