"""Which sample each row of a recipe is of: what lets the centre forget a sample in every version that was trained on it.

The bytes stand in the extension of an update of kind recipe, under "rows": never needed to rebuild. docs/format/recipe.md has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelwire.errors import Malformed
from modelwire.wire import cbor

KEY = "rows"
ID_MAX = (1 << 63) - 1
_LONGEST = 9  # bytes of one number of 63 bits


def encode_ids(ids: Iterable[int]) -> bytes:
    """Return the bytes of the rows' sample ids, row by row: rising, the same one again where a sample has several rows.

    Raises Malformed for ids that fall or are out of range: put the rows in the order of their ids.
    """
    out, before = bytearray(), 0
    for sample in ids:
        if not before <= sample <= ID_MAX:
            raise Malformed(what="the ids of the rows", reason=f"{sample} is out of range, or lower than the id before it")
        rest, before = sample - before, sample
        while rest > 0x7F:
            out.append(0x80 | rest & 0x7F)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def decode_ids(data: bytes, rows: int | None = None) -> tuple[int, ...]:
    """Return the ids, of exactly `rows` rows where that is given. Raises Malformed for anything that `encode_ids` does not write."""
    if rows is not None and not rows <= len(data) <= _LONGEST * rows:
        raise Malformed(what="the ids of the rows", reason=f"{len(data)} bytes are none of {rows} rows")
    ids, sample, place = [], 0, 0
    while place < len(data):
        rest = shift = 0
        while True:
            if place == len(data) or shift == 7 * _LONGEST:
                raise Malformed(what="the ids of the rows", reason="a number does not end")
            byte = data[place]
            place += 1
            rest |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if shift > 7 and byte == 0:
            raise Malformed(what="the ids of the rows", reason="a number is longer than it needs to be")
        sample += rest
        if sample > ID_MAX:
            raise Malformed(what="the ids of the rows", reason="an id is out of range")
        ids.append(sample)
    if rows is not None and len(ids) != rows:
        raise Malformed(what="the ids of the rows", reason=f"they are {len(ids)}, the recipe has {rows} rows")
    return tuple(ids)


def ids_of(extension: Mapping[str, cbor.Value], rows: int) -> tuple[int, ...] | None:
    """Return the ids that an update's extension names, one a row; None when it names none. Raises Malformed."""
    if KEY not in extension:
        return None
    held = extension[KEY]
    if not isinstance(held, bytes):
        raise Malformed(what="the ids of the rows", reason="they are no bytes")
    return decode_ids(held, rows)
