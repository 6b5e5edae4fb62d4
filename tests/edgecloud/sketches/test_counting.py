"""A sketch adds as the lattice does: over every class of tensor, steps, snapshots, wider units, squashes, roll-backs, and overflow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.sketches import counting, measuring
from modelwire.errors import Malformed, WrongBase
from modelwire.lattice.between import difference
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorClass, TensorSpec
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Kind, Section, Sections, add, invert, section_of, sparse

SCHEMA = Schema(
    (
        TensorSpec("bias", (7,)),
        TensorSpec("codes", (40, 5), Dtype.INT8),
        TensorSpec("half", (33,), Dtype.FLOAT16),
        TensorSpec("kernel", (30, 20)),
        TensorSpec("moving_mean", (20,)),
        TensorSpec("short", (9, 3), Dtype.BFLOAT16),
        TensorSpec("whole", (3,), Dtype.INT32),
    )
)
NO_FILE = {"file_sha256": bytes(32), "file_size": 1, "file_tree": bytes(32)}
LATTICE = [t for t in range(7) if SCHEMA.tensors[t].name not in ("moving_mean", "whole")]


def base(seed: int = 0, *, exact: bool = False) -> ModelState:
    rng = np.random.default_rng(seed)
    flat = []
    for t in SCHEMA.tensors:
        if t.dtype in (Dtype.INT8, Dtype.INT32):
            flat.append(rng.integers(-20, 20, t.size).astype(t.dtype.held))
        else:
            flat.append((rng.integers(-64, 64, t.size) / 64).astype(np.float32))
    return ModelState.of_base(manifest_for(SCHEMA, flat, **NO_FILE, exponents={}, exact=exact), flat)


def update(state: ModelState, seed: int) -> Sections:
    """Return a delta that `state` takes: some entries of some tensors of each class."""
    rng = np.random.default_rng(seed)
    out: list[Section] = []
    for t, spec in enumerate(SCHEMA.tensors):
        index = np.flatnonzero(rng.random(spec.size) < 0.3).astype(np.uint32)
        if not len(index) or rng.random() < 0.2:
            continue
        dq = rng.integers(-3, 4, len(index)) * (1 if spec.dtype is Dtype.INT8 else int(rng.choice([1, 3, 8])))
        if state.manifest.verbatim(t):
            if spec.dtype is Dtype.INT32:
                out.append(Section(t, index, np.ones(len(index), np.int32), 1, 0))
            continue
        section = section_of(t, dq.astype(np.int64), state.exponents[t], index=index)
        out += [section] if section is not None else []
    return tuple(out)


def slowly(state: ModelState) -> list[int]:
    """Return the sketch by its definition, in Python's integers."""
    mask, seed = (1 << 64) - 1, int.from_bytes(SCHEMA.id[:8], "little")
    total = [0] * 256
    for t, spec in enumerate(SCHEMA.tensors):
        if state.manifest.classes[t] is not TensorClass.LATTICE:
            continue
        for i, q in enumerate(state.integers[t].tolist()):
            x = (seed + (SCHEMA.starts[t] + i + 1) * 0x9E3779B97F4A7C15) & mask
            x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
            x ^= x >> 31
            sign = -1 if x >> 63 else 1
            unit = 2 ** (state.exponents[t] - state.manifest.exponents[t]) * (128 if spec.dtype is Dtype.INT8 else 1)
            total[(x >> 55) & 255] += sign * q * unit
    return [(x + (1 << 31)) % (1 << 32) - (1 << 31) for x in total]


def walked(seeds: list[int]) -> tuple[ModelState, list[Sections]]:
    state, updates = base(), []
    for seed in seeds:
        updates.append(update(state, seed))
        state.apply(Kind.DELTA, updates[-1])
    return state, updates


