"""What one field of a record may hold, by its type and name: ranges, lengths, characters. docs/protocol.md, "Fields"."""

from __future__ import annotations

import itertools

from modelwire.errors import Malformed
from modelwire.text import is_plain

TEXT_MAX = 1000  # characters of any text field
TRAINERS_MAX = 16
# Field: the lengths in bytes that it may have.
LENGTHS: dict[str, tuple[int, ...]] = {
    "key": (32,), "state": (16,), "base": (32,), "commit": (32,), "head": (32,), "variant": (32,), "tree": (32,), "root": (32,),
    "id": (32,), "answer": (0, 32), "challenge": (0, 32), "parent": (0, 32), "good": (0, 32), "resume": (0, 32), "log": (0, 40),
    "claim": tuple(range(257)), "receipt": (32, 64, 96, 128), "command": (32, 64, 96, 128), "director": (32, 64, 96, 128),
}  # fmt: skip


def check_field(kind: str, name: str, value: object) -> None:
    """Raise Malformed unless a field of a record of this kind may have this value."""
    if isinstance(value, int):
        if not 0 <= value < 1 << 63:
            raise Malformed(what=kind, reason=f"{name} is out of range")
    elif isinstance(value, str):
        # What of ASCII can be printed is plain, and found out sooner.
        if len(value) > TEXT_MAX or not ((value.isascii() and value.isprintable()) or is_plain(value)):
            raise Malformed(what=kind, reason=f"{name} is too long or holds control characters")
    elif isinstance(value, bytes):
        if name in LENGTHS and len(value) not in LENGTHS[name]:
            raise Malformed(what=kind, reason=f"{name} is not as long as it must be, but {len(value)} bytes")
    elif isinstance(value, tuple):
        whole = all(type(n) is int and 0 < n < 1 << 31 for n in value)
        if not whole or len(value) > TRAINERS_MAX or any(a >= b for a, b in itertools.pairwise(value)):
            raise Malformed(what=kind, reason=f"{name} are not up to {TRAINERS_MAX} rising numbers")
