"""Negative vectors of what an update comes to: range, numbers, fingerprint, root. C101 to C106 of docs/format/container.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from modelwire import limits
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section
from tests.hostile.mutations import Open, Row, flip
from tests.keys import NO_FILE

from .container_cases import Case, coded, counted, on, root_of, stored_at, update
from .container_layout import EXACT, MIXED, RECIPES, UPDATES, case, good, sections_of


def told(state: ModelState, section: Section, *, snapshot: bool = False) -> Open:
    """Return an update of one tensor that no state takes, with the fingerprint that it gives."""
    o = update(state, Kind.SNAPSHOT if snapshot else Kind.DELTA, [])
    start = state.at_base() if snapshot else state
    m, j = section.step, 0
    while m % 2 == 0:
        m, j = m // 2, j + 1
    row = Row(section.tensor, 1, m, j, section.exponent, 0, section.count)
    return counted(start, replace(o, rows=(row,), stream=coded(state.manifest.schema, [section])), [section])


def in_range() -> Iterator[Case]:
    base, mixed = stored_at("updates"), stored_at("mixed")
    end = limits.Q_MAX
    for value in (end + 1, -end - 1):
        yield case("C101", f"{value}", told(base, sections_of(base, 2, {7: value})), "RangeOverflow")
    yield case("C101", "in a snapshot", told(base, sections_of(base, 2, {7: end + 1}), snapshot=True), "RangeOverflow")
    yield case("C101", "by the step", told(base, sections_of(base, 2, {7: 1 << 15}, step=255 << 8)), "RangeOverflow")
    widest = sections_of(base, 2, {0: -(1 << 31), 1479: (1 << 31) - 1}, step=255 << 22)
    yield case("C101", "in 64 bits alone", told(base, widest), "RangeOverflow")
    wraps = sections_of(base, 2, {0: 1 << 30}, step=4)  # 2^32, which is 0 in 32 bits
    yield case("C101", "nothing in 32 bits", told(base, wraps), "RangeOverflow")
    moved, held = stored_at("updates", "1-delta"), on("updates", "1-delta")
    up, down = (int(np.flatnonzero(moved.integers[2] * sign > 0)[0]) for sign in (1, -1))
    yield case("C101", "with what the parent has", told(moved, sections_of(moved, 2, {up: end})), "RangeOverflow", held)
    yield case("C101", "below zero with what the parent has", told(moved, sections_of(moved, 2, {down: -end})), "RangeOverflow", held)
    for name in ("b16", "f16", "f32"):
        tensor = mixed.manifest.schema.index(name)
        yield case(
            "C101",
            f"{mixed.manifest.schema.tensors[tensor].dtype.name}",
            told(mixed, sections_of(mixed, tensor, {7: end + 1})),
            "RangeOverflow",
            MIXED,
        )
    codes = mixed.manifest.schema.index("codes")
    for code in (128, -128, 1000):
        away = code - int(mixed.weights[codes][4])
        yield case("C102", f"{code}", told(mixed, sections_of(mixed, codes, {4: away})), "RangeOverflow", MIXED)
    away = -128 - int(mixed.base[codes][4])
    yield case("C102", "in a snapshot", told(mixed, sections_of(mixed, codes, {4: away}), snapshot=True), "RangeOverflow", MIXED)


def halves() -> ModelState:
    """Return a base of float16 with units of 1: from 0, Q is the weight."""
    base = [np.array([0, 1, -2, 0.5], np.float32)]
    schema = Schema((TensorSpec("head", (4,), Dtype.FLOAT16),))
    return ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={"head": 0}), base)


def in_numbers() -> Iterator[Case]:
    state = halves()
    held = {"manifest": state.manifest.encode().hex(), "weights": np.array([0, 1, -2, 0.5], "<f2").tobytes().hex()}
    # 65,519 is the last that rounds to 65,504; 65,520 lies half way and goes to the even one, which is infinite.
    for name, entry, value in (("65520", 0, 65520), ("minus 65520", 0, -65520), ("from 1", 1, 65519), ("far", 2, 1 << 20)):
        section = sections_of(state, 0, {entry: value})
        yield case("C103", name, told(state, section), "NonFinite", held)
        yield case("C103", f"{name} in a snapshot", told(state, section, snapshot=True), "NonFinite", held)
    wide = Section(0, np.array([0], np.uint32), np.array([1], np.int32), 1, 16)
    yield case("C103", "in another unit", told(state, wide, snapshot=True), "NonFinite", held)
    base = stored_at("updates")
    before = int(base.weights[0].view(np.uint32)[3])
    bits = {"infinity": 0x7F800000, "minus infinity": 0xFF800000, "NaN": 0x7FC00000, "a signalling NaN": 0x7F800001, "all ones": 0xFFFFFFFF}
    for name, after in bits.items():
        for snapshot in (False, True):
            difference = (after - before + (1 << 31)) % (1 << 32) - (1 << 31)
            stored = [w.tobytes() for w in base.weights]
            stored[0] = stored[0][:12] + struct.pack("<I", after) + stored[0][16:]
            root = root_of(base.manifest.schema, stored, base.exponents, {})
            o = replace(told(base, sections_of(base, 0, {3: difference}), snapshot=snapshot), root=root)
            yield case("C104", f"{name}{' in a snapshot' if snapshot else ''}", o, "NonFinite")


def in_proofs() -> Iterator[Case]:
    of = {
        "a delta": (good("updates", "1-delta"), UPDATES), "a snapshot": (good("updates", "7-snapshot"), on("updates", "6-snapshot")),
        "an exact update": (good("exact", "1-exact"), EXACT), "of every class": (good("mixed", "1-delta"), MIXED),
        "a snapshot of planes": (good("exact", "4-snapshot"), on("exact", "3-exact")), "a recipe": (good("recipe-updates",
        "1-sgd-int8"), RECIPES),
    }  # fmt: skip
    for name, (o, held) in of.items():
        error = "ReplayMismatch" if name == "a recipe" else "RootMismatch"
        rule = "C106" if name == "a recipe" else "C105"  # of a recipe C106 is about both
        for lane, at in (("lane 0", 0), ("lane 1", 15)):
            yield case(rule, f"{name} {lane}", replace(o, fingerprint=flip(o.fingerprint, at)), error, held)
        yield case("C106", f"{name} another bit", replace(o, root=flip(o.root, 31)), error, held)
    o = good("updates", "1-delta")
    yield case("C105", "lanes in the other order", replace(o, fingerprint=o.fingerprint[8:] + o.fingerprint[:8]), "RootMismatch")
    whole = stored_at("updates", "1-delta").root_parts
    yield case("C106", "the weights node", replace(o, root=whole.weights), "RootMismatch")
    yield case("C106", "units of zeros", replace(o, root=replace(whole, units=(0,) * len(whole.units)).root), "RootMismatch")
    mixed = stored_at("mixed", "1-delta").root_parts
    unmoved = replace(mixed, integers=stored_at("mixed").root_parts.integers)
    yield case("C106", "Q of the base", replace(good("mixed", "1-delta"), root=unmoved.root), "RootMismatch", MIXED)
    moved = good("updates", "2-delta")
    yield case("C105", "a delta on another state than its parent's", moved, "RootMismatch")


def cases() -> Iterator[Case]:
    for part in (in_range, in_numbers, in_proofs):
        yield from part()
