"""The kernels that take floats, each as a function of named arrays, and what each says where one of those holds what is no number.

A row is one kernel in one use. In the arrays that `make` gives all is sound; `says` is the rule of csrc/mw.h, spelled out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modelwire import _reference as twin
from modelwire._core import kernel

Arrays: TypeAlias = "dict[str, Any]"

FLOAT32, FLOAT16, BFLOAT16, INT8, INT32 = 1, 2, 3, 4, 5
TYPES = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16, "int8": INT8}
LATTICE, VERBATIM = 0, 1
INFINITY = {FLOAT32: 0x7F800000, FLOAT16: 0x7C00, BFLOAT16: 0x7F80}
WEIGHTS, TRAINED, DIFFERENCE = "the weights", "the trained weights", "the difference to the trained weights"
FIRST = 40  # entries of a sound tensor that comes before: what was done to it must be undone
START = 1000003
ROW = struct.Struct("<HBBBbHI")  # of a section table


@dataclass(frozen=True, slots=True)
class Door:
    """A kernel in one use. says: of each array, what is refused in the name of what; None where it is taken as it is."""

    name: str
    make: Callable[[int, int], Arrays]  # entries, and Q of each of them
    call: Callable[[Any, Arrays], Any]
    says: dict[str, str | None]
    tensor: int = 0  # that a refusal names
    leaves: tuple[str, ...] = ()  # what a refusal leaves in these means nothing
    halves: int = BFLOAT16  # the type of 16-bit floats
    qs: tuple[int, ...] = (0, 5)
    few: bool = False  # its loop is another's, or goes entry by entry: the edges of registers say nothing more


def doors() -> list[Door]:
    out = [*of_one_tensor()]
    for name, dtype in TYPES.items():
        out += [*of_rounds(name, dtype), *of_streams(name, dtype), *of_storage(name, dtype)]
    return [*out, *of_verbatim("float32", FLOAT32, WEIGHTS, TRAINED), *of_verbatim("int32", INT32, None, None)]


def of_one_tensor() -> Iterator[Door]:
    """The kernels of a single float32 tensor, or of its bits."""
    into = {"w": DIFFERENCE, "trained": TRAINED, "residual": DIFFERENCE}
    yield Door("differences", tensor, lambda core, a: core.differences(a["w"], a["trained"], a["residual"], a["out"]), into)
    yield Door("Q from weights", tensor, lambda core, a: core.q_from_weights(a["base"], a["w"], a["q"], exponent=-14), both(WEIGHTS))
    yield Door("weights from Q", tensor, lambda core, a: core.weights_from_q(a["base"], a["q"], a["w"], exponent=-14), read(WEIGHTS))
    yield Door("a section of all entries", section(7), move_by_section, read(WEIGHTS))
    yield Door("a section that takes all entries home", section(None), move_by_section, read(WEIGHTS))
    yield Door("a section of no entries", section(0), move_by_section, read(None))
    yield Door("a verbatim section", verbatim_section, move_bits, read(None) | {"to": WEIGHTS})
    yield Door("the largest magnitude", tensor, lambda core, a: float_bits(core.kth_magnitude(a["base"].view(np.int32), 1)), {"base": None})


def of_rounds(name: str, dtype: int) -> Iterator[Door]:
    """The device's round, over a sound tensor and then one of this type."""

    def two(n: int, q: int) -> Arrays:
        return after_a_sound_one(tensor(n, q, dtype))

    def known(step: int, threshold: float) -> Callable[[Any, Arrays], Any]:
        return lambda core, a: round_of(core, a, dtype).adopt_known(steps=[96, step], thresholds=[0.01, threshold])

    step, left, few = 1 if dtype == INT8 else 96, ("left", "first left"), dtype != FLOAT32
    seen = {"w": DIFFERENCE, "trained": TRAINED, "residual": DIFFERENCE}
    unseen: dict[str, str | None] = dict.fromkeys(seen)
    told: dict[str, str | None] = {"d": DIFFERENCE, "w": WEIGHTS, "base": WEIGHTS, "trained": None, "residual": None}
    rows: list[tuple[str, Any, Any, dict[str, str | None]]] = [
        ("a known step that sends all", two, known(step, 0.01), seen | {"base": WEIGHTS}),
        ("a known step that sends nothing", two, known(step, 1e30), seen | {"base": None}),
        ("a known step elsewhere", two, known(0, 0.01), unseen | {"base": None}),
        ("the largest", two, lambda core, a: collected(core, a, dtype), (unseen if dtype == INT8 else seen) | {"base": None}),
        ("candidates", candidates(dtype), lambda core, a: adopted(core, a, dtype, step), told),
    ]
    for what, make, call, says in rows:
        yield Door(f"{name}: {what}", make, call, says, tensor=1, leaves=left, few=few or what.endswith("elsewhere"))


