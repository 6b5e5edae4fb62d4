"""What stands out of a trained model is adopted in place, taken back to the bit, fits any budget, and takes little memory."""

from __future__ import annotations

import importlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import _core, limits
from modelwire.errors import BudgetExhausted, NonFinite
from modelwire.lattice.candidates import DEAD_ZONE, Candidates, Residual, Whole, step_for
from modelwire.lattice.snap import Step, no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.update.container import size_of
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from tests.keys import NO_FILE
from tests.modelwire.models import model, noisy

snapping: Any = importlib.import_module("modelwire.lattice.snap")  # the package has a function of this name
seeds = st.integers(0, 2**32 - 1)


def flat(*sizes: int, e: int | None = None) -> ModelState:
    """Return a base of 1-D tensors of these sizes, all on the lattice."""
    schema = Schema(tuple(TensorSpec(f"t{i}", (n,)) for i, n in enumerate(sizes)))
    base = [np.linspace(-1, 1, n, dtype=np.float32) for n in sizes]
    exponents = {} if e is None else {f"t{i}": e for i in range(len(sizes))}
    return ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents=exponents), base)


def everything(state: ModelState) -> Any:
    arrays = [a.tobytes() for a in (*state.weights, *state.integers)]
    return arrays, state.fingerprint, list(state.exponents), state.root


def taken(residual: Residual) -> list[bytes]:
    return [r.tobytes() for r in residual]


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from([0.0001, 0.01, 0.3, 1.0]), st.sampled_from([0.0, 0.001, 0.1, 1.0]))
def test_the_step_follows_from_the_kth_of_all_differences(seed: int, density: float, moved: float) -> None:
    rng = np.random.default_rng(seed)
    state = flat(3000, 17, 40_000)
    trained = [w + (rng.standard_normal(len(w)) * (rng.random(len(w)) < moved)).astype(np.float32) for w in state.weights]
    every = np.sort(np.concatenate([np.abs(new - w) for w, new in zip(state.weights, trained, strict=True)]))[::-1]
    k = max(1, int(density * len(every)))
    edge = float(every[k - 1]) or float(every[every > 0].min(initial=1.0))
    assert snap(state, trained, no_residual(state.manifest), density=density).step == step_for(edge)


@pytest.mark.parametrize("exponents", [(-14, -14), (-3, -14), (-2, -2)])
def test_a_count_and_the_step_that_it_leads_to_give_the_same_round_also_where_units_are_coarse(exponents: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    state = flat(50_000, 20_000)
    state.exponents = list(exponents)
    trained = [w + rng.standard_normal(len(w), np.float32) * np.float32(0.2) for w in state.weights]
    residual = [np.full(n, 0x3C00, np.uint16) for n in (50_000, 20_000)]
    one, other = state.copy(), state.copy()
    counted = snap(one, trained, residual, density=0.01)
    known = snap(other, trained, residual, step=counted.step)
    assert everything(one) == everything(other) and taken(counted.residual) == taken(known.residual)
    for a, b in zip(counted.sections, known.sections, strict=True):
        assert (a.tensor, a.step, a.index.tolist(), a.value.tolist()) == (b.tensor, b.step, b.index.tolist(), b.value.tolist())
    for s in counted.sections:
        d = (trained[s.tensor] - state.weights[s.tensor]) + np.float32(0.0078125)
        least = np.float32(DEAD_ZONE) * np.float32(s.step * 2.0**s.exponent)
        assert s.index.tolist() == np.flatnonzero(np.abs(d) >= least).tolist()


@settings(deadline=None, max_examples=40)
@given(seeds, st.sampled_from([0.01, 0.3, 1.0]), st.sampled_from([0.02, 100.0]), st.integers(1, 4))
def test_a_round_that_is_taken_back_was_never_there(seed: int, density: float, scale: float, n: int) -> None:
    manifest, base = model(seed)
    state, residual, widen = ModelState.of_base(manifest, base), no_residual(manifest), ()
    for i in range(n):
        before, carried, trained = everything(state), taken(residual), noisy(state, seed + i, scale)
        s = snap(state, trained, residual, density=density, widen=widen)
        after = everything(state), taken(s.residual), s.clamped, s.kind
        assert s.state is state and state.fingerprint == state.measure_fingerprint()
        s.undo()
        assert everything(state) == before and taken(residual) == carried
        again = snap(state, trained, residual, density=density, widen=widen)
        assert (everything(state), taken(again.residual), again.clamped, again.kind) == after
        residual, widen = again.residual, again.clamped


def test_the_trained_weights_may_be_the_state_s_own() -> None:
    state = flat(1000)
    residual = [np.full(1000, 0x3C00, np.uint16)]
    same, copied = state.copy(), state.copy()
    one = snap(same, same.weights, residual, density=0.1)
    other = snap(copied, state.weights, residual, density=0.1)
    assert everything(same) == everything(copied) and taken(one.residual) == taken(other.residual)


@pytest.mark.parametrize("wrong", ["difference", "verbatim", "budget", "residual", "widened"])
def test_what_is_refused_leaves_every_bit_where_it_was(wrong: str) -> None:
    manifest, base = model(1)
    state, residual, facts = ModelState.of_base(manifest, base), no_residual(manifest), dict[str, Any](density=0.3)
    snap(state, noisy(state, 8, 0.01), residual, density=0.1)
    trained, expected = noisy(state, 1, 0.02), NonFinite
    if wrong == "difference":
        trained[3][39] = np.nan
    elif wrong == "verbatim":
        trained[0][11] = np.inf
    elif wrong == "budget":
        facts["max_bytes"], expected = 250, BudgetExhausted
    elif wrong == "residual":
        trained[3][39] = np.finfo(np.float32).max
    else:
        facts["widen"] = (2,)
        trained[2][39] = np.finfo(np.float32).max
    before, carried = everything(state), taken(residual)
    with pytest.raises(expected):
        snap(state, trained, residual, **facts)
    assert everything(state) == before and taken(residual) == carried


def test_what_is_no_number_is_named_by_its_tensor() -> None:
    state = flat(100, 5000)
    trained = [w.copy() for w in state.weights]
    trained[1][4321] = np.nan
    with pytest.raises(NonFinite, match="tensor t1: entry 4321"):
        snap(state, trained, no_residual(state.manifest), density=0.01)


def test_a_difference_too_large_for_the_residual_is_refused_unless_it_is_sent() -> None:
    state = flat(64)
    trained = [w.copy() for w in state.weights]
    trained[0][7] = np.finfo(np.float32).max
    with pytest.raises(NonFinite, match="the residual, tensor t0: entry 7"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)


# Budgets.


def spread(seed: int, clustered: bool) -> tuple[ModelState, list[F32]]:
    """Return a model of three matrices and what training made of it, all entries or those of some rows and columns more."""
    rng = np.random.default_rng(seed)
    shapes = [(200, 300), (64, 64), (300, 10)]
    schema = Schema(tuple(TensorSpec(f"t{i}", s) for i, s in enumerate(shapes)))
    base = [rng.standard_normal(r * c).astype(np.float32) for r, c in shapes]
    state = ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={}), base)
    trained = []
    for w, (r, c) in zip(state.weights, shapes, strict=True):
        size = np.exp(2 * rng.standard_normal((r, 1))) * np.exp(2 * rng.standard_normal((1, c))) if clustered else np.ones((r, c))
        trained.append((w + (1e-3 * size * rng.standard_normal((r, c))).ravel()).astype(np.float32))
    return state, trained


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the twin's coder is slow, and its bytes are held against the compiled ones")
@settings(deadline=None, max_examples=40)
@given(seeds, st.booleans(), st.integers(600, 20_000), st.integers(0, 200))
def test_a_budget_is_never_exceeded_and_most_of_it_is_used(seed: int, clustered: bool, budget: int, overhead: int) -> None:
    state, trained = spread(seed, clustered)
    codings: list[int] = []
    coded = snapping.size_of

    def counting(*args: Any) -> int:
        codings.append(1)
        return coded(*args)

    snapping.size_of = counting
    try:
        s = snap(state, trained, no_residual(state.manifest), density=1.0, max_bytes=budget, overhead=overhead)
    finally:
        snapping.size_of = coded
    size = size_of(s.sections, state.manifest.schema) + overhead
    fixed = size_of((), state.manifest.schema) + overhead
    assert size <= budget
    assert size - fixed >= 0.85 * (budget - fixed) - 48, "table rows, and what the coder takes to learn"
    assert len(codings) <= 8  # two probes, the fixed part, and what a cut by count takes


