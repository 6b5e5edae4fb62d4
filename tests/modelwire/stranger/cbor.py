"""The CBOR subset (container page, CBOR; C1 to C12)."""

from __future__ import annotations

import math
import struct
from typing import Any

from . import limits
from .errors import Malformed, NotUnderstood, TooLarge


class _Reader:
    """One text, read value by value."""

    def __init__(self, data: bytes, items: int, depth: int) -> None:
        """Hold the text and its limits."""
        self.data = data
        self.at = 0
        self.items = items
        self.depth = depth
        self.count = 0

    def take(self, n: int) -> bytes:
        """Give the next n bytes (C1)."""
        if n > len(self.data) - self.at:
            raise Malformed("C1: CBOR ends too early")
        piece = self.data[self.at : self.at + n]
        self.at += n
        return piece

    def argument(self, low: int) -> int:
        """Read an integer, length or count in its shortest form (C3, C4)."""
        if low < 24:
            return low
        if low > 27:
            raise Malformed("C3: indefinite or reserved length")
        size = 1 << (low - 24)
        value = int.from_bytes(self.take(size), "big")
        if value < (24 if size == 1 else 1 << (4 * size)):
            raise Malformed("C4: a longer form than needed")
        return value

    def value(self, depth: int) -> Any:
        """Read one value; depth is how deep its parents are."""
        self.count += 1
        if self.count > self.items:
            raise TooLarge("C12: too many values")
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if major == 7:
            return self.simple(first)
        if major == 6:
            if low > 27:
                raise Malformed("C3: reserved length")
            raise Malformed("C5: a tag")
        n = self.argument(low)
        if major == 0:
            return n
        if major == 1:
            return -1 - n
        if major == 2:
            return self.take(n)
        if major == 3:
            return self.text(n)
        if depth + 1 > self.depth:
            raise Malformed("C11: nested too deep")
        if n > len(self.data) - self.at:
            raise Malformed("C1: more items than bytes")
        if major == 4:
            return [self.value(depth + 1) for _ in range(n)]
        return self.map(n, depth + 1)

    def simple(self, first: int) -> Any:
        """Read false, true, null or a float (C6, C7)."""
        if first == 0xF4:
            return False
        if first == 0xF5:
            return True
        if first == 0xF6:
            return None
        if first != 0xFB:
            raise Malformed("C6: a first byte that the subset does not have")
        number: float = struct.unpack(">d", self.take(8))[0]
        if not math.isfinite(number):
            raise Malformed("C7: a float that is not finite")
        return number

    def text(self, n: int) -> str:
        """Read text (C8)."""
        try:
            return self.take(n).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("C8: text that is not UTF-8") from error

    def map(self, n: int, depth: int) -> dict[str, Any]:
        """Read the n pairs of a map (C9, C10)."""
        out: dict[str, Any] = {}
        before = b""
        for _ in range(n):
            start = self.at
            key = self.value(depth)
            if not isinstance(key, str):
                raise Malformed("C9: a key that is not text")
            encoding = self.data[start : self.at]
            if encoding <= before:
                raise Malformed("C10: keys that do not rise")
            before = encoding
            out[key] = self.value(depth)
        return out


def decode(data: bytes, items: int | None = None) -> Any:
    """Decode one CBOR text that fills its bytes exactly; items is another limit than that of most texts."""
    reader = _Reader(data, limits.CBOR_ITEMS if items is None else items, limits.CBOR_DEPTH)
    value = reader.value(0)
    if reader.at != len(data):
        raise Malformed("C2: bytes after the value")
    return value


def _head(major: int, n: int) -> bytes:
    """Write a first byte and its argument in the shortest form."""
    if n < 24:
        return bytes([major << 5 | n])
    for low, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << (8 * size):
            return bytes([major << 5 | low]) + n.to_bytes(size, "big")
    raise ValueError("an integer beyond 64 bits")


def encode(value: Any) -> bytes:
    """Encode a value in its one form."""
    if value is False or value is True or value is None:
        return {False: b"\xf4", True: b"\xf5", None: b"\xf6"}[value]
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(3, len(raw)) + raw
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(encode(item) for item in value)
    pairs = sorted((encode(key), encode(item)) for key, item in value.items())
    return _head(5, len(pairs)) + b"".join(key + item for key, item in pairs)


def is_int(value: Any, low: int, high: int) -> bool:
    """Say whether a value is an integer (true is none) of the range."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def refuse_critical(keys: Any, known: frozenset[str] = frozenset()) -> None:
    """Refuse critical keys that nobody here knows (C17, C56, P29)."""
    for key in keys:
        if key.startswith("!") and key not in known:
            raise NotUnderstood(f"C17, C56, P29: critical key {key!r}")
