"""An update is applied whole or not at all while its stream is read: the kernel against its twin, and every bit back on a fault."""

from __future__ import annotations

import struct
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import _core, errors
from modelwire import _reference as twin
from modelwire._core import kernel
from modelwire.lattice.rebuild import apply_many, rebuild
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.container import Container, parse
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section
from tests.keys import NO_FILE
from tests.modelwire.models import model, sealed

FLOAT32, FLOAT16, BFLOAT16, INT8, INT32 = 1, 2, 3, 4, 5
LATTICE, VERBATIM = 0, 1
ROW = struct.Struct("<HBBBbHI")
SORTS = [
    (LATTICE, FLOAT32), (LATTICE, FLOAT16), (LATTICE, BFLOAT16), (LATTICE, INT8),
    (VERBATIM, FLOAT32), (VERBATIM, FLOAT16), (VERBATIM, INT32),
]  # fmt: skip


@dataclass
class Arrays:
    """A model as bare arrays, and an update as its coded parts."""

    base: list[Any]
    w: list[Any]
    q: list[Any]
    kinds: bytes
    dtypes: bytes
    shapes: list[tuple[int, int]]
    exponents: list[int]
    table: bytes = b""
    stream: bytes = b""
    lanes: tuple[int, int] = (0, 0)

    def model(self, core: Any) -> Any:
        return core.Model(self.base, self.w, self.q, dtypes=self.dtypes, kinds=self.kinds, shapes=self.shapes)

    def copy(self) -> Arrays:
        return replace(self, w=[w.copy() for w in self.w], q=[q.copy() for q in self.q])

    def bits(self) -> list[bytes]:
        return [a.tobytes() for a in (*self.w, *self.q)]

    def apply(self, core: Any, *, snapshot: bool, expect: tuple[int, int] | None = None, counted: Any = None) -> Any:
        """Return the lanes, or what was raised."""
        try:
            return core.apply_stream(
                self.model(core), self.exponents, self.table, self.stream, snapshot=snapshot, lanes=self.lanes, expect=expect,
                counted=counted,
            )  # fmt: skip
        except errors.ModelWireError as error:
            return type(error), error.facts


