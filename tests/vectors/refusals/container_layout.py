"""Negative vectors of how a container is laid out: preamble, header, extension, section table. C37 to C77 of docs/format/container.md."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from modelwire import _core
from modelwire.lattice.state import ModelState
from modelwire.update.header import MAGIC
from modelwire.update.manifest import coarsest_safe, peak_of
from modelwire.update.sections import Kind, Section
from modelwire.wire import cbor
from tests.hostile.mutations import Open, Row, of_row, opened
from tests.modelwire import golden
from tests.modelwire.models import empty

from .container_cases import Case, Held, coded, on, stored_at, update

UPDATES, MIXED, EXACT, RECIPES = on("updates"), on("mixed"), on("exact"), on("recipe-updates")


def good(folder: str, name: str) -> Open:
    """Return a golden container, taken apart."""
    return opened(golden.data(folder, name))


def case(rule: str, name: str, o: Open | bytes, error: str = "Malformed", held: Held = UPDATES, **limits: int) -> Case:
    data = o if isinstance(o, bytes) else o.resealed()
    return Case(rule, name, error, "container", data, {**held, "limits": limits} if limits else held)


def in_preambles() -> Iterator[Case]:
    o, whole = good("updates", "1-delta"), golden.data("updates", "1-delta")
    yield case("C37", "one byte more than may be", o, "TooLarge", container=len(whole) - 1)
    yield case("C38", "257 bytes", replace(o, total=257).resealed()[:257])
    yield case("C38", "no bytes", b"")
    yield case("C38", "half a preamble", whole[:16])
    magics = {
        "after text mode transfer": b"\x89MWU\n\x1a\n\0", "without its high bit": b"\x09" + MAGIC[1:],
        "of a record": b"\x89MWR" + MAGIC[4:],
        "with a swapped line end": b"\x89MWU\n\r\x1a\n", "of zeros": bytes(8), "with another last byte": MAGIC[:7] + b"\r",
    }  # fmt: skip
    for name, magic in magics.items():
        yield case("C39", name, replace(o, magic=magic))
    front = whole[:28]
    (right,) = struct.unpack("<I", whole[28:32])
    sums = {
        "another bit": right ^ 1,
        "big endian": int.from_bytes(whole[28:32], "big"),
        "of CRC-32": zlib.crc32(front),
        "0": 0,
        "not inverted": right ^ 0xFFFFFFFF,
    }
    for name, crc in sums.items():
        yield case("C40", name, replace(o, crc=crc), "DigestMismatch")
    for wire in (0, 2, 0x101, 0x10001, 0x01000000, 0x80000001):
        yield case("C41", f"{wire:#x}", replace(o, wire=wire), "UnsupportedWire")
    size = len(whole)
    totals = {"one more": size + 1, "one less": size - 1, "without the signature": size - 64, "0": 0, "2^32 - 1": (1 << 32) - 1}
    for name, total in totals.items():
        yield case("C42", name, replace(o, total=total))
    yield case("C42", "cut off by a byte", whole[:-1])
    yield case("C42", "cut off behind the commit", whole[:-64])
    yield case("C42", "a byte behind", whole + b"\0")
    yield case("C42", "twice", whole * 2)


def in_counts() -> Iterator[Case]:
    o = good("updates", "1-delta")
    head = len(o.device + o.model) + 128
    yield case("C43", "2049", replace(o, model=o.model + bytes(2049 - head), model_len=6), "TooLarge")
    yield case("C43", "2^32 - 1", replace(o, header_len=(1 << 32) - 1), "TooLarge")
    yield case("C44", "16385", replace(o, extension=cbor.encode({"note": "e" * (16385 - 9)})), "TooLarge")
    yield case("C44", "2^32 - 1", replace(o, extension_len=(1 << 32) - 1), "TooLarge")
    yield case("C44", "one byte more than may be", o, "TooLarge", extension=len(o.extension) - 1)
    yield case("C45", "one more than may be", o, "TooLarge", tensors=len(o.rows) - 1)
    yield case("C45", "4097", replace(o, sections=4097), "TooLarge")
    yield case("C45", "2^32 - 1", replace(o, sections=(1 << 32) - 1), "TooLarge")
    yield case("C46", "129", replace(o, header_len=129))
    yield case("C46", "0", replace(o, header_len=0))
    yield case("C46", "without a name", replace(o, model=b"", device=b"e"))
    yield case("C47", "one byte too many", replace(o, extension_len=len(o.extension) + len(o.stream) + 1))
    yield case("C47", "one row too many", replace(o, stream=o.stream[:11], sections=len(o.rows) + 1))
    yield case("C47", "a header of 2048", replace(o, header_len=2048))
    yield case("C47", "an extension of 16384", replace(o, extension_len=16384))
    yield case("C47", "4096 rows", replace(o, sections=4096))


NAMES = {
    "empty": b"", "65 characters": b"a" * 65, "a capital": b"Pi-7", "a space": b"pi 7", "a slash": b"pi/7",
    "a way up": b"..", "a minus first": b"-pi7",
    "a point first": b".pi7", "a line feed": b"pi-7\n", "a wildcard": b"#", "a zero byte": b"pi\x007",
    "not ASCII": "pí-7".encode(), "high bytes": b"\xff\xfe",
}  # fmt: skip


def in_headers() -> Iterator[Case]:
    o, snapshot = good("updates", "1-delta"), good("updates", "7-snapshot")
    held = on("updates", "6-snapshot")
    for digest in (0, 2, 255):
        yield case("C48", f"{digest}", replace(o, digest=digest), "UnsupportedWire")
    for kind in (4, 255):
        yield case("C49", f"{kind}", replace(o, kind=kind), "UnsupportedWire")
    yield case("C50", "a byte behind the names", replace(o, model_len=len(o.model), model=o.model + b"x"))
    yield case("C50", "names longer than the header", replace(o, model_len=len(o.model) + 1))
    yield case("C50", "names of 255", replace(o, model_len=255, device_len=255))
    yield case("C50", "a snapshot without base", replace(snapshot, base=b""), held=held)
    yield case("C50", "a delta with a base", replace(o, base=snapshot.base))
    for name, text in NAMES.items():
        # The shortest header is one of two names of a letter, so the other name is long enough.
        yield case("C51", f"device {name}", replace(o, device=text))
        yield case("C51", f"model {name}", replace(o, model=text))
    yield case("C52", "device", replace(o, device=b"all"))
    yield case("C52", "model", replace(o, model=b"all"))
    yield case("C53", "0", replace(o, epoch=0))
    yield case("C53", "0 of a snapshot", replace(snapshot, epoch=0), held=held)
    for version in (0, 1 << 63, (1 << 64) - 1):
        yield case("C54", f"{version:#x}", replace(o, version=version))


def in_extensions() -> Iterator[Case]:
    o = good("updates", "1-delta")
    for name, value in {
        "an empty map": {},
        "an array": ["note"],
        "null": None,
        "0": 0,
        "text": "note",
        "bytes": b"",
        "a float": 0.5,
    }.items():
        yield case("C55", name, replace(o, extension=cbor.encode(value)))
    for name, keys in {
        "a critical key": {"!later": None},
        "the sign alone": {"!": 1},
        "beside known keys": {"!later": 1, "samples": 3},
    }.items():
        yield case("C56", name, replace(o, extension=cbor.encode(keys)), "NotUnderstood")
    yield case("C1", "an extension that ends too early", replace(o, extension=b"\xa1\x64note"))
    yield case("C2", "two extensions", replace(o, extension=cbor.encode({"samples": 1}) * 2))
    yield case("C10", "a key twice in an extension", replace(o, extension=b"\xa2" + b"\x64note\x61a" * 2))
    yield case("C12", "an extension of 4097 values", replace(o, extension=cbor.encode({"later": [0] * 4094})), "TooLarge")


def sections_of(state: ModelState, tensor: int, values: dict[int, int], step: int = 1) -> Section:
    """Return a section of one tensor, in the unit that it has."""
    index = np.array(sorted(values), np.uint32)
    return Section(tensor, index, np.array([values[int(i)] for i in index], np.int32), step, state.exponents[tensor])


def in_rows() -> Iterator[Case]:
    """What the table alone shows. A reader that forgets the rule comes to the root that the header names."""
    base, exact, mixed = stored_at("updates"), good("exact", "1-exact"), stored_at("mixed")
    o = update(base, Kind.DELTA, [sections_of(base, 1, {0: 3, 7: -1}), sections_of(base, 2, {5: 1, 900: 2})])
    for codec in (0, 3, 4, 255):
        yield case("C57", f"{codec}", of_row(0, codec=codec)(o), "UnsupportedWire")
    yield case("C57", "3 for an exact tensor", of_row(0, codec=3)(exact), "UnsupportedWire", EXACT)
    yield case("C58", "codec 1 in an exact update", of_row(0, codec=1)(exact), held=EXACT)
    first, second = sections_of(base, 1, {0: 3, 7: -1}), sections_of(base, 2, {5: 1, 900: 2})
    swapped = replace(o, rows=o.rows[::-1], stream=coded(base.manifest.schema, [second, first]))
    yield case("C59", "falling", swapped)
    halves = [sections_of(base, 1, {0: 1}), sections_of(base, 1, {0: 2, 7: -1})]
    whole = update(base, Kind.DELTA, [first])
    twice = tuple(replace(whole.rows[0], count=len(s.index)) for s in halves)
    yield case("C59", "the same tensor twice", replace(whole, rows=twice, stream=coded(base.manifest.schema, halves)))
    even = update(base, Kind.DELTA, [sections_of(base, 2, {5: 1, 900: -2}, step=2)])
    yield case("C60", "2", of_row(0, m=2, j=0)(even))
    yield case("C60", "0", of_row(0, m=0)(even))
    yield case("C60", "254", of_row(0, m=254, j=0)(update(base, Kind.DELTA, [sections_of(base, 2, {5: 1}, step=254)])))
    for j in (23, 24, 32, 255):
        yield case("C61", f"{j}", of_row(1, j=j)(o))
    snapshot = update(base, Kind.SNAPSHOT, [empty(3, base.exponents[3] + 1)])
    for e in (-128, -97, 101, 127):
        units = [e if t == 3 else unit for t, unit in enumerate(base.exponents)]
        root = replace(base.root_parts, units=tuple(units)).root
        yield case("C62", f"{e}", replace(of_row(0, exponent=e)(snapshot), root=root))
    yield case("C62", "101 in a delta", of_row(1, exponent=101)(o))
    for reserved in (1, 0x100, 0x8000):
        yield case("C63", f"{reserved:#06x}", of_row(0, reserved=reserved)(o), "UnsupportedWire")
    yield case("C63", "of planes", of_row(0, reserved=1)(exact), "UnsupportedWire", EXACT)
    for name, changes in {
        "m 3": {"m": 3},
        "m 255": {"m": 255},
        "j 1": {"j": 1},
        "e 1": {"exponent": 1},
        "e minus 14": {"exponent": -14},
    }.items():
        yield case("C64", name, of_row(0, **changes)(exact), held=EXACT)
    yield case("C65", "in a delta", replace(o, rows=(*o.rows, Row(3, 1, 1, 0, base.exponents[3], 0, 0))))
    yield case("C65", "a delta of nothing else", replace(update(base, Kind.DELTA, []), rows=(Row(3, 1, 1, 0, base.exponents[3], 0, 0),)))
    yield case("C65", "a snapshot with m 3", of_row(0, m=3)(snapshot))
    yield case("C65", "a snapshot with j 1", of_row(0, j=1)(snapshot))
    yield case(
        "C65",
        "planes in an exact update",
        replace(update(stored_at("exact"), Kind.EXACT, []), rows=(Row(0, 2, 1, 0, 0, 0, 0),)),
        held=EXACT,
    )
    statistic = mixed.manifest.schema.index("moving_mean")
    for kind in (Kind.DELTA, Kind.SNAPSHOT):
        nothing = replace(update(mixed, kind, []), rows=(Row(statistic, 2, 1, 0, 0, 0, 0),))
        yield case("C65", f"planes in a {kind.name.lower()}", nothing, held=MIXED)
    last = exact.rows[-1].count
    yield case("C66", "one byte more", of_row(len(exact.rows) - 1, count=last + 1)(exact), held=EXACT)
    yield case("C66", "2^32 - 1 bytes", of_row(len(exact.rows) - 1, count=(1 << 32) - 1)(exact), held=EXACT)
    both = good("mixed", "1-delta")
    place = next(i for i, row in enumerate(both.rows) if row.codec == 2)
    yield case("C66", "beside a stream", of_row(place, count=len(both.stream) + 1)(both), held=MIXED)
    recipe = good("recipe-updates", "1-sgd-int8")
    yield case("C67", "a row", replace(recipe, rows=(Row(2, 1, 1, 0, base.exponents[2], 0, 1),)), held=RECIPES)
    yield case("C67", "a row that is not there", replace(recipe, sections=1), held=RECIPES)
    yield case("C68", "empty", replace(recipe, stream=b""), held=RECIPES)


def in_tensors() -> Iterator[Case]:
    """What schema and classes show."""
    base, exact, mixed = stored_at("updates"), good("exact", "1-exact"), stored_at("mixed")
    names, n = mixed.manifest.schema, len(base.weights)
    o = update(base, Kind.DELTA, [sections_of(base, 3, {1: 1})])
    for tensor in (n, 4095, 65535):
        yield case("C69", f"{tensor}", of_row(0, tensor=tensor)(o), "IndexOutOfRange")
    last = len(exact.rows) - 1
    yield case("C69", "of planes", of_row(last, tensor=len(stored_at("exact").weights))(exact), "IndexOutOfRange", EXACT)
    bias = Section(1, np.arange(41, dtype=np.uint32), np.ones(41, np.int32), 1, base.exponents[1])
    stream = _core.encode_sections([(2, 40, bias.index, bias.value)])
    yield case("C70", "one entry more", replace(o, rows=(Row(1, 1, 1, 0, base.exponents[1], 0, 41),), stream=stream), "IndexOutOfRange")
    yield case("C70", "2^32 - 1 entries", of_row(0, count=(1 << 32) - 1)(o), "IndexOutOfRange")
    statistic = names.index("moving_mean")
    values = Section(statistic, np.array([3], np.uint32), np.array([1], np.int32), 1, 0)
    any_delta = good("mixed", "1-delta")
    coded_exact = replace(any_delta, rows=(Row(statistic, 1, 1, 0, 0, 0, 1),), stream=coded(names, [values]))
    yield case("C71", "in a delta", coded_exact, held=MIXED)
    for name in ("f16", "bias", "codes"):
        spec = names.tensors[names.index(name)]
        content = (
            struct.pack("<I", spec.size)
            + struct.pack("<I", 1 << 24 | spec.size)
            + bytes([2]) * spec.size
            + bytes(4) * (spec.dtype.width - 1)
        )
        planes = replace(any_delta, rows=(Row(names.index(name), 2, 1, 0, 0, 0, len(content)),), stream=content)
        yield case("C72", f"{spec.dtype.name} {mixed.manifest.classes[names.index(name)].name}", planes, held=MIXED)
    wrong: dict[str, tuple[int, dict[str, int]]] = {
        "m 3": (3, {"m": 3}),
        "j 1": (2, {"j": 1}),
        "e 1": (1, {"exponent": 1}),
        "e minus 14": (1, {"exponent": -14}),
    }
    for name, (times, changes) in wrong.items():
        done = update(base, Kind.DELTA, [sections_of(base, 0, {4: times})])
        yield case("C73", name, of_row(0, **changes)(replace(done, stream=coded(base.manifest.schema, [sections_of(base, 0, {4: 1})]))))
    whole = update(mixed, Kind.DELTA, [sections_of(mixed, names.index("bias"), {4: 3})])
    once = coded(names, [sections_of(mixed, names.index("bias"), {4: 1})])
    yield case("C73", "int32 with m 3", of_row(0, m=3)(replace(whole, stream=once)), held=MIXED)


def in_units() -> Iterator[Case]:
    base, mixed = stored_at("updates"), stored_at("mixed")
    names = mixed.manifest.schema
    o = update(base, Kind.DELTA, [sections_of(base, 2, {5: 1, 900: -2})])
    for e in (-96, -15, -13, 0, 100):
        yield case("C74", f"{e} for minus 14", of_row(0, exponent=e)(o))
    codes = names.index("codes")
    quiet = int(np.flatnonzero(np.abs(mixed.weights[codes]) < 100)[0])
    for e in (-1, 1):
        yield case(
            "C74", f"int8 {e}", of_row(0, exponent=e)(update(mixed, Kind.DELTA, [sections_of(mixed, codes, {quiet: 1})])), held=MIXED
        )
    moved, held = stored_at("updates", "6-snapshot"), on("updates", "6-snapshot")  # its units are wider than the manifest's
    back = update(moved, Kind.DELTA, [sections_of(moved, 1, {0: 1})])
    yield case("C74", "the manifest's after a wider one", of_row(0, exponent=base.exponents[1])(back), held=held)

    def widened(state: ModelState, tensor: int, e: int) -> Open:
        """A snapshot of the base itself with another unit for one tensor."""
        right = update(state, Kind.SNAPSHOT, [])
        units = tuple(e if t == tensor else unit for t, unit in enumerate(state.manifest.exponents))
        return replace(right, rows=(Row(tensor, 1, 1, 0, e, 0, 0),), root=replace(state.root_parts, units=units).root)

    for tensor in (1, 2):
        bound = coarsest_safe(peak_of(base.base[tensor]))
        yield case("C75", f"tensor {tensor}", widened(base, tensor, bound - 1))
    for tensor, spec in enumerate(names.tensors):
        if mixed.manifest.stepped(tensor):
            yield case(
                "C75",
                f"{spec.name} of {spec.dtype.name}",
                widened(mixed, tensor, coarsest_safe(peak_of(mixed.base[tensor])) - 1),
                held=MIXED,
            )
    for e in (-1, 1, 100):
        yield case("C76", f"{e}", widened(mixed, codes, e), held=MIXED)
    yield case(
        "C76", "with content", of_row(0, exponent=1)(update(mixed, Kind.SNAPSHOT, [sections_of(mixed, codes, {quiet: 1})])), held=MIXED
    )
    for name, state, tensor, held in (
        ("float32", base, 2, UPDATES),
        ("a verbatim tensor", base, 0, UPDATES),
        ("int8", mixed, codes, MIXED),
    ):
        yield case("C77", name, widened(state, tensor, state.manifest.exponents[tensor]), held=held)


def cases() -> Iterator[Case]:
    for part in (in_preambles, in_counts, in_headers, in_extensions, in_rows, in_tensors, in_units):
        yield from part()