@given(st.lists(st.integers(0, 1 << 30), min_size=0, max_size=6))
def test_the_sketch_of_a_state_is_the_sum_of_its_updates(seeds: list[int]) -> None:
    state, updates = walked(seeds)
    manifest = state.manifest
    whole = counting.of_state(state)
    assert whole.tolist() == slowly(state)
    sketches = [counting.of_sections(manifest, one) for one in updates]
    assert (counting.add(*sketches) == whole).all()
    assert (counting.of_sections(manifest, state.snapshot()) == whole).all()
    if len(updates) > 1:
        squashed = updates[0]
        for one in updates[1:]:
            squashed = add(squashed, one, manifest)
        assert (counting.of_sections(manifest, squashed) == whole).all()
        back = counting.of_sections(manifest, invert(updates[-1]))
        assert (back == counting.negate(sketches[-1])).all()
        before, _ = walked(seeds[:-1])
        assert (counting.add(whole, back) == counting.of_state(before)).all()  # a roll-back
        assert (counting.of_sections(manifest, difference(state, before)) == back).all()


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=3), st.integers(0, 9))
def test_units_that_a_snapshot_widens_count_as_many_times(seeds: list[int], by: int) -> None:
    state, _ = walked(seeds)
    wide = state.copy()
    kernel = SCHEMA.index("kernel")
    sections = [s for s in state.snapshot() if s.tensor != kernel]
    q = (state.integers[kernel] >> by).astype(np.int64)
    coarser = section_of(kernel, q, state.exponents[kernel] + by) or Section(
        kernel, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, state.exponents[kernel] + by
    )
    sections = sorted([*sections, coarser] if len(coarser.index) or by else sections, key=lambda s: s.tensor)
    wide.apply(Kind.SNAPSHOT, sections)
    assert wide.exponents[kernel] == state.exponents[kernel] + by
    assert counting.of_state(wide).tolist() == slowly(wide)
    assert (counting.of_sections(state.manifest, sections) == counting.of_state(wide)).all()
    before = counting.of_state(wide)
    further = update(wide, seeds[0])
    wide.apply(Kind.DELTA, further)
    assert (counting.add(before, counting.of_sections(state.manifest, further)) == counting.of_state(wide)).all()


def test_what_overflows_wraps_and_still_adds() -> None:
    manifest = base().manifest
    kernel = SCHEMA.index("kernel")
    index = np.arange(600, dtype=np.uint32)
    for value, step in ((2**31 - 1, 255 << 23), (-(2**31), 1 << 23), (2**31 - 1, 1)):
        high = Section(kernel, index, np.full(600, value, np.int32), step, manifest.exponents[kernel] + 90)
        one = Section(kernel, index, np.full(600, value, np.int32), step, manifest.exponents[kernel])
        assert not counting.of_sections(manifest, [high]).any()  # 2^90 units are 0 mod 2^32
        twice = counting.add(counting.of_sections(manifest, [one]), counting.of_sections(manifest, [one]))
        assert (counting.add(twice, counting.negate(twice)) == 0).all()
        double = Section(kernel, index, np.full(600, value, np.int32), 2 * step, manifest.exponents[kernel])
        assert (counting.of_sections(manifest, [double]) == twice).all()


def test_verbatim_exact_and_finer_tensors_are_not_in_it() -> None:
    state = base()
    manifest = state.manifest
    assert counting.on_lattice(manifest) == sum(SCHEMA.tensors[t].size for t in LATTICE)
    for t in range(7):
        section = Section(t, np.array([0], np.uint32), np.array([1], np.int32), 1, manifest.exponents[t])
        assert counting.of_sections(manifest, [section]).any() == (t in LATTICE)
    finer = Section(3, np.array([0], np.uint32), np.array([4], np.int32), 1, manifest.exponents[3] - 1)
    assert not counting.of_sections(manifest, [finer]).any()
    exact = base(exact=True)
    assert counting.on_lattice(exact.manifest) == 0 and not counting.of_state(exact).any()


def test_a_schema_too_large_for_a_table_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    state, updates = walked([1, 2])
    whole, one = counting.of_state(state), counting.of_sections(state.manifest, updates[0])
    monkeypatch.setattr(counting, "KEPT_BYTES", 10)
    monkeypatch.setattr(counting, "_TABLES", counting._Tables())
    assert (counting.of_state(state) == whole).all() and (counting.of_sections(state.manifest, updates[0]) == one).all()