@st.composite
def updates(draw: st.DrawFn) -> Arrays:
    """Draw a model at its base, and an update of it that may be too much for it."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    a = Arrays([], [], [], b"", b"", [], [])
    coded = []
    for t in range(draw(st.integers(1, 3))):
        kind, dtype = draw(st.sampled_from(SORTS))
        rows, columns = draw(st.sampled_from([(1, 1), (3, 5), (2, 40), (7, 11)]))
        n = rows * columns
        peak = draw(st.sampled_from([1e-3, 1.0, 1e30, 3e38])) if dtype in (FLOAT32, BFLOAT16) else 60.0
        base = (rng.standard_normal(n) * peak / 3).clip(-peak, peak).astype(np.float32)
        if dtype == INT32:
            base = rng.integers(-(1 << 31), 1 << 31, n).astype(np.int32)
        elif dtype == FLOAT16:
            base = base.astype(np.float16).astype(np.float32)
        elif dtype == BFLOAT16:
            base = (base.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        elif dtype == INT8:
            base = np.rint(base)
        exponent = 0 if kind == VERBATIM or dtype == INT8 else draw(st.sampled_from([-14, -96, 90]))
        a.base.append(base)
        a.w.append(base.copy())
        a.q.append(np.zeros(n, np.int32))
        a.kinds += bytes([kind])
        a.dtypes += bytes([dtype])
        a.shapes.append((rows, columns))
        a.exponents.append(exponent)
        largest = draw(st.sampled_from([1, 30, 1 << 13, 1 << 22, (1 << 31) - 1]))
        index = np.flatnonzero(rng.random(n) < draw(st.sampled_from([0.05, 0.5, 1.0]))).astype(np.uint32)
        value = (rng.integers(1, largest, len(index), endpoint=True) * rng.choice([-1, 1], len(index))).astype(np.int32)
        if len(index):
            m = 1 if kind == VERBATIM or dtype == INT8 else draw(st.sampled_from([1, 3, 255]))
            a.table += ROW.pack(t, 1, m, 0, exponent, 0, len(index))
            coded.append((rows, columns, index, value))
    a.stream = twin.encode_sections(coded)
    return a


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Arrays, tuple[int, int] | None]:
    """Draw an update and, now and then, damage to its stream, its table or its fingerprint."""
    a = draw(updates())
    what = draw(st.sampled_from(["nothing", "byte", "end", "longer", "table", "fingerprint"]))
    if what == "byte" and a.stream:
        at = draw(st.integers(0, len(a.stream) - 1))
        a.stream = a.stream[:at] + bytes([a.stream[at] ^ draw(st.integers(1, 255))]) + a.stream[at + 1 :]
    elif what == "end":
        a.stream = a.stream[: draw(st.integers(0, len(a.stream)))]
    elif what == "longer":
        a.stream += draw(st.binary(min_size=1, max_size=3))
    elif what == "table" and a.table:
        at = draw(st.integers(0, len(a.table) - 1))
        a.table = a.table[:at] + bytes([draw(st.integers(0, 255))]) + a.table[at + 1 :]
    return a, draw(st.sampled_from([(0, 0), (1, 2)])) if what == "fingerprint" else None


@pytest.mark.slow("applies some hundred updates in C and in numpy")
@settings(max_examples=300)
@given(damaged(), st.booleans())
def test_the_kernel_and_its_twin_agree_and_a_refusal_leaves_every_bit(drawn: Any, snapshot: bool) -> None:
    a, expect = drawn
    mine, theirs = a.copy(), a.copy()
    before = a.bits()
    codes, factors = counting(a)
    sums = [np.arange(256, dtype=np.uint32) << np.uint32(24) for _ in range(2)]
    result = mine.apply(kernel, snapshot=snapshot, expect=expect, counted=(codes, factors, sums[0]))
    assert result == theirs.apply(twin, snapshot=snapshot, expect=expect, counted=(codes, factors, sums[1]))
    assert mine.bits() == theirs.bits()
    if isinstance(result[0], type):
        assert mine.bits() == before
    else:
        assert (sums[0] == sums[1]).all()


def counting(a: Arrays) -> tuple[Any, Any]:
    """Return a code for each entry of a model, some of them with bits that mean nothing, and a factor for each of its tensors."""
    rng = np.random.default_rng(len(a.stream))
    codes = rng.integers(0, 1 << 11, sum(len(b) for b in a.base)).astype(np.uint16)
    return codes, rng.choice(np.array([0, 1, 8, 1 << 31, 0xFFFFFFFF], np.uint32), len(a.base))


@given(updates(), st.booleans())
def test_sums_grow_with_each_entry_by_sign_factor_and_step(a: Arrays, snapshot: bool) -> None:
    codes, factors = counting(a)
    for core in (kernel, twin):
        mine, sums = a.copy(), np.zeros(256, np.uint32)
        if isinstance(mine.apply(core, snapshot=snapshot, counted=(codes, factors, sums))[0], type):
            continue
        wanted, start = [0] * 256, 0
        for q, factor in zip(mine.q, factors.tolist(), strict=True):
            for i, moved in enumerate(q.tolist()):
                code = int(codes[start + i])  # from the base: what was moved is Q
                wanted[code % 256] += moved * factor * (-1 if code & 256 else 1)
            start += len(q)
        assert sums.tolist() == [x % (1 << 32) for x in wanted]


@pytest.mark.parametrize(("place", "wrong"), [
    (0, np.zeros(9, np.uint16)), (0, np.zeros(64, np.uint32)), (1, np.zeros(2, np.uint32)), (1, np.zeros(1, np.int64)),
    (2, np.zeros(255, np.uint32)), (2, np.zeros(256, np.int64)), (2, b"x" * 1024),
])  # fmt: skip
def test_sums_of_another_length_or_type_are_refused(place: int, wrong: Any) -> None:
    a, _, _ = big(64, 3)
    counted: list[Any] = [np.zeros(64, np.uint16), np.ones(1, np.uint32), np.zeros(256, np.uint32)]
    counted[place] = wrong
    before = a.bits()
    for core in (kernel, twin):
        assert a.apply(core, snapshot=False, counted=tuple(counted))[0] is errors.KernelError and a.bits() == before


@settings(max_examples=150)
@given(updates(), st.data())
def test_a_fault_on_a_moved_model_gives_its_old_bits_back(a: Arrays, data: st.DataObject) -> None:
    start = a.apply(kernel, snapshot=False)
    if isinstance(start[0], type):
        return
    a.lanes = start
    moved = a.bits()
    wrong = (start[0] + 1, start[1])
    cut = replace(a, stream=a.stream[: data.draw(st.integers(0, len(a.stream)))])
    for snapshot in (False, True):
        for bad in (a, cut):  # a second time the update may also be too much
            assert isinstance(bad.apply(kernel, snapshot=snapshot, expect=wrong)[0], type)
            assert a.bits() == moved
    assert a.apply(kernel, snapshot=True, expect=wrong)[0] is errors.RootMismatch
    assert a.apply(kernel, snapshot=True, expect=start) == start  # the same update from the base gives the same model
    assert a.bits() == moved


def test_a_table_is_sound_in_its_one_form_alone() -> None:
    good = ROW.pack(0, 1, 3, 2, -14, 0, 5)
    cases = {
        good: True, good + ROW.pack(1, 1, 1, 0, 0, 0, 1): True, good + good: False, good[:-1]: False, b"": True,
        ROW.pack(0, 2, 3, 2, -14, 0, 5): False, ROW.pack(0, 1, 2, 2, -14, 0, 5): False, ROW.pack(0, 1, 3, 23, -14, 0, 5): False,
        ROW.pack(0, 1, 3, 2, 101, 0, 5): False, ROW.pack(0, 1, 3, 2, -14, 1, 5): False, ROW.pack(0, 1, 3, 2, -14, 0, 0): False,
    }  # fmt: skip
    for core in (kernel, twin):
        assert {t: core.check_table(t, snapshot=False) for t in cases} == cases
        assert core.check_table(ROW.pack(0, 1, 1, 0, 5, 0, 0), snapshot=True)
        assert not core.check_table(ROW.pack(0, 1, 1, 0, 5, 0, 0), snapshot=False)


def big(n: int, seed: int) -> tuple[Arrays, Any, Any]:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(n).astype(np.float32)
    index = np.flatnonzero(rng.random(n) < 0.5).astype(np.uint32)
    value = rng.choice([-2, -1, 1, 2], len(index)).astype(np.int32)
    a = Arrays([base], [base.copy()], [np.zeros(n, np.int32)], b"\0", b"\1", [(n // 64, 64)], [-14])
    a.table = ROW.pack(0, 1, 1, 0, -14, 0, len(index))
    a.stream = kernel.encode_sections([(n // 64, 64, index, value)])
    return a, index, value


def test_a_stream_that_changes_while_it_is_read_is_told_from_a_bad_one() -> None:
    a, _, _ = big(64 * 16384, 1)
    stream, said = bytearray(a.stream), []

    def progress(read: int) -> None:
        said.append(read)
        if len(said) == 1:
            stream[100:200] = bytes(100)  # what was read already: the way back is lost

    with pytest.raises(errors.KernelError, match="changed while it was applied"):
        kernel.apply_stream(a.model(kernel), [-14], a.table, stream, snapshot=False, lanes=(0, 0), expect=(1, 1), progress=progress)
    assert 0 < said[0] < len(stream)


def test_progress_rises_and_the_result_is_the_formula_s() -> None:
    a, index, value = big(64 * 20000, 2)
    said: list[int] = []
    lanes = kernel.apply_stream(a.model(kernel), [-14], a.table, a.stream, snapshot=False, lanes=(5, 6), progress=said.append)
    assert len(said) >= 2 and said == sorted(said) and said[-1] <= len(a.stream)
    assert np.array_equal(a.q[0][index], value) and np.count_nonzero(a.q[0]) == len(index)
    change = kernel.fingerprint_sparse(index, value, step=1, start=0, verbatim=False)
    assert lanes == ((change[0] + 5) % 2**64, (change[1] + 6) % 2**64)
    expected = a.base[0].copy()
    expected[index] += value.astype(np.float32) * np.float32(2.0**-14)
    assert np.array_equal(a.w[0], expected)


# Whole models and containers.


def chain(seed: int, links: int) -> tuple[ModelState, list[Container], list[ModelState]]:
    """Return a base's state, containers one after the other, a snapshot among them, and the states after each."""
    manifest, base = model(seed)
    rng = np.random.default_rng(seed)
    start = ModelState.of_base(manifest, base)
    state, residual, made, states = start, no_residual(manifest), [], []
    for link in range(links):
        trained = [w + rng.standard_normal(len(w)).astype(np.float32) * np.float32(1e-2) for w in state.weights]
        snapped = snap(state.copy(), trained, residual, density=0.2, max_bytes=1 << 20)
        state, residual = snapped.state.copy(), snapped.residual
        kind, sections = (Kind.SNAPSHOT, state.snapshot()) if link == 2 else (snapped.kind, snapped.sections)
        made.append(parse(sealed(state, sections, kind=kind, version=link + 1)))
        states.append(state)
    return start, made, states


