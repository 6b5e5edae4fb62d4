"""A strict, deterministic subset of CBOR (RFC 8949, section 4.2): one value has one encoding, and nothing else is read.

Held: integers of 64 bits, finite 64-bit floats, byte and text strings, arrays, maps with text keys, booleans and null.
Refused: indefinite lengths, tags, shorter floats, longer integers than needed, unsorted or repeated keys, trailing bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from operator import itemgetter
from typing import TypeAlias, Union

from modelwire import limits
from modelwire.errors import Malformed, TooLarge

Value: TypeAlias = Union[bool, int, float, bytes, str, "list[Value]", "dict[str, Value]", None]

_FALSE, _TRUE, _NULL, _FLOAT64 = 0xF4, 0xF5, 0xF6, 0xFB
_SHORT = [bytes([n]) for n in range(256)]
_FORMS = ((24, ">BB", 1), (25, ">BH", 2), (26, ">BI", 4), (27, ">BQ", 8))
_LONGER = [(extra, struct.Struct(form), 1 << 8 * width) for extra, form, width in _FORMS]
_FLOAT, _DOUBLE = struct.Struct(">d"), struct.Struct(">Bd")
_SECOND: Callable[[tuple[str, bytes]], bytes] = itemgetter(1)


def encode(value: Value, limit: limits.Limits = limits.DEFAULT) -> bytes:
    """Return the one encoding of `value`. Raises Malformed for what the subset does not hold."""
    out = bytearray()
    _write(value, out, limit.cbor_depth)
    return bytes(out)


def decode(data: bytes, what: str = "record", limit: limits.Limits = limits.DEFAULT) -> Value:
    """Return the value that `data` encodes, all of it. Raises Malformed or TooLarge; `what` names the data in the error."""
    reader = _Reader(data, what, limit)
    value = reader.value(limit.cbor_depth)
    if reader.place != len(data):
        raise Malformed(what=what, reason=f"{len(data) - reader.place} bytes too many")
    return value


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return _SHORT[major << 5 | number]
    for extra, form, end in _LONGER:
        if number < end:
            return form.pack(major << 5 | extra, number)
    raise Malformed(what="record", reason=f"{number} does not fit in 64 bits")


def _text(value: object) -> bytes:
    if not isinstance(value, str):
        raise Malformed(what="record", reason=f"a key of type {type(value).__name__} can't be encoded")
    try:
        text = value.encode()
    except UnicodeEncodeError:  # half a surrogate pair: what a command line gives for bytes that are no UTF-8
        raise Malformed(what="record", reason="text that is not Unicode can't be encoded") from None
    return _head(3, len(text)) + text


_OFTEN = 32  # keys, and characters of each, of the maps whose keys are kept encoded
_known: dict[tuple[object, ...], list[tuple[str, bytes]]] = {}  # keys in their order and as they are written, by the keys as they came
_KNOWN_MAX = 256


def _sorted(value: dict[str, Value]) -> list[tuple[str, bytes]]:
    """Return a map's keys in the order in which they are written, each with its encoding. The maps of records always have the same."""
    names = tuple(value)
    found = _known.get(names)
    if found is None:
        found = sorted([(name, _text(name)) for name in names], key=_SECOND)
        if len(_known) < _KNOWN_MAX and len(names) <= _OFTEN and all(len(name) <= _OFTEN for name in names):
            _known[names] = found
    return found


def _write(value: Value, out: bytearray, depth: int) -> None:
    if isinstance(value, bytes):
        out += _head(2, len(value))
        out += value
    elif isinstance(value, str):
        out += _text(value)
    elif value is None or isinstance(value, bool):
        out.append(_NULL if value is None else _TRUE if value else _FALSE)
    elif isinstance(value, int):
        out += _head(0, value) if value >= 0 else _head(1, -1 - value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed(what="record", reason=f"{value} is not finite")
        out += _DOUBLE.pack(_FLOAT64, value)
    elif depth == 0:
        raise Malformed(what="record", reason="it is nested too deep")
    elif isinstance(value, list):
        out += _head(4, len(value))
        for item in value:
            if type(item) is int and item >= 0:
                out += _head(0, item)
            else:
                _write(item, out, depth - 1)
    elif isinstance(value, dict):
        out += _head(5, len(value))
        for name, key in _sorted(value):
            out += key
            item = value[name]
            if type(item) is bytes:  # the commonest here come first, and without another call
                out += _head(2, len(item))
                out += item
            elif type(item) is int and item >= 0:
                out += _head(0, item)
            elif type(item) is str:
                out += _text(item)
            else:
                _write(item, out, depth - 1)
    else:
        raise Malformed(what="record", reason=f"{type(value).__name__} can't be encoded")


class _Reader:
    def __init__(self, data: bytes, what: str, limit: limits.Limits) -> None:
        self.data, self.what, self.limit = data, what, limit
        self.place, self.end = 0, len(data)
        self.items = 0

    def fail(self, reason: str) -> Malformed:
        return Malformed(what=self.what, reason=f"{reason} at byte {self.place}")

    def take(self, n: int) -> bytes:
        start = self.place
        if n > self.end - start:
            raise self.fail("it ends too early")
        self.place = start + n
        return self.data[start : start + n]

    def number(self, low: int) -> int:
        if low > 27:
            raise self.fail("an indefinite or reserved length")
        width = 1 << low - 24
        n = int.from_bytes(self.take(width), "big")
        if n < (24 if width == 1 else 1 << 4 * width):
            raise self.fail("a number longer than needed")
        return n

    def value(self, depth: int) -> Value:
        self.items += 1
        if self.items > self.limit.cbor_items:
            raise TooLarge(what=self.what, size=self.items, limit=self.limit.cbor_items)
        if self.place >= self.end:
            raise self.fail("it ends too early")
        first = self.data[self.place]
        self.place += 1
        major, n = first >> 5, first & 31
        if major == 7:
            return self.simple(first)
        if n > 23:
            n = self.number(n)
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return self.take(n)
        if major == 3:
            try:
                return self.take(n).decode()
            except UnicodeDecodeError:
                raise self.fail("text that is not UTF-8") from None
        if major == 6:
            raise self.fail("a tag")
        if depth == 0:
            raise self.fail("nested too deep")
        if n > self.end - self.place:  # each item takes a byte at least
            raise self.fail("a count beyond the end")
        if major == 4:
            return [self.value(depth - 1) for _ in range(n)]
        return self.map(n, depth - 1)

    def map(self, n: int, depth: int) -> dict[str, Value]:
        out: dict[str, Value] = {}
        last = b""
        data = self.data
        for _ in range(n):
            start = self.place
            key = self.value(0)
            raw = data[start : self.place]
            if not isinstance(key, str):
                raise self.fail("a key that is not text")
            if raw <= last:
                raise self.fail("keys that are repeated or not sorted")
            last = raw
            out[key] = self.value(depth)
        return out

    def simple(self, first: int) -> Value:
        if first == _FLOAT64:
            (x,) = _FLOAT.unpack(self.take(8))
            if not math.isfinite(x):
                raise self.fail("a number that is not finite")
            return float(x)
        if first not in (_FALSE, _TRUE, _NULL):
            raise self.fail(f"a value of unknown type {first:#x}")
        return None if first == _NULL else first == _TRUE
