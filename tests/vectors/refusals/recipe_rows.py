"""The negative vectors of a recipe's rows, and of whose rows they are: R14 to R29, R40 to R51."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from modelwire.wire import cbor

from .recipe_cases import FEATURES, OUTPUTS, ROWS, Case, coded, coded_labels, features, labels, of, of_rows, put

_TYPES: dict[str, Any] = {"a float": 1.0, "true": True, "null": None, "text": "1"}  # for an integer
_ID_END = b"\xff" * 8 + b"\x7f"  # 2^63 - 1


def cases() -> Iterator[Case]:
    """Yield them all."""
    for part in (_fields, _sizes, _integers, _wanted, _labels, _targets, _row_ids, _forgot):
        yield from part()


def _fields() -> Iterator[Case]:
    yield of("R14", "rows that are null", put(4, None))
    yield of("R14", "rows that are a map", put(4, {"format": 1}))
    yield of("R14", "rows of ten", lambda v: v[4].__delitem__(-1))
    yield of("R14", "rows of twelve", lambda v: v[4].append(None))
    for name, number in {"0": 0, "2": 2, **_TYPES}.items():
        yield of("R14", f"rows of format {name}", of_rows(format=number))
    for field in ("dtype", "rows", "features", "layout", "count", "medians", "kind"):
        for name, value in _TYPES.items():
            yield of("R14", f"{field} {name}", of_rows(**{field: value}))
    for name, value in {"an integer": 1, "true": True, "null": None}.items():
        yield of("R14", f"scale {name}", of_rows(scale=value))
    for name, value in {"text": "", "null": None, "an array": [], "an integer": 0}.items():
        yield of("R14", f"stream {name}", of_rows(stream=value))
    for field, numbers in {"dtype": (0, 1, 3, 5, 6, 7), "layout": (3, 255), "kind": (2, 255)}.items():
        for value in numbers:
            yield of("R15", f"{field} {value}", of_rows(**{field: value}))
        yield of("R15", f"{field} minus one", of_rows(**{field: -1}))


def _sizes() -> Iterator[Case]:
    none: dict[str, Any] = {"layout": 0, "count": 0, "stream": b"", "wanted": [0, b""]}
    for name, n in {"no": 0, "minus one": -1, "minus 2 to the 64": -(2**64)}.items():
        yield of("R16", f"{name} rows", of_rows(rows=n, **none))
        yield of("R16", f"{name} features", of_rows(features=n, **none))
    yield of("R16", "no rows and no features", of_rows(rows=0, features=0, **none))
    for rows, width in ((1, 65537), (65, 65537), (65537, 64), (4194305, 1), (2**64 - 1, 9)):
        yield of("R17", f"{rows} rows of {width} features", of_rows(rows=rows, features=width, **none), "TooLarge")
    wrong = {
        "zero": 0.0, "minus zero": -0.0, "below zero": -0.5, "a bit below 2 to the minus 126": 2.0**-126 - 2.0**-149,
        "a bit above 2 to the 100": 2.0**100 + 2.0**77, "no float32": 0.1, "past float32": 1e300,
    }  # fmt: skip
    for name, scale in wrong.items():
        yield of("R18", f"scale {name}", of_rows(scale=scale))
    for name, scale in {"one half": 0.5, "two": 2.0, "a bit above one": 1 + 2.0**-23}.items():
        yield of("R19", f"float16 with the scale {name}", of_rows(scale=scale), on="half")
    for name, count in {"minus one": -1, "one more than all": ROWS * FEATURES + 1, "2 to the 63": 2**63}.items():
        yield of("R20", f"count {name}", of_rows(count=count))
    centred = coded(features(), 2, np.ones(FEATURES, np.int64))
    for name, medians in {"minus one": -1, "one more than the features": FEATURES + 1}.items():
        yield of("R21", f"medians {name}", of_rows(**centred | {"medians": medians}))
    for layout in (0, 1):
        yield of("R21", f"medians in layout {layout}", of_rows(**coded(features(), layout) | {"medians": 1}))


def _integers() -> Iterator[Case]:
    """Features past their type: in each layout, and in layout 2 by what is in the stream, or by the centre that is added."""
    for rule, on, bounds in (("R22", "softmax", (-129, 128)), ("R23", "half", (-31745, 31744))):
        for value in (*bounds, *(65535, -65536) * (on == "half")):
            name = f"{value}".replace("-", "minus ")
            whole = features().astype(np.int64)
            whole[ROWS - 1, FEATURES - 1] = value
            for layout in (0, 1):
                yield of(rule, f"the feature {name} in layout {layout}", of_rows(**coded(whole, layout)), on=on)
            for centre in (0, value // 2, value):
                centres = np.zeros(FEATURES, np.int64)
                centres[-1] = centre
                told = f"{centre}".replace("-", "minus ")
                yield of(rule, f"the feature {name} around {told}", of_rows(**coded(whole, 2, centres)), on=on)


def _wanted() -> Iterator[Case]:
    for on, number, said in (("softmax", ROWS, coded_labels(labels() + 1)[1]), ("mse", OUTPUTS, bytes(4 * ROWS * OUTPUTS))):
        what = "labels" if on == "softmax" else "targets"
        wrong: dict[str, Any] = {
            "an integer": 7, "bytes": said, "a map": {"0": said}, "false": False, "one": [number], "three": [number, said, 0], "none": []
        }  # fmt: skip
        if on == "softmax":
            wrong["null"] = None
        for name, value in wrong.items():
            yield of("R24", f"{what} that are {name}", of_rows(wanted=value), on=on)
        for name, value in _TYPES.items():
            yield of("R24", f"{what} of the number {name}", of_rows(wanted=[value, said]), on=on)
        for name, value in {"text": "", "null": None, "an array": [], "an integer": 0}.items():
            yield of("R24", f"{what} whose bytes are {name}", of_rows(wanted=[number, value]), on=on)


def _labels() -> Iterator[Case]:
    stream = coded_labels(labels())[1]
    for name, number in {"minus one": -1, "one more than the rows": ROWS + 1, "2 to the 64 less one": 2**64 - 1}.items():
        yield of("R25", f"a number of labels of {name}", of_rows(wanted=[number, stream]))
    for label in (-1, 4096, -(2**31), 2**31 - 1):
        name = str(label).replace("-", "minus ")
        for place, which in ((0, "first"), (ROWS - 1, "last")):
            numbers = labels().astype(np.int64)
            numbers[place] = label
            yield of("R26", f"the {which} label {name}", of_rows(wanted=coded_labels(numbers)))


def _targets() -> Iterator[Case]:
    one_row = coded(features()[:1], 0) | {"rows": 1}
    yield of("R27", "targets of no outputs", of_rows(wanted=[0, b""]), on="mse")
    yield of("R27", "targets of minus one output", of_rows(wanted=[-1, b""]), on="mse")
    yield of("R27", "targets of 4097 outputs", of_rows(**one_row, wanted=[4097, bytes(4 * 4097)]), on="mse")
    n = 4 * ROWS * OUTPUTS
    row = 4 * OUTPUTS
    sizes = {"none": 0, "a byte too few": n - 1, "a byte too many": n + 1, "a row too few": n - row, "a row too many": n + row}
    for name, size in sizes.items():
        yield of("R28", f"bytes of targets {name}", of_rows(wanted=[OUTPUTS, bytes(size)]), on="mse")
    for name, number in {"not a number": np.nan, "infinite": np.inf, "minus infinite": -np.inf}.items():
        for place, which in ((0, "first"), (ROWS * OUTPUTS - 1, "last")):
            targets = np.zeros(ROWS * OUTPUTS, "<f4")
            targets[place] = number
            yield of("R29", f"the {which} target {name}", of_rows(wanted=[OUTPUTS, targets.tobytes()]), on="mse")


def _not_bytes() -> dict[str, Any]:
    return {"an integer": 1, "null": None, "text": "\1\1\1", "an array": [1, 1, 1], "true": True}


def _bad_ids() -> dict[tuple[str, str], bytes]:
    """Return ids of three rows that break one rule of numbers each: R41, R42, R43."""
    return {
        ("R41", "end within a number"): b"\x01\x01\x81",
        ("R41", "hold a number of ten bytes"): b"\x01\x01" + b"\x80" * 9 + b"\x01",
        ("R42", "hold a zero of two bytes"): b"\x01\x01\x80\x00",
        ("R42", "hold a number with a zero byte behind it"): b"\x01\xff\x00\x01",
        ("R43", "rise to 2 to the 63"): b"\x01" + _ID_END + b"\x01",
        ("R43", "rise far beyond"): _ID_END * 3,
    }


def _row_ids() -> Iterator[Case]:
    fine = cbor.encode({"rows": b"\x05\x00\x81\x01"})

    def ids(rule: str, name: str, value: Any) -> Case:
        return Case(name, (rule,), "Malformed", "row-ids", cbor.encode({"rows": value}), {"rows": 3}, fine, {"rows": 3})

    for name, value in _not_bytes().items():
        yield ids("R40", f"ids that are {name}", value)
    for (rule, name), data in _bad_ids().items():
        yield ids(rule, f"ids that {name}", data)
    for name, data in {
        "none": b"", "two": b"\x01\x01", "two in three bytes": b"\x01\x80\x01", "four": b"\x01\x01\x01\x01", "a hundred": b"\x01" * 100
    }.items():  # fmt: skip
        yield ids("R44", f"ids of which there are {name}", data)


def _forgot() -> Iterator[Case]:
    fine: list[cbor.Value] = [1, b"\x05\x01", 7, b"\x00\x01"]

    def forgot(rule: str, name: str, value: Any) -> Case:
        return Case(f"forgot {name}", (rule,), "Malformed", "forgot", cbor.encode({"forgot": value}), {}, whole(fine), {})

    def whole(fields: list[cbor.Value]) -> bytes:
        return cbor.encode({"forgot": cbor.encode(fields)})

    def field(rule: str, name: str, place: int, value: Any) -> Case:
        return forgot(rule, name, cbor.encode([*fine[:place], value, *fine[place + 1 :]]))

    for name, value in _not_bytes().items():
        yield forgot("R45", f"that is {name}", value)
    coded_fine = cbor.encode(fine)
    for name, value in {
        "of no bytes": b"", "cut by a byte": coded_fine[:-1], "with a byte behind it": coded_fine + b"\0", "that is a map": b"\xa0",
        "of three": cbor.encode(fine[:3]), "of five": cbor.encode([*fine, 0]),
    }.items():  # fmt: skip
        yield forgot("R46", name, value)
    for name, number in {"0": 0, "2": 2, **_TYPES}.items():
        yield field("R46", f"of format {name}", 0, number)
    for place, what in ((1, "samples"), (3, "rows")):
        for name, value in {"text": "\5", "null": None, "an array": [5], "an integer": 5}.items():
            yield field("R47", f"whose {what} are {name}", place, value)
        for (_, name), data in _bad_ids().items():
            yield field("R48", f"whose {what} {name}", place, data)
        for name, data in {"first": b"\x05\x00\x01", "last": b"\x05\x01\x00", "only": b"\x00\x00"}.items():
            yield field("R49", f"whose {name} {what} stand twice", place, data)
    for name, number in {"minus one": -1, "2 to the 63": 2**63, **_TYPES}.items():
        yield field("R47", f"of version {name}", 2, number)
    yield forgot("R50", "nothing", cbor.encode([1, b"", 0, b""]))
    yield forgot("R51", "samples and rows of version 0", cbor.encode([1, b"\5", 0, b"\0"]))
    yield forgot("R51", "rows of version 0", cbor.encode([1, b"", 0, b"\0"]))
    yield forgot("R51", "samples and no rows of version 7", cbor.encode([1, b"\5", 7, b""]))