def of_streams(name: str, dtype: int) -> Iterator[Door]:
    """A whole update of a sound tensor and of one of this type."""
    for what, snapshot in (("a delta", False), ("a snapshot", True)):
        call = stream_to(dtype, LATTICE, snapshot)
        yield Door(f"{name}: {what}", update(dtype, LATTICE, 7), call, read(WEIGHTS), tensor=1, few=True)
        yield Door(f"{name}: {what} elsewhere", update(dtype, LATTICE, 0), call, read(None), tensor=1, few=True)


def of_verbatim(name: str, dtype: int, weights: str | None, trained: str | None) -> Iterator[Door]:
    """Tensors whose bits are sent; only those that come of it are looked at, and any bits are an int32."""

    def two(n: int, q: int) -> Arrays:
        return after_a_sound_one(verbatim(n, q, dtype))

    def retracted(core: Any, a: Arrays) -> Any:
        round = round_of(core, a, dtype, VERBATIM)
        taken = round.adopt_verbatim()
        moved = a["w"].copy()
        round.retract(taken[0], taken[1], taken[2], steps=[1, 1])
        return taken, moved

    def adopted_whole(core: Any, a: Arrays) -> Any:
        return round_of(core, a, dtype, VERBATIM).adopt_verbatim()

    kept: dict[str, str | None] = {"w": None, "base": None, "trained": trained}
    yield Door(f"verbatim {name}: adopted", two, adopted_whole, kept, tensor=1, few=True)
    yield Door(f"verbatim {name}: adopted and taken back", two, retracted, kept, tensor=1, few=True)
    for what, snapshot in (("a delta", False), ("a snapshot", True)):
        call, says = stream_to(dtype, VERBATIM, snapshot), {"base": None, "to": weights}
        yield Door(f"verbatim {name}: {what}", update(dtype, VERBATIM, 7), call, says, tensor=1, few=True)


def of_storage(name: str, dtype: int) -> Iterator[Door]:
    """Between held and stored numbers, and the planes of stored ones."""

    def door(what: str, make: Any, call: Any, says: dict[str, str | None], *leaves: str) -> Door:
        return Door(f"{name}: {what}", make, call, says, leaves=leaves, halves=dtype, qs=(0,))

    held, coded = stored(dtype), planes(dtype)
    yield door("rounded", held, lambda core, a: core.round_stored(a["sums"], a["held"], dtype=dtype), {"sums": WEIGHTS})
    if dtype != FLOAT32:
        yield door("to storage", held, lambda core, a: core.to_storage(a["held"], a["stored"], dtype=dtype), {"held": WEIGHTS}, "stored")
    if dtype in (FLOAT16, BFLOAT16):
        says: dict[str, str | None] = {"stored": WEIGHTS}
        yield door("from storage", held, lambda core, a: core.from_storage(a["stored"], a["held"], dtype=dtype), says, "held")
    if dtype != INT8:
        out, says = ("changed", "planes", "joined"), {"fresh": WEIGHTS, "parent": None}
        yield door("split", coded, lambda core, a: split(core, a, dtype), says, *out)
        yield door("joined", coded, lambda core, a: joined(core, a, dtype), says, *out)
        yield door("joined, unchanged", coded, lambda core, a: unchanged(core, a, dtype), {"parent": WEIGHTS}, *out)


def read(what: str | None) -> dict[str, str | None]:
    """What a reader says: it looks at base, and writes w without having read it."""
    return {"base": what, "w": None}


def both(what: str | None) -> dict[str, str | None]:
    return {"base": what, "w": what}


# Arrays in which all is sound.


def tensor(n: int, q: int, dtype: int = FLOAT32) -> Arrays:
    """One lattice tensor with the same Q everywhere, trained so that every entry stands out."""
    random = np.random.default_rng(n)
    base = of_type(random.standard_normal(n).astype(np.float32), dtype)
    integers, w = np.full(n, q, np.int32), np.empty_like(base)
    twin.weights_from_q(base, integers, w, exponent=exponent_of(dtype))
    twin.round_stored(w, w, dtype=dtype)
    sign = np.where(random.random(n) < 0.5, -1, 1).astype(np.float32)
    trained = w + sign * np.float32(3 if dtype == INT8 else 0.25)
    residual, left, out = np.full(n, 0x3A80, np.uint16), np.full(n, 7, np.uint16), np.full(n, 7, np.float32)
    return {"base": base, "w": w, "q": integers, "trained": trained, "residual": residual, "left": left, "out": out}