def bits(state: ModelState) -> list[bytes]:
    return [a.tobytes() for a in (*state.weights, *state.integers)]


def test_a_chain_in_place_is_the_links_one_by_one() -> None:
    start, made, states = chain(1, 5)
    one_by_one = start
    for update, expected in zip(made, states, strict=True):
        before = bits(one_by_one)
        after = rebuild(one_by_one, update)
        assert bits(one_by_one) == before
        one_by_one = after
        assert bits(one_by_one) == bits(expected) and one_by_one.fingerprint == expected.fingerprint
    at_once = start.at_base()
    assert apply_many(at_once, made) == 5
    assert bits(at_once) == bits(one_by_one) and at_once.exponents == one_by_one.exponents
    assert all(a is b for a, b in zip(at_once.base, start.base, strict=True))


def test_a_broken_chain_stops_behind_its_last_good_link_and_says_where() -> None:
    start, made, states = chain(2, 5)
    bad = replace(made[3], header=replace(made[3].header, fingerprint=(1, 1)))
    state = start.at_base()
    with pytest.raises(errors.RootMismatch) as raised:
        apply_many(state, [*made[:3], bad, made[4]])
    assert raised.value.facts["link"] == 3
    assert bits(state) == bits(states[2]) and state.fingerprint == states[2].fingerprint
    assert apply_many(state, made[3:]) == 2
    assert bits(state) == bits(states[4])