def test_a_density_that_fits_is_coded_once() -> None:
    state, trained = spread(1, clustered=True)
    s = snap(state, trained, no_residual(state.manifest), density=0.01, max_bytes=4096)
    assert 600 <= sum(len(x.index) for x in s.sections) <= 700


def test_a_known_step_is_cut_to_the_budget_too() -> None:
    state, trained = spread(2, clustered=False)
    before = everything(state)
    s = snap(state, trained, no_residual(state.manifest), step=Step(128, -16), max_bytes=3000)
    assert s.step == Step(128, -16) and size_of(s.sections, state.manifest.schema) <= 3000
    other = ModelState.of_base(state.manifest, state.base)
    other.apply(Kind.DELTA, s.sections, expect=state.fingerprint)
    assert everything(other) == everything(state)
    s.undo()
    assert everything(state) == before


# Memory.


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the numpy twin works on whole arrays")
@pytest.mark.parametrize("density", [0.001, 0.01])
@pytest.mark.parametrize("known", [False, True])
def test_memory_beside_the_results_goes_with_what_is_sent_not_with_the_model(density: float, known: bool) -> None:
    rows, columns = 2000, 1000
    rng = np.random.default_rng(1)
    schema = Schema((TensorSpec("t", (rows, columns)),))
    base = [rng.standard_normal(rows * columns, np.float32) * np.float32(0.05)]
    state = ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={}), base)
    trained = [state.weights[0] + rng.standard_normal(len(base[0]), np.float32) * np.float32(1e-3)]
    residual = no_residual(state.manifest)
    step = snap(state.copy(), trained, residual, density=density, max_bytes=limits.DEFAULT.container).step
    tracemalloc.start()
    s = snap(state, trained, residual, density=density, max_bytes=limits.DEFAULT.container, step=step if known else None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sent = sum(len(x.index) for x in s.sections)
    left = 2 * rows * columns  # the residual that the round leaves
    assert peak - left <= 12 * sent + 2 * columns + (64 << 10)


def test_candidates_leave_tensors_out_when_they_are_told_to() -> None:
    state, trained = spread(4, clustered=False)
    candidates = Candidates(state, trained, no_residual(state.manifest))
    parts = candidates.adopt_count(500, leave=[0])
    assert {s.tensor for s in candidates.sections(parts, Whole([]))} == {1, 2}
    assert state.weights[0].tobytes() == state.base[0].tobytes()