def of_type(x: Any, dtype: int) -> Any:
    """Numbers that the type has, near x."""
    if dtype == FLOAT16:
        return x.astype(np.float16).astype(np.float32)
    if dtype == BFLOAT16:
        return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.clip(np.rint(x * 20), -60, 60).astype(np.float32) + np.float32(0) if dtype == INT8 else x  # int8 has no -0.0


def exponent_of(dtype: int) -> int:
    return 0 if dtype in (INT8, INT32) else -14


SOUND = tensor(FIRST, 3)


def after_a_sound_one(a: Arrays) -> Arrays:
    return a | {f"first {name}": array.copy() for name, array in SOUND.items()}


def verbatim(n: int, q: int, dtype: int) -> Arrays:
    """One verbatim tensor whose bits moved by q."""
    a = tensor(n, 0)
    a["w"].view(np.uint32)[:] += np.uint32(q)
    a["q"][:] = q
    return a | ({name: a[name].view(np.int32) for name in ("base", "w", "trained")} if dtype == INT32 else {})


def candidates(dtype: int) -> Callable[[int, int], Arrays]:
    """What was collected, before something happened to the arrays."""

    def make(n: int, q: int) -> Arrays:
        a = after_a_sound_one(tensor(n, q, dtype))
        for which in ("", "first "):
            d = (a[which + "trained"] - a[which + "w"]) + np.float32(2.0**-10)
            a |= {which + "index": np.arange(len(d), dtype=np.uint32), which + "d": d.view(np.int32)}
        return a

    return make


def section(by: int | None) -> Callable[[int, int], Arrays]:
    """A tensor and a section that moves each entry by so many units; None: back to its base."""

    def make(n: int, q: int) -> Arrays:
        q = q or 5 if by is None else q
        index = np.arange(n if by != 0 else 0, dtype=np.uint32)
        return tensor(n, q) | {"index": index, "value": np.full(len(index), -q if by is None else by, np.int32)}

    return make


def verbatim_section(n: int, q: int) -> Arrays:
    a = verbatim(n, q, FLOAT32)
    bits = {name: a[name].view(np.uint32) for name in ("base", "w")}
    return bits | {"q": a["q"], "to": a["trained"].view(np.uint32)}


