"""Digests, signatures, CBOR, lines of JSON and the zip: read so strictly that one content has one form."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEAF = 64 * 1024  # bytes of a tensor, or of a file, under one digest
DEEPEST = 8  # of CBOR
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_DAY = 0x21  # 1 January 1980: the same bytes whenever it is made


class NotProven(Exception):
    """What fails, and why."""


def fail(what: str, why: str) -> NoReturn:
    raise NotProven(f"{what}: {why}")


def sha(*parts: bytes | bytearray | memoryview) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def leaf_digests(data: bytes | memoryview) -> list[bytes]:
    return [sha(b"\x00", data[i : i + LEAF]) for i in range(0, len(data), LEAF)]


def tree_root(nodes: Sequence[bytes]) -> bytes:
    """Return the root of a tree over digests, as RFC 6962, section 2.1, has it."""
    level = list(nodes) or [sha(b"")]
    while len(level) > 1:
        pairs = [sha(b"\x01", level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + (level[-1:] if len(level) % 2 else [])
    return level[0]


def root_by_path(node: bytes, place: int, count: int, path: bytes) -> bytes:
    """Return the root that one of `count` digests comes to with those beside its way up. Empty when the path has another length."""
    while count > 1:
        if place ^ 1 < count:
            beside, path = path[:32], path[32:]
            if len(beside) != 32:
                return b""
            node = sha(b"\x01", beside, node) if place & 1 else sha(b"\x01", node, beside)
        place, count = place >> 1, (count + 1) >> 1
    return b"" if path else node


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an Ed25519 key has signed a message."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_by_one(keys: Iterable[bytes], message: bytes, signature: bytes) -> bool:
    return any(is_signed(key, message, signature) for key in keys)


def short_key(key: bytes) -> str:
    """Return what people compare a key by: 80 bits of its digest."""
    digits = sha(key).hex()[:20]
    return "-".join(digits[i : i + 4] for i in range(0, 20, 4))


def visible(text: str) -> str:
    """Return a text without what a terminal would obey: it may be a forger's."""
    return "".join(c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_fleet(text: str) -> bytes:
    """Return the root key and the id that fleet.pub holds, 48 bytes."""
    prefix, _, digits = text.strip(" \t\n\v\f\r").partition(":")
    key = from_hex(digits, "fleet.pub")
    if prefix != "edge-fleet-pub" or len(key) != 48:
        fail("fleet.pub", "it is not a fleet's public key, edge-fleet-pub:... with 96 digits")
    return key


def from_hex(text: object, what: str) -> bytes:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if data.hex() != text:
        fail(what, "it is not written in small hexadecimal digits")
    return data


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: bytes as hexadecimal digits."""
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.hex() if isinstance(value, bytes) else value


def to_line(values: dict[str, Any]) -> str:
    """Return the one line that says this."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def from_line(text: str, what: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
        canonical = isinstance(values, dict) and to_line(values) == text
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        fail(what, "it is no line of JSON as this format writes it")
    return dict(values)


def same_line(text: str, values: dict[str, Any], what: str) -> None:
    """Refuse a line that says anything but this: in Python 1, 1.0 and true are equal, as text they are not."""
    if text != to_line(values):
        fail(what, "what it says is not what it must say here")


def from_cbor(data: bytes, what: str) -> Any:
    """Return the value that the strict subset of CBOR holds (RFC 8949, section 4.2), all of it."""
    value, at = _value(data, 0, what, DEEPEST)
    if at != len(data):
        fail(what, f"{len(data) - at} bytes too many")
    return value


def map_of(data: bytes, what: str) -> dict[str, Any]:
    value = from_cbor(data, what)
    if not isinstance(value, dict):
        fail(what, "it is no map")
    return value


def _value(data: bytes, at: int, what: str, depth: int) -> tuple[Any, int]:
    if at >= len(data) or depth < 0:
        fail(what, "it ends too early, or is nested too deep")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        if low == 27 and at + 8 <= len(data):
            return struct.unpack_from(">d", data, at)[0], at + 8
        if low not in (20, 21, 22):
            fail(what, "a value that the format does not have")
        return {20: False, 21: True, 22: None}[low], at
    number, width = low, 0 if low < 24 else 1 << (low - 24)
    if low > 27 or major == 6 or at + width > len(data):
        fail(what, "a length or tag that the format does not have")
    if width:
        number = int.from_bytes(data[at : at + width], "big")
        if number < (24 if width == 1 else 1 << 4 * width):
            fail(what, "a number longer than needed")
        at += width
    if major < 2:
        return (number if major == 0 else -1 - number), at
    if number > len(data) - at:
        fail(what, "it ends too early")
    if major in (2, 3):
        piece = data[at : at + number]
        try:
            return (piece if major == 2 else piece.decode()), at + number
        except UnicodeDecodeError:
            fail(what, "text that is not UTF-8")
    return _items(data, at, number, what, depth - 1, is_map=major == 5)


def _items(data: bytes, at: int, count: int, what: str, depth: int, *, is_map: bool) -> tuple[Any, int]:
    listed: list[Any] = []
    mapped: dict[str, Any] = {}
    last = b""
    for _ in range(count):
        if is_map:
            start = at
            key, at = _value(data, at, what, 0)
            if not isinstance(key, str) or data[start:at] <= last:
                fail(what, "keys that are no text, repeated or not sorted")
            last = data[start:at]
            mapped[key], at = _value(data, at, what, depth)
        else:
            value, at = _value(data, at, what, depth)
            listed.append(value)
    return (mapped if is_map else listed), at


def zipped(files: dict[str, bytes]) -> bytes:
    """Return the one zip that holds these files: by name, stored, without dates."""
    out, directory = bytearray(), bytearray()
    for name, data in sorted(files.items()):
        said = (20, 0, 0, 0, _DAY, zlib.crc32(data), len(data), len(data), len(name), 0)
        directory += _CENTRAL.pack(b"PK\x01\x02", 3 << 8 | 20, *said, 0, 0, 0, 0o100644 << 16, len(out)) + name.encode("ascii")
        out += _LOCAL.pack(b"PK\x03\x04", *said) + name.encode("ascii")
        out += data
    place, count = len(out), len(files)
    out += directory
    return bytes(out + _END.pack(b"PK\x05\x06", 0, 0, count, count, len(directory), place, 0))


def unzipped(data: bytes) -> dict[str, bytes]:
    """Return the files of a zip, once it is the very one that `zipped` makes of them: nothing before, between, behind or twice."""
    files: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\x03\x04" and at + _LOCAL.size <= len(data):
        *_, size, length, _ = _LOCAL.unpack_from(data, at)
        at += _LOCAL.size
        name = data[at : at + length].decode("latin-1")
        if name in files or not name.isascii() or not name:
            fail("the zip", f"{name[:40]!r} is in it twice, or no name")
        at += length + size
        files[name] = data[at - size : at]
    if not files or zipped(files) != data:
        fail("the zip", "it is damaged, or not written as a proof is")
    return files
