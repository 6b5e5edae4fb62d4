"""What was learned goes over to another base: kept integer for integer, carried within half a unit, always numbers, the same everywhere."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.deploying.learned import ANEW, CARRIED, KEPT, brought_over
from modelwire import limits, storage
from modelwire._core import kernel
from modelwire.errors import NonFinite
from modelwire.lattice import narrow
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import no_residual
from modelwire.lattice.state import ModelState
from modelwire.tensors import Dtype, Schema, TensorSpec
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from tests.keys import NO_FILE

ROOT = Path(__file__).parents[3]
SCHEMA = Schema((
    TensorSpec("b16", (5, 6), Dtype.BFLOAT16), TensorSpec("bias", (9,), Dtype.INT32), TensorSpec("codes", (7, 8), Dtype.INT8),
    TensorSpec("f16", (5, 6), Dtype.FLOAT16), TensorSpec("f32", (5, 6)), TensorSpec("layer_moving_mean", (6,)),
    TensorSpec("moving_mean", (6,), Dtype.FLOAT16),
))  # fmt: skip
NAMES = [t.name for t in SCHEMA.tensors]
SEEDS = st.integers(0, 1 << 32)
SCALES = st.sampled_from([2.0**-20, 0.01, 0.3, 1.0, 100.0, 30_000.0])


def drawn(seed: int, scale: float = 1.0) -> list[Any]:
    """Return weights of every type; those with a fraction as large as `scale`."""
    rng, out = np.random.default_rng(seed), []
    for t in SCHEMA.tensors:
        if t.dtype is Dtype.INT32:
            out.append(rng.integers(-(1 << 31), 1 << 31, t.size, np.int64).astype(np.int32))
        elif t.dtype is Dtype.INT8:
            out.append(rng.integers(-127, 128, t.size).astype(np.float32))
        else:
            out.append(_within(t.dtype, rng.standard_normal(t.size) * scale))
    return out


def _within(dtype: Dtype, numbers: Any) -> Any:
    most = {Dtype.FLOAT16: 65504.0}.get(dtype, 3e38)
    return storage.rounded(dtype, np.clip(numbers, -most, most).astype(np.float32))


def base(flat: list[Any], *, exact: bool = False, exponents: dict[str, int] | None = None) -> ModelState:
    return ModelState.of_base(manifest_for(SCHEMA, flat, **NO_FILE, exponents=exponents or {}, exact=exact), flat)


def trained(state: ModelState, seed: int, scale: float, *, widen: bool = False) -> tuple[ModelState, Residual]:
    """Return a model that learned on a base, as far as `scale` times its weights or the range of its lattice lets it, and a residual."""
    manifest, rng, out, integers = state.manifest, np.random.default_rng(seed), list[Any](), {}
    exponents = [e + 3 * (widen and spec.name == "f32") for e, spec in zip(manifest.exponents, SCHEMA.tensors, strict=True)]
    for t, (spec, w) in enumerate(zip(SCHEMA.tensors, state.weights, strict=True)):
        moves = rng.standard_normal(spec.size) * scale * max(float(np.abs(w).max()), 2.0**-4)
        if spec.dtype is Dtype.INT32:
            out.append(w + rng.integers(-500, 500, spec.size).astype(np.int32))
        elif manifest.lattice(t):
            most = 3 * limits.Q_MAX
            q = np.clip(np.clip(np.rint(moves / 2.0 ** exponents[t]), -most, most), -limits.Q_MAX, limits.Q_MAX).astype(np.int32)
            if spec.dtype is Dtype.INT8:
                q = np.clip(q, -127 - w, 127 - w).astype(np.int32)
            while not _holds(spec.dtype, w, q, exponents[t]):
                q //= 2
            integers[t] = q
            out.append(narrow.sums(spec.dtype, w, q, exponents[t]))
        else:
            codes = np.rint(np.clip(w + moves, -128, 127)).astype(np.int8).astype(np.float32)
            out.append(codes if spec.dtype is Dtype.INT8 else _within(spec.dtype, w + moves))
    learned = ModelState.of_weights(manifest, state.base, out, exponents, {t: integers[t] for t in manifest.kept})
    return learned, [rng.integers(0, 0x3F80, len(r)).astype(np.uint16) for r in no_residual(manifest)]


def _holds(dtype: Dtype, w: Any, q: Any, exponent: int) -> bool:
    try:
        narrow.sums(dtype, w, q, exponent)
    except NonFinite:
        return False
    return True


def check(way: Any, onto: ModelState) -> None:
    """A way is a whole state of the other base: its integers follow from its weights, its fingerprint from them, all of it numbers."""
    state = way.state
    assert state.manifest == onto.manifest
    kept = {t: state.integers[t] for t in onto.manifest.kept}
    assert ModelState.of_weights(onto.manifest, onto.base, state.weights, state.exponents, kept) == state
    assert state.fingerprint == state.measure_fingerprint()
    for w, q in zip(state.weights, state.integers, strict=True):
        assert np.isfinite(w).all()
        assert not len(q) or q.dtype == np.int32
    for t in range(len(SCHEMA.tensors)):
        if onto.manifest.lattice(t):
            assert np.abs(state.integers[t]).max(initial=0) <= limits.Q_MAX
    assert [len(r) for r in way.residual] == [len(r) for r in no_residual(onto.manifest)]
    again = onto.at_base()  # and a snapshot says it
    again.apply(Kind.SNAPSHOT, state.snapshot(), expect=state.fingerprint)
    assert again == state


@given(SEEDS, SCALES, SCALES, st.booleans(), st.booleans())
def test_on_the_same_lattice_it_is_kept_integer_for_integer(seed: int, scale: float, learned: float, widen: bool, statistics: bool) -> None:
    before = base(drawn(seed, scale))
    state, residual = trained(before, seed + 1, learned, widen=widen)
    other = [(w * np.float32(0.999)).astype(w.dtype) if t.dtype is Dtype.FLOAT32 and t.name == "f32" else w
             for t, w in zip(SCHEMA.tensors, before.base, strict=True)]  # fmt: skip
    if statistics:
        other[NAMES.index("layer_moving_mean")] = other[NAMES.index("layer_moving_mean")] * np.float32(1.5)
    onto = base(other, exponents={NAMES[t]: e for t, e in enumerate(before.manifest.exponents) if before.manifest.stepped(t)})
    first, *rest = brought_over(state, residual, onto)
    assert [way.word for way in rest] == ([ANEW] if first.word != ANEW else [])
    for way in (first, *rest):
        check(way, onto)
    if first.word == KEPT:
        assert [q.tobytes() for q in first.state.integers] == [q.tobytes() for q in state.integers] or not statistics
        for t in range(len(NAMES)):
            if onto.manifest.lattice(t):
                assert first.state.integers[t].tobytes() == state.integers[t].tobytes()
                assert first.state.exponents[t] == state.exponents[t]
        assert [r.tobytes() for r in first.residual] == [r.tobytes() for r in residual]
        assert all(a is not b for a, b in zip(first.residual, residual, strict=True)), "what moves is not shared"
    else:
        assert statistics or first.word == ANEW, first.word


def test_kept_without_statistics_that_moved_is_kept_indeed() -> None:
    before = base(drawn(1))
    state, residual = trained(before, 2, 0.3)
    onto = base([w * np.float32(0.999) if n == "f32" else w for n, w in zip(NAMES, before.base, strict=True)])
    assert onto.manifest.exponents == before.manifest.exponents
    assert [way.word for way in brought_over(state, residual, onto)] == [KEPT, ANEW]


@given(SEEDS, SCALES, SCALES, SCALES, st.booleans(), st.booleans())
def test_on_another_lattice_it_is_carried_within_half_a_unit(
    seed: int, scale: float, other: float, learned: float, from_exact: bool, to_exact: bool
) -> None:
    before, onto = base(drawn(seed, scale), exact=from_exact), base(drawn(seed + 7, other), exact=to_exact)
    state, residual = trained(before, seed + 1, learned)
    first, *_ = brought_over(state, residual, onto)
    check(first, onto)
    if first.word != CARRIED:
        return
    assert not any(r.any() for r in first.residual)
    for t, spec in enumerate(SCHEMA.tensors):
        got, start = first.state.weights[t].astype(np.float64), onto.base[t].astype(np.float64)
        wanted = start + (state.weights[t].astype(np.float64) - before.base[t].astype(np.float64))
        if "moving_mean" in spec.name or spec.dtype is Dtype.INT32:
            assert got.tobytes() == start.tobytes(), "statistics are the other base's"
        elif onto.manifest.lattice(t):
            unit, q = math.ldexp(1.0, first.state.exponents[t]), first.state.integers[t].astype(np.float64)
            end = 127.0 if spec.dtype is Dtype.INT8 else 65504.0 if spec.dtype is Dtype.FLOAT16 else np.inf
            free = (np.abs(q) < limits.Q_MAX) & (np.abs(wanted) <= end)
            sums = start + q * unit
            near = np.abs(sums - wanted) <= unit / 2 + np.abs(wanted) * 2.0**-50
            short = np.sign(sums - wanted) * np.sign(wanted - start) <= 0
            assert near[free].all() and (near | short)[~free].all(), "clamped, it falls short"
        else:
            half = np.abs(got) * {Dtype.FLOAT16: 2.0**-11, Dtype.BFLOAT16: 2.0**-8, Dtype.FLOAT32: 2.0**-24}.get(spec.dtype, 0) + 2.0**-20
            ends = {Dtype.INT8: 128.0, Dtype.FLOAT16: 65504.0}.get(spec.dtype, np.inf)
            inside = np.abs(wanted) < ends
            assert (np.abs(got - wanted)[inside] <= half[inside] + (0.5 if spec.dtype is Dtype.INT8 else 0)).all()


def test_other_tensors_begin_anew_and_so_does_what_learned_nothing() -> None:
    before = base(drawn(1))
    state, residual = trained(before, 2, 0.3)
    schema = Schema((TensorSpec("f32", (5, 6)),))
    flat: list[Any] = [np.ones(30, np.float32)]
    other = ModelState.of_base(manifest_for(schema, flat, **NO_FILE, exponents={}), flat)
    (only,) = brought_over(state, residual, other)
    assert only.word == ANEW and only.state == other and not any(r.any() for r in only.residual)
    (nothing,) = brought_over(before.at_base(), no_residual(before.manifest), base(drawn(5)))
    assert nothing.word == ANEW


def test_a_statistic_that_would_turn_negative_is_not_kept() -> None:
    """Bits that are added may cross the sign: a variance below zero gives no number at the first inference."""
    place = NAMES.index("layer_moving_mean")
    flat, after = drawn(1), drawn(1)
    flat[place] = np.full(6, 1.0, np.float32)
    before = base(flat)
    state, residual = trained(before, 2, 0.1)
    weights = [w.copy() for w in state.weights]
    weights[place] = np.full(6, 1e-30, np.float32)
    kept = {t: state.integers[t] for t in before.manifest.kept}
    state = ModelState.of_weights(before.manifest, before.base, weights, state.exponents, kept)
    after[place] = np.full(6, 1e-20, np.float32)
    first, _ = brought_over(state, residual, base(after))
    assert first.word == CARRIED and first.state.weights[place].tobytes() == after[place].tobytes()


def digest(seeds: range) -> str:
    """Return the SHA-256 over all that some models come to on other bases."""
    h = hashlib.sha256()
    for seed in seeds:
        for exact in (False, True):
            before, onto = base(drawn(seed), exact=exact), base(drawn(seed + 7, 3.0))
            state, residual = trained(before, seed + 1, 0.5)
            near = base([w * np.float32(0.999) if n == "f32" else w for n, w in zip(NAMES, before.base, strict=True)], exact=exact)
            for target in (onto, near):
                for way in brought_over(state, residual, target):
                    h.update(way.word.encode() + way.state.root + repr(way.state.fingerprint).encode())
    return h.hexdigest()


@pytest.mark.parametrize("name", ["reference", *kernel.kernel_names()])
def test_each_kernel_comes_to_the_same_bits(name: str) -> None:
    program = "from tests.edgeagent.deploying.test_learned import digest; print(digest(range(3)))"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "MODELWIRE_KERNEL": name, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ConfigError" in done.stderr:
        pytest.skip(f"this processor has no {name}")
    assert done.stdout.strip() == digest(range(3)), done.stderr
