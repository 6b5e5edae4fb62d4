"""Attacks on updates with planes, sealed with the device's own valid key; each is written as a file with its error in its name.

    python -m tests.hostile.planes

Those in attacks/exact are to be tried on the base of tests/vectors/wire-1/exact, those in attacks/mixed on that of wire-1/mixed.
Files are only ever added.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lz4.block
import numpy as np

from modelwire import _core
from modelwire.update import planes
from modelwire.update.container import parse
from tests.modelwire.golden import base, data

from .make_attacks import slug
from .mutations import Open, Row, flip, of, of_row, opened

FOLDER = Path(__file__).parent / "attacks"
Change = Callable[[Open], Open]
F32 = base("exact").manifest.schema.index("float32_matrix")
F16 = base("exact").manifest.schema.index("float16_matrix")
ENTRIES = 231  # of each matrix


def word(how: int, length: int) -> bytes:
    return struct.pack("<I", how << 24 | length)


def raw(plane: bytes) -> bytes:
    return word(planes.RAW, len(plane)) + plane


def packed(plane: bytes) -> bytes:
    coded = lz4.block.compress(plane, store_size=False)
    return word(planes.LZ4, len(coded)) + coded


def block(count: int, *coded: bytes) -> bytes:
    return struct.pack("<I", count) + b"".join(coded)


def only(tensor: int, content: bytes, *, codec: int = 2, said: int | None = None, kind: int | None = None) -> Change:
    """Return a change to an update of one tensor alone, with this content; said: what its row says of the length."""

    def change(o: Open) -> Open:
        row = Row(tensor, codec, 1, 0, 0, 0, len(content) if said is None else said)
        return replace(o, rows=(row,), stream=content, kind=o.kind if kind is None else kind)

    return change


def to_infinity(tensor: int, infinity: int) -> Change:
    """Return a change that moves a tensor's fifth entry to infinity."""
    spec = base("exact").manifest.schema.tensors[tensor]
    bits = int(base("exact").weights[tensor][5:6].astype(spec.dtype.name.lower()).view(f"u{spec.dtype.width}")[0])
    top = 1 << 8 * spec.dtype.width - 1
    d = np.zeros(spec.size, f"<u{spec.dtype.width}")
    d[5] = (infinity - (bits if bits < top else bits ^ (top - 1))) % (2 * top)
    return only(tensor, planes.encode(d, None, 0))


def coded(tensor: int, values: dict[int, int], exponent: int) -> Change:
    """Return a change to a delta of one tensor, range-coded, with these values."""
    spec = base("mixed").manifest.schema.tensors[tensor]
    index, value = np.array(sorted(values), np.uint32), np.array([values[i] for i in sorted(values)], np.int32)
    stream = _core.encode_sections([(spec.rows, spec.columns, index, value)])
    return lambda o: replace(o, rows=(Row(tensor, 1, 1, 0, exponent, 0, len(values)),), stream=stream)


