"""Negative vectors of planes and of kinds: C86 to C100 of docs/format/container.md.

A reader that forgets the rule comes to the root that the header names, wherever there is something that the planes could mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import lz4.block  # type: ignore[import-untyped]
import numpy as np

from modelwire import storage
from modelwire.lattice import exact as exact_tensors
from modelwire.lattice.lanes import plus
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype
from modelwire.update import planes
from modelwire.update.planes import LZ4, RAW, ZEROS
from modelwire.update.sections import Kind, PlaneSection
from tests.hostile.mutations import Open, Row, flip

from .container_cases import Case, Held, on, root_of, stored_at, update
from .container_layout import EXACT, MIXED, RECIPES, UPDATES, case, good

ENTRIES = 231  # of each matrix of the exact base
F32, F16, BF16 = (stored_at("exact").manifest.schema.index(f"{name}_matrix") for name in ("float32", "float16", "bfloat16"))
SEVENS = bytes([7]) * ENTRIES
CHANGED = (ENTRIES + 7) // 8  # bytes of the plane that says which entries changed


def word(way: int, length: int) -> bytes:
    return struct.pack("<I", way << 24 | length)


NONE = word(ZEROS, 0)


def raw(plane: bytes) -> bytes:
    return word(RAW, len(plane)) + plane


def packed(plane: bytes) -> bytes:
    coded = lz4.block.compress(plane, store_size=False)
    return word(LZ4, len(coded)) + coded


def block(count: int, *coded: bytes) -> bytes:
    return struct.pack("<I", count) + b"".join(coded)


def section(tensor: int, content: bytes) -> PlaneSection:
    spec = stored_at("exact").manifest.schema.tensors[tensor]
    return PlaneSection(tensor, spec.dtype, spec.size, content)


def like(content: bytes, tensor: int = F32, *, right: bytes) -> Open:
    """Return an update of one tensor with this content, which says that it comes to what `right` does."""
    o = update(stored_at("exact"), Kind.EXACT, [section(tensor, right)])
    return replace(o, rows=(Row(tensor, 2, 1, 0, 0, 0, len(content)),), stream=content)


def in_kinds() -> Iterator[Case]:
    snapshot, held = good("updates", "7-snapshot"), on("updates", "6-snapshot")
    yield case("C86", "another bit", replace(snapshot, base=flip(snapshot.base, 31)), "WrongBase", held)
    yield case("C86", "zeros", replace(snapshot, base=bytes(32)), "WrongBase", held)
    yield case("C86", "the root for the commit", replace(snapshot, base=stored_at("updates").root), "WrongBase", held)
    yield case("C86", "of exact tensors", replace(good("exact", "4-snapshot"), base=snapshot.base), "WrongBase", EXACT)
    others: dict[str, tuple[Open, Held]] = {
        "a delta": (good("updates", "1-delta"), UPDATES), "a snapshot": (snapshot, held), "an exact update": (good("exact",
        "1-exact"), EXACT),
        "a recipe": (good("recipe-updates", "1-sgd-int8"), RECIPES), "of a base with planes": (good("mixed", "1-delta"), MIXED),
    }  # fmt: skip
    for name, (o, reader) in others.items():
        yield case("C87", name, replace(o, schema_id=flip(o.schema_id, 0)), "WrongBase", reader)
    yield case("C88", "a delta on an exact base", replace(good("exact", "1-exact"), kind=1), held=EXACT)
    mixed = stored_at("mixed")
    statistic = mixed.manifest.schema.index("moving_mean")
    spec = mixed.manifest.schema.tensors[statistic]
    change = PlaneSection(statistic, spec.dtype, spec.size, block(spec.size, raw(bytes([2]) * spec.size), NONE))
    yield case("C88", "an exact update on a base with a lattice", replace(update(mixed, Kind.DELTA, [change]), kind=2), held=MIXED)


def in_lengths() -> Iterator[Case]:
    right = block(ENTRIES, raw(SEVENS), NONE, NONE, NONE)

    def bad(rule: str, name: str, content: bytes, tensor: int = F32, right: bytes = right) -> Case:
        return case(rule, name, like(content, tensor, right=right), held=EXACT)

    yield bad("C89", "one more", block(ENTRIES + 1, raw(SEVENS + b"\7"), NONE, NONE, NONE))
    yield bad("C89", "2^32 - 1", block((1 << 32) - 1, raw(SEVENS), NONE, NONE, NONE))
    yield bad("C90", "in a plane", block(ENTRIES, NONE, NONE, NONE, raw(SEVENS[:-1] + b"\0"))[:-1])
    yield bad("C90", "before the last plane", block(ENTRIES, raw(SEVENS), NONE, NONE))
    yield bad("C90", "in a word", block(ENTRIES, raw(SEVENS), NONE, NONE, NONE)[:-1])
    yield bad("C90", "in n", b"\xe7\0\0")
    yield bad("C90", "behind n", block(ENTRIES))
    yield bad("C91", "a zero byte", right + b"\0")
    yield bad("C91", "a block more", right + block(0))
    yield bad("C91", "the block twice", right * 2)
    state = stored_at("exact")
    nothing = replace(update(state, Kind.EXACT, []), rows=(Row(F32, 2, 1, 0, 0, 0, 4),), stream=block(0))
    yield case("C92", "one block", nothing, held=EXACT)
    large = stored_at("large")
    codes = replace(update(large, Kind.DELTA, []), rows=(Row(0, 2, 1, 0, 0, 0, 8),), stream=block(0) * 2)
    yield case("C92", "two blocks", codes, held=on("large"))
    for way in (3, 4, 128, 255):
        yield bad("C93", f"{way}", block(ENTRIES, word(way, ENTRIES) + SEVENS, NONE, NONE, NONE))
    yield bad("C94", "way 0 with bytes", block(ENTRIES, raw(SEVENS), word(ZEROS, ENTRIES) + bytes(ENTRIES), NONE, NONE))
    yield bad("C94", "way 1 a byte short", block(ENTRIES, raw(SEVENS[1:]), NONE, NONE, NONE))
    yield bad("C94", "way 1 a byte long", block(ENTRIES, raw(SEVENS + b"\7"), NONE, NONE, NONE))
    yield bad("C94", "way 1 without bytes", block(ENTRIES, raw(SEVENS), raw(b""), NONE, NONE))
    yield bad("C94", "way 1 of the whole range", block(ENTRIES, word(RAW, 0xFFFFFF) + SEVENS, NONE, NONE, NONE))
    yield bad("C94", "way 2 without bytes", block(ENTRIES, raw(SEVENS), word(LZ4, 0), NONE, NONE))
    noise = bytes(np.random.default_rng(1).integers(1, 256, ENTRIES, np.uint8) | 2)
    incompressible = lz4.block.compress(noise, store_size=False)
    assert len(incompressible) > ENTRIES
    longer = word(LZ4, len(incompressible)) + incompressible
    yield bad(
        "C94", "way 2 longer than the plane", block(ENTRIES, longer, NONE, NONE, NONE), right=block(ENTRIES, raw(noise), NONE, NONE, NONE)
    )


def lz4_block(literals: int, matched: int, rest: int, *, offset: int = 1) -> bytes:
    """Return a block of LZ4 of sevens: literals, a match, literals. Of a match with offset 0 liblz4 makes zero bytes."""

    def run(literals: int, match: int | None, plane: bytes) -> bytes:
        low = 0 if match is None else min(match - 4, 15)
        more = bytes([literals - 15]) if literals >= 15 else b""
        tail = b"" if match is None else struct.pack("<H", offset) + (bytes([match - 19]) if match >= 19 else b"")
        return bytes([min(literals, 15) << 4 | low]) + more + plane + tail

    return run(literals, matched, SEVENS[:literals]) + run(rest, None, SEVENS[:rest])


def in_content() -> Iterator[Case]:
    right = block(ENTRIES, raw(SEVENS), NONE, NONE, NONE)

    def bad(rule: str, name: str, content: bytes, right: bytes = right) -> Case:
        return case(rule, name, like(content, right=right), held=EXACT)

    yield bad("C95", "to a byte more", block(ENTRIES, packed(SEVENS + b"\7"), NONE, NONE, NONE))
    yield bad("C95", "to a byte less", block(ENTRIES, packed(SEVENS[1:]), NONE, NONE, NONE))
    yield bad("C95", "to 50,000 bytes", block(ENTRIES, packed(bytes([7]) * 50_000), NONE, NONE, NONE))
    whole = lz4.block.compress(SEVENS, store_size=False)
    yield bad("C95", "with a byte left over", block(ENTRIES, word(LZ4, len(whole) + 1) + whole + b"\0", NONE, NONE, NONE))
    yield bad("C95", "cut off", block(ENTRIES, word(LZ4, len(whole) - 1) + whole[:-1], NONE, NONE, NONE))
    yield bad(
        "C95", "an offset before the start", block(ENTRIES, word(LZ4, len(whole)) + whole.replace(b"\1\0", b"\xff\0", 1), NONE, NONE, NONE)
    )
    yield bad("C95", "noise", block(ENTRIES, word(LZ4, 9) + b"\xf0\xff\xff\0\0\1\2\3\4", NONE, NONE, NONE))
    for how, ends in {
        "a match at its end": (4, 227, 0), "four literals at its end": (4, 223, 4), "a last match eleven bytes before its end": (220, 6, 5),
    }.items():  # fmt: skip
        content = lz4_block(*ends)
        yield bad("C95", f"with {how}", block(ENTRIES, word(LZ4, len(content)) + content, NONE, NONE, NONE))
    for literals, matched in ((100, 100), (1, 200), (0, 40), (90, 20)):
        plane = SEVENS[:literals] + bytes(matched) + SEVENS[literals + matched :]
        content = lz4_block(literals, matched, ENTRIES - literals - matched, offset=0)
        given = [raw(SEVENS), word(LZ4, len(content)) + content, NONE, NONE]
        yield bad("C96", f"behind {literals} literals", block(ENTRIES, *given), block(ENTRIES, raw(SEVENS), raw(plane), NONE, NONE))

    def bits(*entries: int) -> bytes:
        out = bytearray(CHANGED)
        for entry in entries:
            out[entry // 8] |= 1 << entry % 8
        return bytes(out)

    two = block(2, raw(bits(3, 230)), raw(b"\7\7"), NONE, NONE, NONE)
    yield bad("C97", "one more", block(2, raw(bits(3, 229, 230)), raw(b"\7\7"), NONE, NONE, NONE), two)
    yield bad(
        "C97", "one less", block(2, raw(bits(3)), raw(b"\7\7"), NONE, NONE, NONE), block(1, raw(bits(3)), raw(b"\7"), NONE, NONE, NONE)
    )
    yield bad("C97", "none", block(2, NONE, raw(b"\7\7"), NONE, NONE, NONE), two)
    yield bad(
        "C98",
        "one of two",
        block(2, raw(bits(3, 231)), raw(b"\7\7"), NONE, NONE, NONE),
        block(1, raw(bits(3)), raw(b"\7"), NONE, NONE, NONE),
    )
    yield bad("C98", "alone", block(1, raw(bits(231)), raw(b"\7"), NONE, NONE, NONE), two)
    all_but_last = block(ENTRIES - 1, raw(bits(*range(ENTRIES - 1))), raw(SEVENS[1:]), NONE, NONE, NONE)
    yield bad("C99", "the last", block(ENTRIES, raw(SEVENS[1:] + b"\0"), NONE, NONE, NONE), all_but_last)
    yield bad(
        "C99",
        "one of two",
        block(2, raw(bits(3, 230)), raw(b"\7\0"), NONE, NONE, NONE),
        block(1, raw(bits(3)), raw(b"\7"), NONE, NONE, NONE),
    )
    nothing = replace(update(stored_at("exact"), Kind.EXACT, []), rows=(Row(F32, 2, 1, 0, 0, 0, 20),), stream=block(ENTRIES, *[NONE] * 4))
    yield case("C99", "all", nothing, held=EXACT)


def infinite(tensor: int, after: int, *, snapshot: bool = False) -> Open:
    """Return an update that moves the sixth entry of an exact tensor to these bits; root and fingerprint are those of the bits."""
    state: ModelState = stored_at("exact")
    schema, spec = state.manifest.schema, state.manifest.schema.tensors[tensor]
    before = storage.bits(spec.dtype, state.weights[tensor])
    fresh = before.copy()
    fresh[5] = after
    stored = [storage.to_bytes(t.dtype, w) for t, w in zip(schema.tensors, state.weights, strict=True)]
    stored[tensor] = fresh.tobytes()
    lanes = plus(state.fingerprint, exact_tensors._lanes(spec.dtype, fresh, before, schema.starts[tensor]))
    content = planes.encode(_differences(spec.dtype, fresh, before), None, 0)
    kind = Kind.SNAPSHOT if snapshot else Kind.EXACT
    o = replace(update(state, kind, []), root=root_of(schema, stored, state.exponents, {}), fingerprint=struct.pack("<QQ", *lanes))
    return replace(o, rows=(Row(tensor, 2, 1, 0, 0, 0, len(content)),), stream=content)


def _differences(dtype: Dtype, fresh: np.ndarray, before: np.ndarray) -> np.ndarray:
    top = 1 << 8 * dtype.width - 1

    def ordered(x: np.ndarray) -> np.ndarray:
        return np.where(x < top, x, x ^ np.array(top - 1, x.dtype)).astype(x.dtype)

    return (ordered(fresh) - ordered(before)).astype(f"<u{dtype.width}")


def in_numbers() -> Iterator[Case]:
    for tensor in (F32, F16, BF16):
        dtype = stored_at("exact").manifest.schema.tensors[tensor].dtype
        sign = 1 << 8 * dtype.width - 1
        bits = {"infinity": dtype.infinity, "minus infinity": dtype.infinity | sign, "NaN": dtype.infinity | 1, "all ones": 2 * sign - 1}
        for name, after in bits.items():
            yield case("C100", f"{dtype.name} {name}", infinite(tensor, after), "NonFinite", EXACT)
    yield case("C100", "in a snapshot", infinite(F32, 0x7F800000, snapshot=True), "NonFinite", EXACT)


def cases() -> Iterator[Case]:
    for part in (in_kinds, in_lengths, in_content, in_numbers):
        yield from part()
