"""A merge is the exact mean: any order gives the same bits, and the bits are those of whole numbers and one rounding."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.merging.averaging import WEIGHTS_BELOW, LatticeMean
from edgecloud.merging.exact_sums import ExactSums
from modelwire import limits, storage
from modelwire.errors import BadArgument, WrongBase
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind, Section, section_of
from tests.keys import NO_FILE

SCHEMA = Schema(
    (
        TensorSpec("b16", (5, 6), Dtype.BFLOAT16),
        TensorSpec("bias", (9,), Dtype.INT32),
        TensorSpec("codes", (7, 8), Dtype.INT8),
        TensorSpec("f16", (5, 6), Dtype.FLOAT16),
        TensorSpec("f32", (5, 6)),
        TensorSpec("moving_mean_1", (3,), Dtype.FLOAT16),
        TensorSpec("moving_variance", (6,)),
    )
)
F32, F16, CODES = SCHEMA.index("f32"), SCHEMA.index("f16"), SCHEMA.index("codes")


def flat(seed: int) -> list[Any]:
    rng, out = np.random.default_rng(seed), list[Any]()
    for t in SCHEMA.tensors:
        if t.dtype is Dtype.INT32:
            out.append(rng.integers(-(1 << 31), 1 << 31, t.size, np.int64).astype(np.int32))
        elif t.dtype is Dtype.INT8:
            out.append(rng.integers(-127, 128, t.size).astype(np.float32))
        else:
            out.append(storage.rounded(t.dtype, rng.standard_normal(t.size).astype(np.float32)))
    return out


def base_of(seed: int = 0, *, exact: bool = False) -> ModelState:
    held = flat(seed)
    return ModelState.of_base(manifest_for(SCHEMA, held, **NO_FILE, exponents={}, exact=exact), held)


def moved(base: ModelState, seed: int, *, widened: int = 0) -> ModelState:
    """Return a version of the base somewhere on its lattice. widened: how often the unit of f32 is 8 times as large."""
    rng, state, sections = np.random.default_rng(seed), base.at_base(), list[Any]()
    for t, spec in enumerate(SCHEMA.tensors):
        if base.manifest.lattice(t):
            e = base.manifest.exponents[t] + (3 * widened if t == F32 else 0)
            q = rng.integers(-200, 201, spec.size)
            if t == CODES:
                q = np.clip(base.base[t].astype(np.int64) + q % 9, -127, 127) - base.base[t].astype(np.int64)
            sections.append(section_of(t, q, e))
    state.apply(Kind.SNAPSHOT, [s for s in sections if s is not None])
    other = flat(seed + 1000)
    weights = [w if base.manifest.lattice(t) else other[t] for t, w in enumerate(state.weights)]
    kept = {t: state.integers[t] for t in base.manifest.kept}
    return ModelState.of_weights(base.manifest, base.base, weights, state.exponents, kept)


def merged(states: list[ModelState], weights: list[int]) -> ModelState:
    average = LatticeMean(states[0])
    for state, weight in zip(states, weights, strict=True):
        average.add(state, weight)
    return average.state()


def half_even(value: Fraction) -> int:
    return round(value)  # Python's own, half to even


def test_the_mean_of_q_is_the_whole_number_nearest_to_it_in_any_order() -> None:
    base = base_of()
    states, weights = [moved(base, seed, widened=seed % 3) for seed in range(12)], [1 + seed * seed for seed in range(12)]
    got = merged(states, weights)
    for t in (i for i in range(len(SCHEMA.tensors)) if base.manifest.lattice(i)):
        assert got.exponents[t] == base.manifest.exponents[t]
        for i in range(SCHEMA.tensors[t].size):
            total = sum(w * int(s.integers[t][i]) << (s.exponents[t] - got.exponents[t]) for s, w in zip(states, weights, strict=True))
            assert int(got.integers[t][i]) == half_even(Fraction(total, sum(weights)))
    pairs = list(zip(states, weights, strict=True))
    for seed in range(5):
        random.Random(seed).shuffle(pairs)
        again = merged([s for s, _ in pairs], [w for _, w in pairs])
        assert again == got and again.root == got.root and again.fingerprint == got.fingerprint == got.measure_fingerprint()


def test_weights_count_by_their_ratios_and_a_version_twice_counts_as_one_of_weight_two() -> None:
    base = base_of()
    a, b = moved(base, 1), moved(base, 2)
    assert merged([a, b], [2, 1]) == merged([a, a, b], [1, 1, 1]) == merged([b, a], [7, 14])
    assert merged([a], [5]) == a and merged([a, a.copy()], [1, 1]) == a


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_on_no_lattice_is_the_nearest_number_to_the_exact_mean(exact: bool) -> None:
    base = base_of(exact=exact)
    states, weights = [moved(base, seed) for seed in range(7)], [3, 1, 4, 1, 5, 9, 2]
    got = merged(states, weights)
    assert got == merged(states[::-1], weights[::-1])
    for t, spec in enumerate(SCHEMA.tensors):
        if base.manifest.lattice(t):
            continue
        for i in range(spec.size):
            mean = sum(w * Fraction(s.weights[t][i].item()) for s, w in zip(states, weights, strict=True)) / sum(weights)
            value = got.weights[t][i].item()
            near = [Fraction(x) for x in neighbours(spec.dtype, value)]
            assert all(abs(Fraction(value) - mean) <= abs(x - mean) for x in near), (spec.name, i)
            assert min(s.weights[t][i] for s in states) <= value <= max(s.weights[t][i] for s in states)


def neighbours(dtype: Dtype, value: float) -> list[float]:
    """Return the numbers of a type next to one of it."""
    if dtype in (Dtype.INT8, Dtype.INT32):
        return [value - 1, value + 1]
    bits = storage.bits(dtype, np.array([value], np.float32))
    out = []
    for step in (-1, 1):
        held = np.zeros(1, np.float32)
        storage.put_bits(dtype, (bits + np.array(step).astype(bits.dtype)).astype(bits.dtype), held)
        out.append(float(held[0]))
    return out


@given(
    st.lists(
        st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(1, 1 << 20)), min_size=1, max_size=8
    )
)
def test_sums_of_any_floats_are_exact(rows: list[tuple[float, int]]) -> None:
    sums, back = ExactSums(Dtype.FLOAT32, 1), ExactSums(Dtype.FLOAT32, 1)
    for value, weight in rows:
        sums.add(np.array([value], np.float32), weight)
    for value, weight in reversed(rows):
        back.add(np.array([value], np.float32), weight)
    got = sums.mean()
    mean = sum(Fraction(v) * w for v, w in rows) / sum(w for _, w in rows)
    apart = abs(Fraction(float(got[0])) - mean)
    assert all(apart <= abs(Fraction(float(x)) - mean) for x in (np.nextafter(got, np.float32(s) * 3.4e38)[0] for s in (-1, 1)))
    assert len({v for v, _ in rows}) == 1 or back.mean().tobytes() == got.tobytes()


def test_half_goes_to_even_and_a_zero_keeps_its_sign() -> None:
    tiny = np.float32(2.0**-149)
    for pair, wanted in (((tiny, 0), 0.0), ((tiny * 2, tiny), tiny * 2), ((-tiny, 0), 0.0), ((-0.0, -0.0), -0.0)):
        sums = ExactSums(Dtype.FLOAT32, 1)
        for value in pair:
            sums.add(np.array([value], np.float32), 1)
        assert sums.mean().tobytes() == np.array([wanted], np.float32).tobytes()


def test_a_mean_beyond_the_range_of_the_bases_unit_takes_the_finest_that_holds_it() -> None:
    base = base_of()
    e = base.manifest.exponents[F32]
    far = base.at_base()
    far.apply(Kind.SNAPSHOT, [Section(F32, np.arange(2, dtype=np.uint32), np.array([limits.Q_MAX, -limits.Q_MAX], np.int32), 1, e + 6)])
    farther = far.copy()
    got = merged([far, farther, moved(base, 3)], [1, 1, 1])
    assert got.exponents[F32] == e + 6  # nobody has 2^(e + 3)
    with_it = merged([far, farther, moved(base, 3), moved(base, 4, widened=1)], [1, 1, 4, 4])
    units = ((moved(base, 3), 0), (moved(base, 4, widened=1), 3))
    total = 2 * (limits.Q_MAX << 6) + 4 * sum(int(s.integers[F32][0]) << k for s, k in units)
    assert with_it.exponents[F32] == e + 6 and int(with_it.integers[F32][0]) == half_even(Fraction(total, 10 << 6))


def test_sums_beyond_64_bits_are_whole_numbers_of_any_size() -> None:
    base = base_of()
    e = base.manifest.exponents[F32]
    far = base.at_base()
    far.apply(Kind.SNAPSHOT, [Section(F32, np.zeros(1, np.uint32), np.array([limits.Q_MAX], np.int32), 1, e + 24)])
    near = moved(base, 5)
    weights = [1 << 28, (1 << 28) + 1]
    got = merged([far, near], weights)
    unit = got.exponents[F32] - e
    total = weights[0] * (limits.Q_MAX << 24) + weights[1] * int(near.integers[F32][0])
    assert int(got.integers[F32][0]) == half_even(Fraction(total, sum(weights) << unit))


def test_what_cannot_be_merged_is_refused_by_name() -> None:
    base = base_of()
    average = LatticeMean(base)
    with pytest.raises(WrongBase, match="merged was made for another base"):
        average.add(base_of(seed=9))
    for weight in (0, -1, WEIGHTS_BELOW):
        with pytest.raises(BadArgument, match="above 0"):
            average.add(base, weight)