FULL = bytes([7]) * ENTRIES  # a plane in which every entry changed
NONE = word(planes.ZEROS, 0)
# A token, two literals, a match of 208 bytes with offset 0, of which liblz4 makes zeros; then literals.
NO_OFFSET = bytes([0x2F, 7, 7, 0, 0, 189, 0xF0, 6]) + bytes([7]) * 21
NOISE = b"\xf0\xff\xff\x00\x00\x01\x02\x03\x04"
EXACT: dict[str, Change] = {
    "a plane of 16,777,215 bytes.Malformed": only(F32, block(ENTRIES, word(planes.RAW, 0xFFFFFF), NONE, NONE, NONE)),
    "a plane written in a way of tomorrow.Malformed": only(F32, block(ENTRIES, word(3, ENTRIES) + FULL, NONE, NONE, NONE)),
    "a raw plane one byte short.Malformed": only(F32, block(ENTRIES, raw(FULL[1:]), NONE, NONE, NONE)),
    "a plane of zeros that has bytes.Malformed": only(F32, block(ENTRIES, word(planes.ZEROS, 4) + bytes(4), NONE, NONE, NONE)),
    "a packed plane as long as it is unpacked.Malformed": only(F32, block(ENTRIES, word(planes.LZ4, ENTRIES) + FULL, NONE, NONE, NONE)),
    "an lz4 bomb of 50,000 bytes.Malformed": only(F32, block(ENTRIES, packed(bytes([7]) * 50_000), NONE, NONE, NONE)),
    "an lz4 plane that unpacks to one byte more.Malformed": only(F32, block(ENTRIES, packed(FULL + b"\7"), NONE, NONE, NONE)),
    "an lz4 plane that unpacks to one byte less.Malformed": only(F32, block(ENTRIES, packed(FULL[1:]), NONE, NONE, NONE)),
    "an lz4 plane of noise.Malformed": only(F32, block(ENTRIES, word(planes.LZ4, 9) + NOISE, NONE, NONE, NONE)),
    "an lz4 plane with a match at offset 0.Malformed": only(
        F32, block(ENTRIES, raw(FULL), word(planes.LZ4, len(NO_OFFSET)) + NO_OFFSET, NONE, NONE)
    ),
    "an lz4 plane of no bytes.Malformed": only(F32, block(ENTRIES, word(planes.LZ4, 0), NONE, NONE, NONE)),
    "4294967295 changed entries.Malformed": only(F32, block(0xFFFFFFFF, raw(FULL), NONE, NONE, NONE)),
    "one changed entry too many.Malformed": only(F32, block(ENTRIES + 1, raw(FULL + b"\7"), NONE, NONE, NONE)),
    "changed bits that are fewer than said.Malformed": only(F32, block(200, raw(bytes(29)), raw(bytes([7]) * 200), NONE, NONE, NONE)),
    "a changed bit past the end.Malformed": only(F32, block(1, raw(bytes(28) + b"\x80"), raw(b"\7"), NONE, NONE, NONE)),
    "a changed entry that did not change.Malformed": only(F32, block(ENTRIES, raw(FULL[1:] + b"\0"), NONE, NONE, NONE)),
    "planes that say nothing.Malformed": only(F32, block(0)),
    "planes of zeros alone.Malformed": only(F32, block(ENTRIES, NONE, NONE, NONE, NONE)),
    "a byte behind the planes.Malformed": only(F32, block(ENTRIES, raw(FULL), NONE, NONE, NONE) + b"\0"),
    "planes cut by a byte.Malformed": only(F32, block(ENTRIES, NONE, NONE, NONE, raw(FULL))[:-1]),
    "planes of a block that is not there.Malformed": only(F32, block(ENTRIES, raw(FULL), NONE, NONE, NONE) * 2),
    "planes said to be longer than the container.Malformed": only(F32, block(ENTRIES, raw(FULL), NONE, NONE, NONE), said=0xFFFFFFFF),
    "planes said to be a byte longer.Malformed": only(F32, block(ENTRIES, raw(FULL), NONE, NONE, NONE), said=4 + 235 + 12 + 1),
    "planes said to be a byte shorter.Malformed": only(F32, block(ENTRIES, raw(FULL), NONE, NONE, NONE), said=4 + 235 + 12 - 1),
    "planes said to have no bytes.Malformed": only(F32, b"", said=0),
    "planes of a tensor that is not there.IndexOutOfRange": only(4000, block(1, raw(b"\7"))),
    "planes with a step.Malformed": of_row(0, m=3),
    "planes with a unit.Malformed": of_row(0, exponent=-14),
    "planes with flags.UnsupportedWire": of_row(0, reserved=1),
    "codec 4.UnsupportedWire": of_row(0, codec=4),
    "codec 3 which is reserved.UnsupportedWire": of_row(0, codec=3),
    "a coded section in an exact update.Malformed": of_row(0, codec=1),
    "an exact update that says it is a delta.Malformed": of(kind=1),
    "an exact update that says it is a snapshot.Malformed": of(kind=0),
    "a float32 that becomes infinite.NonFinite": to_infinity(F32, 0x7F800000),
    "a float16 that becomes infinite.NonFinite": to_infinity(F16, 0x7C00),
    "the fingerprint of another model.RootMismatch": lambda o: replace(o, fingerprint=flip(o.fingerprint, 3)),
    "the root of another model.RootMismatch": lambda o: replace(o, root=flip(o.root, 3)),
}
_names = base("mixed").manifest.schema
_codes, _f16 = _names.index("codes"), _names.index("f16")
_away = 128 - int(base("mixed").weights[_codes][4])
MIXED: dict[str, Change] = {
    "an exact update of a base on the lattice.Malformed": only(
        _names.index("moving_mean"), block(30, raw(bytes([2]) * 30), NONE), kind=2
    ),
    "planes for a tensor on the lattice.Malformed": only(_f16, block(600, raw(bytes([2]) * 600), NONE)),
    "planes for a verbatim tensor.Malformed": only(_names.index("bias"), block(9, raw(bytes([2]) * 9), NONE, NONE, NONE)),
    "a coded section for an exact tensor.Malformed": coded(_names.index("moving_mean"), {3: 1}, 0),
    "codec 3 which is reserved.UnsupportedWire": only(_names.index("moving_mean"), block(30, raw(bytes([2]) * 30), NONE), codec=3),
    "an int8 code of 128.RangeOverflow": coded(_codes, {4: _away}, 0),
    "an int8 tensor with a unit.Malformed": coded(_codes, {4: -1}, -1),
    "a code far out of the range.RangeOverflow": coded(_codes, {0: 1 << 21}, 0),
}


def files() -> dict[str, bytes]:
    """Return every attack as its file's name, below attacks/, and content."""
    out = {}
    for folder, good, attacks in (("exact", data("exact", "1-exact"), EXACT), ("mixed", data("mixed", "1-delta"), MIXED)):
        for name, change in attacks.items():
            out[f"{folder}/{slug(name)}.bin"] = change(opened(good)).resealed()
    return out


def main() -> None:
    """Write every attack that is not there yet."""
    for folder in ("exact", "mixed"):
        (FOLDER / folder).mkdir(exist_ok=True)
    for name, content in files().items():
        if not (FOLDER / name).exists():
            (FOLDER / name).write_bytes(content)
            print(name)


assert parse(opened(data("exact", "1-exact")).resealed()).commit == parse(data("exact", "1-exact")).commit

if __name__ == "__main__":
    main()