def update(dtype: int, kind: int, by: int) -> Callable[[int, int], Arrays]:
    """A model of two tensors and the values by which an update moves them: of a verbatim one, what leads `to` bits."""

    def make(n: int, q: int) -> Arrays:
        a = after_a_sound_one(tensor(n, q, dtype) if kind == LATTICE else verbatim(n, q, dtype))
        a["first value"] = np.where(np.arange(FIRST) % 8, 0, 7).astype(np.int32)
        to = a["w"].copy()
        to.view(np.uint32)[:: n // 4 + 1] += np.uint32(1)
        return a | {"value": np.full(n if by else 0, by, np.int32), "to": to}

    return make


def stored(dtype: int) -> Callable[[int, int], Arrays]:
    def make(n: int, q: int) -> Arrays:
        held = tensor(n, q, dtype)["w"]
        out = np.zeros(n, np.uint8 if dtype == INT8 else np.uint16)
        if dtype != FLOAT32:
            twin.to_storage(held, out, dtype=dtype)
        return {"held": held, "stored": out, "sums": held.copy()}

    return make


def planes(dtype: int) -> Callable[[int, int], Arrays]:
    def make(n: int, q: int) -> Arrays:
        fresh, parent = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
        a: Arrays = {"fresh": fresh, "parent": parent}
        if dtype == FLOAT32:
            a = {name: x.view(np.uint32) for name, x in a.items()}
        elif dtype == FLOAT16:
            a = {name: x.astype(np.float16).view(np.uint16) for name, x in a.items()}
        else:
            a = {name: (x.view(np.uint32) >> 16).astype(np.uint16) for name, x in a.items()}
        width = a["fresh"].itemsize
        changed, coded = np.zeros((n + 7) // 8, np.uint8), np.zeros(n * width, np.uint8)
        return a | {"changed": changed, "planes": coded, "joined": np.zeros_like(a["fresh"])}

    return make


# Calls.


def move_by_section(core: Any, a: Arrays) -> None:
    core.check_lattice(a["base"], a["q"], a["index"], a["value"], exponent=-14, step=1)
    core.apply_lattice(a["base"], a["w"], a["q"], a["index"], a["value"], exponent=-14, step=1)


def move_bits(core: Any, a: Arrays) -> None:
    value = (a["to"] - a["base"] - a["q"].view(np.uint32)).view(np.int32)
    index = np.flatnonzero(value).astype(np.uint32)
    core.check_verbatim(a["base"], a["q"], index, value[index])
    core.apply_verbatim(a["base"], a["w"], a["q"], index, value[index])


def round_of(core: Any, a: Arrays, dtype: int, kind: int = LATTICE) -> Any:
    lists = [[a[f"first {name}"], a[name]] for name in ("base", "w", "q", "trained", "residual", "left")]
    exponents = [-14, exponent_of(dtype)]
    return core.Round(*lists, exponents=exponents, kinds=[LATTICE, kind], dtypes=[FLOAT32, dtype], starts=[START, START + FIRST])


def collected(core: Any, a: Arrays, dtype: int) -> Any:
    """What is known of the largest difference, and of all: how many are kept beside those that were asked for is a kernel's own."""
    index, d, ends, edge, _ = round_of(core, a, dtype).collect(1)
    at = np.abs(d.view(np.float32)).argmax()
    return int(index[at]), int(d[at]), edge, ends[-1] > 0


def adopted(core: Any, a: Arrays, dtype: int, step: int) -> Any:
    index, d = (np.concatenate([a[f"first {name}"], a[name]]) for name in ("index", "d"))
    ends = [FIRST, FIRST + len(a["d"])]
    return round_of(core, a, dtype).adopt(index, d, ends, steps=[96, step], thresholds=[0.01, 0.01])


def stream_to(dtype: int, kind: int, snapshot: bool) -> Callable[[Any, Arrays], Any]:
    def call(core: Any, a: Arrays) -> Any:
        value, exponent = a["value"], exponent_of(dtype) if kind == LATTICE else 0
        if kind == VERBATIM:
            before = np.zeros_like(a["q"]) if snapshot else a["q"]
            value = (a["to"].view(np.uint32) - a["base"].view(np.uint32) - before.view(np.uint32)).view(np.int32)
        parts = [(FIRST, a["first value"], -14), (len(a["base"]), value, exponent)]
        table, sections = b"", []
        for t, (n, values, e) in enumerate(parts):
            index = np.flatnonzero(values).astype(np.uint32)
            if len(index):
                table += ROW.pack(t, 1, 1, 0, e, 0, len(index))
                sections.append((1, n, index, values[index]))
        lists = [[a[f"first {name}"], a[name]] for name in ("base", "w", "q")]
        shapes = [(1, n) for n, _, _ in parts]
        model = core.Model(*lists, dtypes=bytes([FLOAT32, dtype]), kinds=bytes([LATTICE, kind]), shapes=shapes)
        stream = kernel.encode_sections(sections)
        return core.apply_stream(model, [-14, exponent], table, stream, snapshot=snapshot, lanes=(3, 4))

    return call


def split(core: Any, a: Arrays, dtype: int) -> Any:
    return core.split_planes(a["fresh"], a["parent"], a["changed"], a["planes"], infinity=INFINITY[dtype])


def joined(core: Any, a: Arrays, dtype: int) -> None:
    """Join what leads from `parent` to `fresh`, whatever bits those are."""
    infinity, stored_bits = INFINITY[dtype], a["fresh"].dtype
    ordered = np.zeros(len(a["fresh"]), np.int32)
    core.ordered_differences(a["fresh"], a["parent"], ordered, infinity=infinity)
    d = (ordered.view(np.uint32) >> np.uint32(32 - 8 * stored_bits.itemsize)).astype(stored_bits)
    count = core.split_planes(d, None, a["changed"], a["planes"], infinity=0)  # as integers, of which all are numbers
    core.join_planes(a["changed"], a["planes"], a["parent"], a["joined"], count=count, infinity=infinity)


def unchanged(core: Any, a: Arrays, dtype: int) -> None:
    core.join_planes(a["changed"], a["planes"], a["parent"], a["joined"], count=0, infinity=INFINITY[dtype])


def float_bits(x: float) -> int:
    """A float's bits but the one by which a NaN is quiet: a double may quiet it."""
    return int(np.float32(x).view(np.uint32)) & 0x7FBFFFFF