def test_tables_beyond_the_room_go_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = counting._Tables()
    monkeypatch.setattr(counting, "KEPT_BYTES", 2100)
    schemas = [Schema((TensorSpec(name, (500,)),)) for name in ("a", "b", "c")]
    first, _, again, third = (tables.of(one) for one in (schemas[0], schemas[1], schemas[0], schemas[2]))
    assert first is not None and again is first and list(tables._kept) == [schemas[0].id, schemas[2].id]
    assert third is not None and (first != third).any()  # another schema, another hash


def test_a_sketch_is_stored_as_1024_bytes() -> None:
    state, _ = walked([5])
    sketch = counting.of_state(state)
    assert len(counting.encode(sketch)) == 1024 and (counting.decode(counting.encode(sketch)) == sketch).all()
    with pytest.raises(Malformed, match="1023 bytes"):
        counting.decode(bytes(1023))


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_the_distance_is_exact_in_any_units(first: int, second: int) -> None:
    a, b = walked([first])[0], walked([second])[0]
    kernel = SCHEMA.index("kernel")
    wide = sparse(b.snapshot())
    wide = [s if s.tensor != kernel else Section(kernel, s.index, s.value, s.step, s.exponent + 2) for s in wide]
    b.apply(Kind.SNAPSHOT, wide)  # another model: 4 times as far in this tensor
    total = 0
    for t in LATTICE:
        unit = 128 if SCHEMA.tensors[t].dtype is Dtype.INT8 else 1
        x, y = (s.integers[t].astype(object) * 2 ** (s.exponents[t] - s.manifest.exponents[t]) for s in (a, b))
        total += sum(((x - y) * unit) ** 2)
    found = measuring.apart(a, b)
    assert found.squared == total and found == measuring.apart(b, a)
    assert measuring.apart(a, a).changed == 0 and measuring.apart(a, a).distance == 0


def test_distances_of_large_numbers_do_not_overflow() -> None:
    a = np.array([2**31 - 1, 5], np.int32)
    b = np.array([-(2**31), 5], np.int32)
    assert measuring._squares(a, 0, b, 0) == ((2**32 - 1) ** 2, 1)
    assert measuring._squares(a, 40, b, 3) == (((2**31 - 1) * 2**40 + 2**34) ** 2 + (5 * 2**40 - 40) ** 2, 2)
    assert measuring._squares(a, 2, a, 0)[1] == 2


def test_squares_are_exact_on_both_sides_of_what_a_float64_holds() -> None:
    nothing = np.zeros(70_000, np.int32)
    for peak in (1, 363, 364, 2**18, 2**23 - 1, 2**26 + 1, 94_906_265, 94_906_267, 2**31 - 1):
        for count in (1, 3, 65_537, 70_000):
            q = nothing.copy()
            q[:count] = peak - np.arange(count) % 2
            d = [int(x) for x in q[:count]]
            wanted = sum(x * x for x in d), sum(x != 0 for x in d)
            assert measuring._squares(q, 0, nothing, 0) == measuring._squares(nothing, 0, q, 0) == wanted
            assert measuring._squares(q, 3, nothing, 3) == (64 * wanted[0], wanted[1])


def test_models_of_two_bases_have_no_distance() -> None:
    with pytest.raises(WrongBase):
        measuring.apart(base(0), base(1))


def test_a_sketch_estimates_the_distance() -> None:
    near, far = walked([1, 2]), walked([8, 9, 10])
    real = measuring.apart(near[0], far[0]).distance
    sketches = np.stack([counting.of_state(near[0]), counting.of_state(far[0])])
    guessed = counting.distances(sketches, sketches[1])
    assert guessed[1] == 0 and 0.75 < guessed[0] / real < 1.25


def test_a_manifest_without_a_lattice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest: Manifest = base(exact=True).manifest
    assert manifest.all_exact and counting.shift_of(base().manifest, SCHEMA.index("codes"), 0) == 7
