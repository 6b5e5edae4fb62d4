"""The laws that the lattice promises: exact sums, exact inverses, Q that follows back, and a clamp that loses nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire import limits
from modelwire.errors import ModelWireError, NonFinite
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, no_residual, snap
from modelwire.lattice.state import ModelState, fingerprint_of
from modelwire.tensors import Schema, TensorSpec
from modelwire.update.manifest import default_exponent, manifest_for
from modelwire.update.sections import Kind, add, invert
from tests.keys import NO_FILE
from tests.modelwire.models import bits, model, noisy

seeds = st.integers(0, 2**32 - 1)


def rounds(state: ModelState, residual: Residual, seed: int, n: int, density: float = 0.05) -> list[Snapped]:
    out: list[Snapped] = []
    for i in range(n):
        widen = out[-1].clamped if out else ()
        s = snap(
            state.copy(), noisy(state, seed + i, 0.01), residual, density=density, max_bytes=1 << 20, widen=widen
        )
        state, residual = s.state, s.residual
        out.append(s)
    return out


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1.0, 0.03, 1e-30, 1e30, 3.0]))
def test_the_sum_of_two_deltas_is_the_delta_of_the_two(seed: int, peak: float) -> None:
    manifest, base = model(seed, peak)
    start = ModelState.of_base(manifest, base)
    first, second = rounds(start, no_residual(manifest), seed, 2)
    step_by_step, at_once = start.copy(), start.copy()
    step_by_step.apply(Kind.DELTA, first.sections, expect=first.state.fingerprint)
    step_by_step.apply(Kind.DELTA, second.sections, expect=second.state.fingerprint)
    both = add(first.sections, second.sections, manifest)
    at_once.apply(Kind.DELTA, both, expect=second.state.fingerprint)
    assert bits(step_by_step) == bits(at_once) == bits(second.state)
    assert step_by_step.root == at_once.root


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1.0, 1e-30, 1e30]))
def test_apply_then_invert_gives_back_the_exact_base_bits(seed: int, peak: float) -> None:
    manifest, base = model(seed, peak)
    state = ModelState.of_base(manifest, base)
    made = rounds(state, no_residual(manifest), seed, 3)
    for s in made:
        state.apply(Kind.DELTA, s.sections)
    assert bits(state) != b"".join(b.tobytes() for b in base)
    for s in reversed(made):
        state.apply(Kind.DELTA, invert(s.sections))
    assert bits(state) == b"".join(b.tobytes() for b in base)
    assert state.fingerprint == (0, 0)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_sums_are_associative_and_an_update_and_its_inverse_cancel(seed: int) -> None:
    manifest, base = model(seed)
    a, b, c = (s.sections for s in rounds(ModelState.of_base(manifest, base), no_residual(manifest), seed, 3))
    left = add(add(a, b, manifest), c, manifest)
    right = add(a, add(b, c, manifest), manifest)
    key = [(s.tensor, s.index.tolist(), s.dq.tolist()) for s in left]
    assert key == [(s.tensor, s.index.tolist(), s.dq.tolist()) for s in right]
    assert add(a, invert(a), manifest) == ()
    lanes = [sum(x) & (1 << 64) - 1 for x in zip(*(fingerprint_of(u, manifest) for u in (a, b, c)), strict=True)]
    assert fingerprint_of(left, manifest) == tuple(lanes)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([1.0, 1e-30, 1e30, 2.0**-126, 100.0]))
def test_q_recovered_from_base_and_weights_equals_q(seed: int, peak: float) -> None:
    manifest, base = model(seed, peak)
    last = rounds(ModelState.of_base(manifest, base), no_residual(manifest), seed, 3)[-1].state
    again = ModelState.of_weights(manifest, base, last.weights, last.exponents)
    for q, r in zip(last.integers, again.integers, strict=True):
        assert q.tobytes() == r.tobytes()
    assert again.fingerprint == last.fingerprint == last.measure_fingerprint()


@settings(max_examples=200, deadline=None)
@given(st.floats(-1.0, 1.0, width=32), st.integers(-(1 << 22), 1 << 22), st.integers(-22, 0))
def test_q_follows_back_over_the_whole_range_of_the_lattice(weight: float, q: int, shift: int) -> None:
    # The finest unit that a manifest accepts for weights up to 1 is 2^-22.
    schema = Schema((TensorSpec("w", (2,)),))
    base = [np.array([weight, 1.0], np.float32)]
    manifest = manifest_for(schema, base, **NO_FILE, exponents={"w": shift})
    state = ModelState.of_base(manifest, base)
    state.integers[0][:] = q, -q
    from modelwire import _core

    _core.weights_from_q(state.base[0], state.integers[0], state.weights[0], exponent=shift)
    again = ModelState.of_weights(manifest, base, state.weights)
    assert again.integers[0].tolist() == [q, -q]


def test_an_untouched_weight_keeps_its_bits_whatever_they_are() -> None:
    manifest, base = model(3)
    state = rounds(ModelState.of_base(manifest, base), no_residual(manifest), 3, 5, density=0.02)[-1].state
    kept = 0
    for b, w, q in zip(base, state.weights, state.integers, strict=True):
        untouched = q == 0
        kept += int(untouched.sum())
        assert b.view(np.uint32)[untouched].tolist() == w.view(np.uint32)[untouched].tolist()
    assert kept > 100


@pytest.mark.parametrize("peak", [1.0, 1e-30, 1e30])
def test_a_chain_of_200_updates_stays_exact(peak: float) -> None:
    manifest, base = model(11, peak)
    device, residual = ModelState.of_base(manifest, base), no_residual(manifest)
    cloud = ModelState.of_base(manifest, base)
    widen: tuple[int, ...] = ()
    for i in range(200):
        s = snap(device, noisy(device, i, 0.02), residual, density=0.02, max_bytes=1 << 20, widen=widen)
        cloud.apply(s.kind, s.sections, expect=s.state.fingerprint)
        device, residual, widen = s.state, s.residual, s.clamped
        assert bits(cloud) == bits(device)
    assert cloud.root == device.root
    assert cloud.fingerprint == cloud.measure_fingerprint()
    assert all(np.isfinite(w).all() for w in cloud.weights)


def test_the_state_follows_the_training_that_it_is_sent() -> None:
    # With the residual kept, a repeated small push arrives in full although each one lies inside the dead zone.
    manifest, base = model(5)
    state, residual = ModelState.of_base(manifest, base), no_residual(manifest)
    kernel = 2
    push = np.float32(0.004)
    for i in range(60):
        trained = [w.copy() for w in state.weights]
        trained[kernel][10] += push
        trained[kernel][20 + i] += np.float32(0.05)  # something louder each time, so that the step stays coarse
        s = snap(state, trained, residual, density=1 / 1600, max_bytes=1 << 20)
        state, residual = s.state, s.residual
    moved = float(state.weights[kernel][10]) - float(base[kernel][10])
    assert abs(moved - 60 * push) <= s.step.size


def test_an_all_zero_tensor_can_learn_and_costs_nothing_until_it_does() -> None:
    manifest, base = model(0)
    zeros = manifest.schema.index("zeros")
    assert manifest.exponents[zeros] == default_exponent(0.0) == -4 - 14
    state = ModelState.of_base(manifest, base)
    trained = [w.copy() for w in state.weights]
    trained[zeros][7] = 0.25
    s = snap(state, trained, no_residual(manifest), density=0.001, max_bytes=4096)
    assert [x.tensor for x in s.sections] == [zeros]
    assert abs(s.state.weights[zeros][7] - 0.25) <= s.step.size
    assert not s.state.weights[zeros][:7].any()


def test_the_default_unit_has_the_range_and_resolution_of_the_design() -> None:
    for peak in (1.0, 0.7, 1e-30, 1e30, 2.0**-4, 5.0):
        e = default_exponent(peak)
        reference = 2.0 ** math.ceil(math.log2(max(peak, 2.0**-4)))
        assert math.ldexp(1.0, e) == reference * 2.0**-14
        assert math.ldexp(limits.Q_MAX, e) == 256 * reference


def test_a_clamp_keeps_the_rest_in_the_residual_and_the_next_update_is_a_snapshot_with_larger_units() -> None:
    manifest, base = model(2)
    bias = manifest.schema.index("dense_bias")
    state = ModelState.of_base(manifest, base)
    edge = 256.0  # of the largest weight, 1.0
    trained = [w.copy() for w in state.weights]
    trained[bias][3] = 300.0
    trained[2][:20] += np.float32(1.0)  # so that the step is fine enough to come near the edge
    first = snap(state, trained, no_residual(manifest), density=0.01, max_bytes=4096)
    assert first.kind is Kind.DELTA and first.clamped == (bias,)
    assert edge * 0.5 <= first.state.weights[bias][3] <= edge + 1
    left = (first.residual[bias].astype(np.uint32) << 16).view(np.float32)[3]
    assert abs(float(first.state.weights[bias][3]) + float(left) - 300.0) < 1.0

    second = snap(first.state.copy(), first.state.weights, first.residual, density=0.0007, max_bytes=4096, widen=first.clamped)
    assert second.kind is Kind.SNAPSHOT and second.clamped == ()
    assert second.state.exponents[bias] > first.state.exponents[bias]
    assert abs(float(second.state.weights[bias][3]) - 300.0) < 1.0
    cloud = ModelState.of_base(manifest, base)
    cloud.apply(Kind.DELTA, first.sections)
    cloud.apply(Kind.SNAPSHOT, second.sections, expect=second.state.fingerprint)
    assert bits(cloud) == bits(second.state) and cloud.exponents == second.state.exponents
    third = snap(second.state.copy(), noisy(second.state, 9, 0.01), second.residual, density=0.05, max_bytes=1 << 20)
    cloud.apply(third.kind, third.sections, expect=third.state.fingerprint)
    assert bits(cloud) == bits(third.state)


def test_a_sum_over_changed_units_is_refused() -> None:
    manifest, base = model(2)
    s = rounds(ModelState.of_base(manifest, base), no_residual(manifest), 1, 1)[0]
    other = tuple(type(x)(x.tensor, x.index, x.value, x.step, x.exponent + (not manifest.verbatim(x.tensor))) for x in s.sections)
    with pytest.raises(ModelWireError, match="unit"):
        add(s.sections, other, manifest)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 6))
def test_a_snapshot_gives_the_whole_state_from_the_base_alone(seed: int, n: int) -> None:
    manifest, base = model(seed)
    last = rounds(ModelState.of_base(manifest, base), no_residual(manifest), seed, n)[-1].state
    other = rounds(ModelState.of_base(manifest, base), no_residual(manifest), seed + 99, 2)[-1].state
    other.apply(Kind.SNAPSHOT, last.snapshot(), expect=last.fingerprint)
    assert bits(other) == bits(last) and other.root == last.root


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(330, 5000))
def test_a_byte_budget_is_met(seed: int, budget: int) -> None:
    manifest, base = model(seed)
    state = ModelState.of_base(manifest, base)
    trained = noisy(state, seed, 0.05)
    trained[0] = state.weights[0]  # verbatim tensors are not lossy, so no budget can squeeze them
    s = snap(state, trained, no_residual(manifest), density=1.0, max_bytes=budget)
    from tests.modelwire.models import sealed

    assert len(sealed(s.state, s.sections)) - len("pi-7digits") <= budget
    assert s.sections


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", [0, 2])
def test_training_that_went_wrong_is_refused_and_named(bad: float, tensor: int) -> None:
    manifest, base = model(1)
    state = ModelState.of_base(manifest, base)
    before = bits(state)
    trained = noisy(state, 1, 0.01)
    trained[tensor][5] = bad
    with pytest.raises(NonFinite):
        snap(state, trained, no_residual(manifest), density=0.01, max_bytes=4096)
    assert bits(state) == before


def test_a_base_with_nan_is_no_base() -> None:
    with pytest.raises(NonFinite, match="base"):
        manifest_for(
            Schema((TensorSpec("w", (2,)),)), [np.array([1, np.nan], np.float32)], **NO_FILE, exponents={}
        )