def test_a_snapshot_that_is_refused_leaves_a_moved_state_as_it_was() -> None:
    start, made, _ = chain(3, 4)
    state = start.at_base()
    apply_many(state, made[:2])
    before = bits(state), state.fingerprint, list(state.exponents)
    for bad in (
        replace(made[2], header=replace(made[2].header, fingerprint=(1, 1))),
        replace(made[2], stream=made[2].stream[:-1]),
        replace(made[2], stream=memoryview(bytes(made[2].stream) + b"\1")),
    ):
        with pytest.raises(errors.WireError):
            state.apply_container(bad)
        assert (bits(state), state.fingerprint, list(state.exponents)) == before


def test_an_array_that_was_replaced_is_taken_anew() -> None:
    start, made, states = chain(4, 2)
    state = start.at_base()
    state.apply_container(made[0])
    state.weights[2], state.integers[2] = state.weights[2].copy(), state.integers[2].copy()
    state.apply_container(made[1])
    assert bits(state) == bits(states[1])


def large(seed: int, n: int = 1 << 20) -> tuple[ModelState, bytes, ModelState]:
    """Return a state, a sealed update of 1 % of its weights, and the state after it."""
    rng = np.random.default_rng(seed)
    schema = Schema((TensorSpec("kernel", (n // 1024, 1024)),))
    base = [rng.standard_normal(n).astype(np.float32)]
    state = ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={}), base)
    index = np.flatnonzero(rng.random(n) < 0.01).astype(np.uint32)
    value = rng.choice([-1, 1], len(index)).astype(np.int32)
    after = state.copy()
    section = Section(0, index, value, 96, state.exponents[0])
    after.apply(Kind.DELTA, (section,))
    return state, sealed(after, (section,)), after


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the numpy twin works on whole arrays")
def test_applying_takes_no_more_memory_than_the_container() -> None:
    state, body, after = large(5)
    state.copy().apply_container(parse(body))  # what is made once, as the import of a module
    state.weights[0][0] += 0  # touched
    tracemalloc.start()
    try:
        state.apply_container(parse(body))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= len(body) + 64 * 1024
    assert bits(state) == bits(after)


def test_two_threads_on_two_states_give_what_one_gives() -> None:
    made = [large(seed, 1 << 18) for seed in (6, 7)]
    gate = threading.Barrier(2)

    def work(state: ModelState, body: bytes) -> list[bytes]:
        gate.wait(300)
        for _ in range(20):
            mine = state.at_base()
            mine.apply_container(parse(body))
        return bits(mine)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(work, *zip(*((state, body) for state, body, _ in made), strict=True)))
    assert results == [bits(after) for _, _, after in made]
