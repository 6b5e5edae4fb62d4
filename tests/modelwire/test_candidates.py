"""What stands out of a trained model: every edge is exact, however wrong the guess was, and little memory is taken for it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import _core
from modelwire.candidates import SAMPLE, Candidates
from modelwire.errors import NonFinite
from modelwire.manifest import manifest_for
from modelwire.snap import no_residual, snap
from modelwire.state import ModelState
from modelwire.tensors import F32, Schema, TensorSpec


def flat(*sizes: int, e: int | None = None) -> ModelState:
    """Return a base of 1-D tensors of these sizes, all on the lattice."""
    schema = Schema(tuple(TensorSpec(f"t{i}", (n,)) for i, n in enumerate(sizes)))
    base = [np.linspace(-1, 1, n, dtype=np.float32) for n in sizes]
    exponents = {} if e is None else {f"t{i}": e for i in range(len(sizes))}
    return ModelState.of_base(manifest_for(schema, base, file_sha256=bytes(32), file_size=1, exponents=exponents), base)


def magnitudes(state: ModelState, trained: list[F32]) -> F32:
    return np.sort(np.concatenate([np.abs(new - w) for w, new in zip(state.weights, trained, strict=True)]))[::-1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0001, 0.01, 0.3, 1.0]), st.sampled_from([0.0, 0.001, 0.1, 1.0]))
def test_the_edge_is_the_kth_of_all_differences_at_any_k(seed: int, density: float, moved: float) -> None:
    rng = np.random.default_rng(seed)
    state = flat(3000, 17, 40_000)
    trained = [w + (rng.standard_normal(len(w)) * (rng.random(len(w)) < moved)).astype(np.float32) for w in state.weights]
    every = magnitudes(state, trained)
    candidates = Candidates(state, trained, no_residual(state.manifest), density=density)
    for k in (1, max(1, int(density * len(every))), len(every) // 2, len(every)):
        assert candidates.edge(k) == every[k - 1]
    assert candidates.least() == every[every > 0].min(initial=1.0)


def test_a_sample_that_sees_none_of_the_changes_or_only_them_misleads_nobody() -> None:
    state = flat(40 * SAMPLE)
    seen = np.zeros(40 * SAMPLE, bool).reshape(-1, 16)
    seen[::40] = True
    for where in (seen.ravel(), ~seen.ravel()):
        trained = [state.weights[0] + where * np.float32(0.25) * np.linspace(1, 2, len(where), dtype=np.float32)]
        candidates = Candidates(state, trained, no_residual(state.manifest), density=0.01)
        every = magnitudes(state, trained)
        k = len(every) // 100
        assert candidates.edge(k) == every[k - 1]


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.3, 0.9])
def test_what_is_snapped_is_what_the_whole_tensor_gives_also_below_the_bar(threshold: float) -> None:
    rng = np.random.default_rng(3)
    state = flat(50_000, 200)
    trained = [w + rng.standard_normal(len(w), np.float32) * np.float32(0.2) for w in state.weights]
    residual = no_residual(state.manifest)
    candidates = Candidates(state, trained, residual, density=0.01)
    for t in (0, 1):
        facts = {"step": 40, "threshold": float(np.float32(threshold))}
        index, value, cut = candidates.snapped(t, **facts)
        whole = _core.snap(state.weights[t], trained[t], residual[t], state.integers[t], exponent=state.exponents[t], **facts)
        assert (index.tolist(), value.tolist(), cut) == (whole[0].tolist(), whole[1].tolist(), whole[2])


def test_what_is_no_number_is_named_by_its_tensor() -> None:
    state = flat(100, 5000)
    trained = [w.copy() for w in state.weights]
    trained[1][4321] = np.nan
    with pytest.raises(NonFinite, match="tensor t1: entry 4321"):
        Candidates(state, trained, no_residual(state.manifest), density=0.01)


def test_a_difference_too_large_for_the_residual_is_refused_unless_it_is_sent() -> None:
    state = flat(64)
    trained = [w.copy() for w in state.weights]
    trained[0][7] = np.finfo(np.float32).max
    with pytest.raises(NonFinite, match="the residual, tensor t0: entry 7"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)


@pytest.mark.skipif(_core.kernel_name() == "reference", reason="the numpy twin works on whole arrays")
def test_memory_beside_the_results_goes_with_what_is_sent_not_with_the_model() -> None:
    n = 2_000_000
    state = flat(n)
    trained = [state.weights[0] + np.random.default_rng(1).standard_normal(n, np.float32) * np.float32(1e-3)]
    residual = no_residual(state.manifest)
    tracemalloc.start()
    candidates = Candidates(state, trained, residual, density=0.01)
    candidates.edge(n // 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    results = 2 * n  # the residual that the round leaves
    assert peak - results < 24 * n // 100 + (1 << 20)
