"""Negative vectors of what models are named by: CBOR, manifests, bases, root proofs. C1 to C36 of docs/format/container.md."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.wire import cbor

from .container_cases import Case, root_of, stored_at

CBOR = {  # rule, what is wrong, the bytes
    "C1": {
        "nothing": "", "a head without its number": "18", "a 16-bit number of one byte": "1901",
        "a 64-bit number of seven bytes": "1b01020304050607",
        "a byte string one byte short": "4201", "a byte string of 2^64 - 1": "5bffffffffffffffff", "text one byte short": "636161",
        "a float of seven bytes": "fb00000000000000", "an array without its item": "81", "an array of 2^64 - 1 items": "9bffffffffffffffff",
        "an array of more items than bytes": "830000", "a map without its value": "a16161", "a map of more keys than bytes": "a3616100",
    },
    "C2": {"a byte behind": "0000", "a second value": "a0a0", "a break behind": "00ff"},
    "C3": {
        "an indefinite array": "9f00ff", "an indefinite map": "bf616100ff", "indefinite bytes": "5f4100ff", "indefinite text": "7f6161ff",
        "low bits 28": "1c", "low bits 29 of a negative": "3d", "low bits 30 of an array": "9e", "low bits 31 of an integer": "1f",
        "low bits 31 of a tag": "df00",
    },
    "C4": {
        "23 in two bytes": "1817", "255 in three bytes": "1900ff", "65535 in five bytes": "1a0000ffff",
        "2^32 - 1 in nine bytes": "1b00000000ffffffff",
        "minus 1 in two bytes": "3800", "a length in two bytes": "580100", "a count in two bytes": "980100",
        "the length of a key": "a178016100",
    },
    "C5": {"a date": "c000", "a bignum": "c24101", "its own description": "d9d9f700"},
    "C6": {
        "undefined": "f7", "a 16-bit float": "f93c00", "a 32-bit float": "fa3f800000", "a simple value": "e0", "false in two bytes": "f814",
        "a break": "ff", "reserved": "fc",
    },
    "C7": {
        "infinity": "fb7ff0000000000000", "minus infinity": "fbfff0000000000000", "a quiet NaN": "fb7ff8000000000000",
        "a signalling NaN": "fb7ff0000000000001", "in a map": "a16161fbfff8000000000000",
    },
    "C8": {
        "a byte alone": "61ff", "overlong": "62c080", "a surrogate": "63eda080", "beyond 10FFFF": "64f4908080", "cut off": "61c3",
        "in a key": "a161ff00",
    },
    "C9": {"an integer": "a10000", "bytes": "a1416100", "null": "a1f600", "a float": "a1fb000000000000000000"},
    "C10": {
        "the same key twice": "a2616100616100", "b before a": "a2616200616100", "longer before shorter": "a262616100616200",
        "in a map within": "a16161a2616200616100",
    },
    "C11": {"arrays five deep": "8181818180", "maps five deep": "a16161a16161a16161a16161a0", "both": "81a16161818180"},
}  # fmt: skip


def in_cbor() -> Iterator[Case]:
    for rule, wrong in CBOR.items():
        for name, data in wrong.items():
            yield Case(rule, name, "Malformed", "cbor", bytes.fromhex(data))
    many = {
        "an array of 4096 items": b"\x99\x10\x00" + bytes(4096),
        "a map of 2048 keys": cbor.encode({f"{i:04}": 0 for i in range(2048)}),
        "arrays within": cbor.encode([[0] * 2000, [[0] * 2093]]),
    }
    for name, data in many.items():
        yield Case("C12", name, "TooLarge", "cbor", data)


ROW = ["dense", 1, [2, 4], 0, -14]
GOOD: dict[str, Any] = {
    "file": bytes(range(32)), "manifest": 1, "root": bytes(range(1, 33)), "size": 4096, "tensors": [["bias", 2, [4], 0, -14], ROW],
    "tree": bytes(range(2, 34)),
}  # fmt: skip


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != key}


def of_row(place: int, value: Any) -> dict[str, Any]:
    """Return the manifest with another value in its last tensor."""
    return GOOD | {"tensors": [GOOD["tensors"][0], [value if i == place else v for i, v in enumerate(ROW)]]}


def rows(*tensors: list[Any]) -> dict[str, Any]:
    return GOOD | {"tensors": list(tensors)}


def in_manifests() -> Iterator[Case]:
    def case(rule: str, name: str, value: Any, error: str = "Malformed", **limits: int) -> Case:
        return Case(rule, name, error, "manifest", cbor.encode(value), {"limits": limits} if limits else {})

    yield case("C12", "a manifest of 33 values where 2 tensors may be", rows(ROW) | {"more": {"later": [0] * 9}}, "TooLarge", tensors=2)
    yield case("C13", "one byte more than may be", GOOD, "TooLarge", manifest=len(cbor.encode(GOOD)) - 1)
    yield case("C14", "an array", list(GOOD.values()))
    for key in without("manifest"):
        yield case("C14", f"without {key}", without(key))
    yield case("C14", "with another key", GOOD | {"later": 1})
    yield case("C14", "with a critical key beside more", GOOD | {"!later": 1})
    for name, value in {"0": 0, "2": 2, "true": True, "1.0": 1.0, "text": "1"}.items():
        yield case("C15", name, GOOD | {"manifest": value})
    for name, value in {"an empty map": {}, "an array": [1], "null": None, "an integer": 1}.items():
        yield case("C16", name, GOOD | {"more": value})
    yield case("C17", "a critical key", GOOD | {"more": {"!later": 1}}, "NotUnderstood")
    yield case("C17", "the sign alone", GOOD | {"more": {"!": None, "later": 1}}, "NotUnderstood")
    for key in ("file", "root", "tree"):
        for name, value in {"31 bytes": bytes(31), "33 bytes": bytes(33), "text": "0" * 32, "null": None}.items():
            yield case("C18", f"{key} {name}", GOOD | {key: value})
    for name, value in {"0": 0, "minus 1": -1, "one more than a file may have": 629_145_601, "a float": 4096.0, "true": True}.items():
        yield case("C19", name, GOOD | {"size": value})
    for name, value in {
        "a map": {"dense": 1},
        "null": None,
        "a tensor of four": [ROW[:4]],
        "of six": [[*ROW, 0]],
        "a tensor as map": [{"a": 1}],
    }.items():
        yield case("C20", name, GOOD | {"tensors": value})
    for name, value in {
        "empty": "",
        "201 characters": "e" * 201,
        "1F": "e\x1f",
        "7F": "e\x7f",
        "not ASCII": "é",
        "bytes": b"e",
        "1": 1,
    }.items():
        yield case("C21", name, of_row(0, value))
    for name, value in {"0": 0, "6": 6, "true": True, "1.0": 1.0, "text": "float32"}.items():
        yield case("C22", name, of_row(1, value))
    for name, value in {"3": 3, "minus 1": -1, "false": False, "0.0": 0.0, "null": None}.items():
        yield case("C23", name, of_row(3, value))
    for name, dtype, klass in (("verbatim float16", 2, 1), ("verbatim bfloat16", 3, 1), ("verbatim int8", 4, 1), ("lattice int32", 5, 0)):
        yield case("C23", name, rows(["dense", dtype, [2, 4], klass, 0]))
    shapes: dict[str, Any] = {
        "an integer": 8, "seven dimensions": [1] * 7, "a dimension of 0": [0, 4], "a dimension of 2^31": [1 << 31], "a negative one": [-1],
        "true": [True], "a float": [2.0], "text": "24",
    }  # fmt: skip
    for name, value in shapes.items():
        yield case("C24", name, of_row(2, value))
    for name, value in {"minus 97": -97, "101": 101, "a float": -14.0, "null": None, "true": True}.items():
        yield case("C25", name, of_row(4, value))
    for name, dtype, klass, e in (
        ("verbatim", 1, 1, -14),
        ("verbatim int32", 5, 1, 1),
        ("exact", 1, 2, -14),
        ("int8", 4, 0, 1),
        ("exact int8", 4, 2, -1),
    ):
        yield case("C26", name, rows(["dense", dtype, [2, 4], klass, e]))
    yield case("C27", "none", rows())
    yield case("C28", "4097", rows(*([f"{i:04}", 5, [], 2, 0] for i in range(4097))), "TooLarge")
    yield case("C29", "falling", rows(ROW, GOOD["tensors"][0]))
    yield case("C29", "the same name twice", rows(ROW, ROW))
    yield case("C29", "by letters and not by bytes", rows(["a", *ROW[1:]], ["B", *ROW[1:]]))
    yield case("C30", "one more than may be", rows(["a", 1, [1 << 26, 2], 0, -14], ["b", 4, [], 0, 0]), "TooLarge")
    yield case("C30", "one tensor alone", rows(["a", 4, [(1 << 31) - 1, (1 << 31) - 1, 4], 2, 0]), "TooLarge")


def base_of(*tensors: tuple[Dtype, int, int, bytes], root: bytes | None = None) -> tuple[bytes, bytes]:
    """Return (manifest, weights) of a base with these tensors: type, class, e, stored bytes."""
    specs = tuple(TensorSpec(f"t{i}", (len(raw) // t.width,), t) for i, (t, _, _, raw) in enumerate(tensors))
    schema, stored, units = Schema(specs), [raw for *_, raw in tensors], [e for _, _, e, _ in tensors]
    integers = {
        i: bytes(4 * specs[i].size) for i, (t, klass, _, _) in enumerate(tensors) if klass == 0 and t in (Dtype.FLOAT16, Dtype.BFLOAT16)
    }
    proof = root or root_of(schema, stored, units, integers)
    listed = [[s.name, int(s.dtype), list(s.shape), klass, e] for s, (_, klass, e, _) in zip(specs, tensors, strict=True)]
    manifest = {"file": bytes(32), "manifest": 1, "root": proof, "size": 1, "tensors": listed, "tree": bytes(32)}
    return cbor.encode(manifest), b"".join(stored)


def bits_of(dtype: Dtype, number: float) -> bytes:
    """Return a number as its type is stored."""
    if dtype is Dtype.BFLOAT16:
        return struct.pack("<f", number)[2:]
    return struct.pack({Dtype.FLOAT32: "<f", Dtype.FLOAT16: "<e", Dtype.INT8: "<b"}[dtype], int(number) if dtype is Dtype.INT8 else number)


FLOATS = (Dtype.FLOAT32, Dtype.FLOAT16, Dtype.BFLOAT16)


def in_bases() -> Iterator[Case]:
    def case(rule: str, name: str, error: str, made: tuple[bytes, bytes]) -> Case:
        return Case(rule, name, error, "base", made[1], {"manifest": made[0].hex()})

    manifest, weights = base_of((Dtype.FLOAT32, 0, -14, np.array([1, -2, 0.5, 0], "<f4").tobytes()), (Dtype.INT8, 2, 0, b"\x80\x01"))
    yield case("C31", "another bit in the first tensor", "WrongBase", (manifest, bytes([weights[0] ^ 1]) + weights[1:]))
    yield case("C31", "minus zero for zero", "WrongBase", (manifest, weights[:15] + b"\x80" + weights[16:]))
    yield case("C31", "another bit in the last tensor", "WrongBase", (manifest, weights[:-1] + b"\0"))
    for dtype in FLOATS:
        for name, number in {"infinity": math.inf, "minus infinity": -math.inf, "NaN": math.nan}.items():
            for klass, what in ((0, "lattice"), (2, "exact")):
                raw = bits_of(dtype, 1.0) + bits_of(dtype, number)
                yield case("C32", f"{what} {dtype.name} {name}", "NonFinite", base_of((dtype, klass, -14 if klass == 0 else 0, raw)))
        made = base_of((dtype, 2, 0, bits_of(dtype, math.nan)), root=bytes(32))
        yield case("C32", f"{dtype.name} NaN under another root", "NonFinite", made)
        yield case("C33", f"{dtype.name} of peak 1", "Malformed", base_of((dtype, 0, -23, bits_of(dtype, 0.5) + bits_of(dtype, -1.0))))
        above = {Dtype.FLOAT32: 1 + 2.0**-23, Dtype.FLOAT16: 1 + 2.0**-10, Dtype.BFLOAT16: 1 + 2.0**-7}[dtype]
        yield case("C33", f"{dtype.name} of a peak just above 1", "Malformed", base_of((dtype, 0, -22, bits_of(dtype, above))))
    yield case("C32", "verbatim NaN", "NonFinite", base_of((Dtype.FLOAT32, 1, 0, bits_of(Dtype.FLOAT32, math.nan))))
    yield case("C34", "minus 128", "Malformed", base_of((Dtype.INT8, 0, 0, b"\x7f\x80")))


def in_root_proofs() -> Iterator[Case]:
    parts = stored_at("mixed", "1-delta").root_parts
    good, root = parts.encode(), parts.root
    held = {"root": root.hex()}
    short = good[:65] + good[-31:]
    yield Case("C35", "96 bytes", "Malformed", "root-proof", short, {"root": hashlib.sha256(short).hexdigest()})
    yield Case("C35", "no bytes", "Malformed", "root-proof", b"", {"root": hashlib.sha256(b"").hexdigest()})
    for first in (0, 2, 4):
        other = bytes([first]) + good[1:]
        yield Case("C35", f"0{first} in front", "Malformed", "root-proof", other, {"root": hashlib.sha256(other).hexdigest()})
    for name, at in {"another schema id": 1, "another weights node": 33, "another unit": 65, "another node of Q": len(good) - 1}.items():
        yield Case("C36", name, "RootMismatch", "root-proof", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], held)
    yield Case("C36", "one unit more", "RootMismatch", "root-proof", good[:65] + b"\0" + good[65:], held)
    yield Case("C36", "the root in the other order", "RootMismatch", "root-proof", good, {"root": root[::-1].hex()})


def cases() -> Iterator[Case]:
    yield from in_cbor()
    yield from in_manifests()
    yield from in_bases()
    yield from in_root_proofs()
