"""The rows of a recipe (recipe page, Rows)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import cbor, coder
from .errors import Malformed, TooLarge
from .manifest import Array

INT8, FLOAT16 = 4, 2
LABELS, TARGETS = 0, 1


@dataclass(frozen=True)
class Rows:
    """Features as float32, and what they should give."""

    features: Array
    labels: Array | None
    targets: Array | None

    @property
    def count(self) -> int:
        """Count the rows."""
        return int(self.features.shape[0])


def _scale(value: Any, dtype: int) -> np.float32:
    """Read the scale (R18, R19)."""
    if not 2.0**-126 <= value <= 2.0**100 or float(np.float32(value)) != value:
        raise Malformed("R18: scale")
    if dtype == FLOAT16 and value != 1.0:
        raise Malformed("R19: scale of float16")
    return np.float32(value)


def _dense(section: coder.Section) -> Array:
    """Write a section out as a matrix."""
    out = np.zeros(section.rows * section.columns, np.int64)
    out[section.index] = section.value
    return out.reshape(section.rows, section.columns)


def _integers(stream: bytes, shape: tuple[int, int], layout: int, count: int, medians: int) -> Array:
    """Read the integers of all features, row by row."""
    rows, features = shape
    if layout == 0:
        return _dense(coder.decode(stream, [(rows, features, count)])[0])
    if layout == 1:
        return _dense(coder.decode(stream, [(features, rows, count)])[0]).T
    matrix, centres = coder.decode(stream, [(features, rows, count), (features, 1, medians)])
    return (_dense(matrix) + _dense(centres)).T


def _features(integers: Array, dtype: int, scale: np.float32) -> Array:
    """Make float32 of the integers (R22, R23)."""
    if dtype == INT8:
        if np.any((integers < -128) | (integers > 127)):
            raise Malformed("R22: an int8 feature")
        return np.ascontiguousarray(integers).astype(np.float32) * scale
    if np.any((integers < -31744) | (integers > 31743)):
        raise Malformed("R23: a float16 feature")
    bits = np.where(integers >= 0, integers, 0x8000 | (-1 - integers)).astype(np.uint16)
    return np.ascontiguousarray(bits).view(np.float16).astype(np.float32)


def _labels(value: list[Any], rows: int) -> Array:
    """Read labels (R25, R26)."""
    number, stream = value
    if not 0 <= number <= rows:
        raise Malformed("R25: number of labels")
    labels = _dense(coder.decode(stream, [(rows, 1, number)])[0])[:, 0]
    if np.any((labels < 0) | (labels > 4095)):
        raise Malformed("R26: a label")
    return labels


def _targets(value: list[Any], rows: int) -> Array:
    """Read targets (R27 to R29)."""
    outputs, raw = value
    if not 1 <= outputs <= 4096:
        raise Malformed("R27: outputs of targets")
    if len(raw) != rows * outputs * 4:
        raise Malformed("R28: length of targets")
    targets = np.frombuffer(raw, "<f4").astype(np.float32).reshape(rows, outputs)
    if not np.all(np.isfinite(targets)):
        raise Malformed("R29: a target that is not finite")
    return targets


_PLACES = {1: int, 2: float, 3: int, 4: int, 5: int, 6: int, 7: int, 8: bytes, 9: int}


def read_rows(value: Any) -> Rows:
    """Read rows (R14 to R29)."""
    if not isinstance(value, list) or len(value) != 11 or not cbor.is_int(value[0], 1, 1):
        raise Malformed("R14: not rows")
    if any(type(value[place]) is not kind for place, kind in _PLACES.items()):
        raise Malformed("R14: a field of another type")
    if value[10] is not None and not isinstance(value[10], list):
        raise Malformed("R14, R24: wanted is neither array nor null")
    _, dtype, scale, rows, features, layout, count, medians, stream, kind, wanted = value
    if dtype not in (INT8, FLOAT16) or layout not in (0, 1, 2) or kind not in (0, 1):
        raise Malformed("R15: dtype, layout or kind")
    if rows < 1 or features < 1:
        raise Malformed("R16: no row, or no feature")
    if features > 65536 or rows * features > 4_194_304:
        raise TooLarge("R17: rows or features")
    small = _scale(scale, dtype)
    if not 0 <= count <= rows * features:
        raise Malformed("R20: count")
    if not 0 <= medians <= features or (layout != 2 and medians):
        raise Malformed("R21: medians")
    matrix = _features(_integers(stream, (rows, features), layout, count, medians), dtype, small)
    if wanted is None and kind == TARGETS:
        return Rows(matrix, None, None)
    good = isinstance(wanted, list) and len(wanted) == 2 and type(wanted[0]) is int and type(wanted[1]) is bytes
    if not good:
        raise Malformed("R24: wanted")
    if kind == LABELS:
        return Rows(matrix, _labels(wanted, rows), None)
    return Rows(matrix, None, _targets(wanted, rows))


def read_ids(raw: Any, rows: int | None = None) -> list[int]:
    """Read the ids of rows (R40 to R44)."""
    if not isinstance(raw, bytes):
        raise Malformed("R40: ids that are no bytes")
    ids: list[int] = []
    at = 0
    while at < len(raw):
        end = at
        while end < len(raw) and raw[end] & 0x80:
            end += 1
        if end >= len(raw) or end - at >= 9:
            raise Malformed("R41: a number that ends too early or is too long")
        if end > at and raw[end] == 0:
            raise Malformed("R42: a number longer than it needs to be")
        number = sum((byte & 0x7F) << (7 * k) for k, byte in enumerate(raw[at : end + 1]))
        ids.append(number + (ids[-1] if ids else 0))
        if ids[-1] >= 1 << 63:
            raise Malformed("R43: an id beyond 2^63")
        at = end + 1
    if rows is not None and len(ids) != rows:
        raise Malformed("R44: another number of ids than of rows")
    return ids


@dataclass(frozen=True)
class Forgot:
    """What a version says that it has unlearned."""

    samples: tuple[int, ...]
    version: int
    rows: tuple[int, ...]


def read_forgot(raw: Any) -> Forgot:
    """Read what was forgotten (R45 to R51)."""
    if not isinstance(raw, bytes):
        raise Malformed("R45: forgot that is no bytes")
    value = cbor.decode(raw)
    if not isinstance(value, list) or len(value) != 4 or not cbor.is_int(value[0], 1, 1):
        raise Malformed("R46: not a forgot")
    _, samples, version, rows = value
    if not isinstance(samples, bytes) or not isinstance(rows, bytes) or not cbor.is_int(version, 0, (1 << 63) - 1):
        raise Malformed("R47: fields of a forgot")
    try:
        both = [read_ids(samples), read_ids(rows)]
    except Malformed as error:
        raise Malformed(f"R48: {error}") from error
    if any(len(set(ids)) != len(ids) for ids in both):
        raise Malformed("R49: a sample or row twice")
    if not both[0] and not both[1]:
        raise Malformed("R50: neither a sample nor a row")
    if bool(both[1]) != bool(version):
        raise Malformed("R51: rows without version, or version without rows")
    return Forgot(tuple(both[0]), version, tuple(both[1]))


__all__ = ["Forgot", "Rows", "read_forgot", "read_ids", "read_rows"]
