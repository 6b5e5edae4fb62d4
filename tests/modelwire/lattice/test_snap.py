"""What a round becomes at its ends: equal differences, least budgets, tensors that are widened, models of one weight."""

from __future__ import annotations

import numpy as np
import pytest

from modelwire.errors import BudgetExhausted, NonFinite
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.snap import no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.limits import EXPONENT_MAX
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.update.container import parse, size_of
from modelwire.update.manifest import manifest_for
from modelwire.update.sections import Kind
from tests.keys import NO_FILE
from tests.modelwire.models import bits, flat, model, noisy, sealed


def just(largest: float) -> list[F32]:
    return [np.array([largest], np.float32)]


@pytest.mark.parametrize("budget", [330, 400, 600])
def test_a_budget_is_met_when_all_differences_are_equal(budget: int) -> None:
    # As an optimizer leaves them that takes the sign of the gradient: no step tells one from another.
    state = flat([1.0] * 4096)
    up = np.random.default_rng(0).random(4096) < 0.5
    trained = [state.weights[0] + np.where(up, np.float32(0.0625), np.float32(-0.0625))]
    s = snap(state.copy(), trained, no_residual(state.manifest), density=0.003, max_bytes=budget)
    assert size_of(s.sections, state.manifest.schema) <= budget
    sent = len(s.sections[0].index)
    assert 0 < sent < 4096
    left = (s.residual[0].astype(np.uint32) << 16).view(np.float32)
    assert np.count_nonzero(np.abs(left) == 0.0625) == 4096 - sent  # the rest waits
    cloud = state.copy()
    cloud.apply(s.kind, s.sections, expect=s.state.fingerprint)
    assert bits(cloud) == bits(s.state)


def test_the_largest_difference_is_sent_when_only_one_fits() -> None:
    state = flat([1.0] * 4096)
    up = np.random.default_rng(1).random(4096) < 0.5
    trained = [state.weights[0] + np.where(up, np.float32(0.0625), np.float32(-0.0625))]
    alone = [np.where(np.arange(4096) == 9, trained[0], state.weights[0])]
    one = snap(state.copy(), alone, no_residual(state.manifest), density=1.0, max_bytes=4096)
    least = size_of(one.sections, state.manifest.schema)
    s = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=least)
    assert 1 <= len(s.sections[0].index) <= 2 and size_of(s.sections, state.manifest.schema) <= least
    with pytest.raises(BudgetExhausted):
        snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=250)


def test_a_single_difference_is_coarsened_before_a_budget_counts_as_exhausted() -> None:
    # The density asks for a step so fine that the one large difference takes a byte or two more than it has to.
    state = flat([1.0] * 64, e=-14)
    trained = [state.weights[0] + np.float32(0.1 * 2.0**-14)]
    trained[0][5] += np.float32(1.0)
    fine = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=4096)
    coarse = snap(state.copy(), trained, no_residual(state.manifest), density=1 / 64, max_bytes=4096)
    least = size_of(coarse.sections, state.manifest.schema)
    assert len(fine.sections[0].index) == 1 and least < size_of(fine.sections, state.manifest.schema)
    s = snap(state.copy(), trained, no_residual(state.manifest), density=1.0, max_bytes=least)
    assert s.sections[0].index.tolist() == [5]


def test_a_widened_tensor_never_keeps_an_infinite_residual() -> None:
    state = flat([1.0] * 8)
    trained = [state.weights[0].copy()]
    trained[0][3] = np.finfo(np.float32).max  # its bfloat16 would be an infinity, and every later round NaN
    with pytest.raises(NonFinite, match="tensor w: entry 3"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096, widen=(0,))
    with pytest.raises(NonFinite, match="tensor w: entry 3"):
        snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)


def test_a_tensor_that_is_cut_again_while_it_is_widened_is_widened_again() -> None:
    state, widen = flat([1.0] * 8), tuple[int, ...]([0])
    residual = no_residual(state.manifest)
    trained = [state.weights[0].copy()]
    trained[0][0] = 100_000.0
    exponents = []
    while widen:
        s = snap(state, trained, residual, density=0.1, max_bytes=4096, widen=widen)
        state, residual, widen = s.state, s.residual, s.clamped
        trained = [w.copy() for w in state.weights]
        exponents.append(state.exponents[0])
        assert s.kind is Kind.SNAPSHOT
    assert exponents == [-11, -8, -5]  # a range of 2^11, 2^14, 2^17
    assert abs(float(state.weights[0][0]) - 100_000.0) < 300


def test_no_snapshot_is_sent_in_vain_when_there_is_no_larger_unit() -> None:
    state = flat([2.0**122] * 8)
    assert state.exponents == [EXPONENT_MAX]
    trained = [state.weights[0].copy()]
    trained[0][0] = 3e38
    first = snap(state, trained, no_residual(state.manifest), density=0.1, max_bytes=4096)
    assert first.clamped == (0,)
    second = snap(first.state, first.state.weights, first.residual, density=0.1, max_bytes=4096, widen=first.clamped)
    assert second.kind is Kind.DELTA


@pytest.mark.parametrize("density", [1.0, 0.001])
@pytest.mark.parametrize("name", ["w", "w_moving_mean"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1, 1, 1)])
def test_a_model_of_one_weight_of_any_rank_and_class_travels(shape: tuple[int, ...], name: str, density: float) -> None:
    schema = Schema((TensorSpec(name, shape),))
    manifest = manifest_for(schema, just(0.5), **NO_FILE, exponents={})
    state = ModelState.of_base(manifest, just(0.5))
    s = snap(state.copy(), just(0.75), no_residual(manifest), density=density, max_bytes=4096)
    after = rebuild(state, parse(sealed(s.state, s.sections)))
    assert bits(after) == bits(s.state) and 0 < float(after.weights[0][0]) - 0.5 <= s.step.size
    nothing = snap(s.state.copy(), s.state.weights, no_residual(manifest), density=density, max_bytes=4096)
    assert nothing.sections == () and bits(nothing.state) == bits(s.state)


def test_a_difference_that_is_no_number_names_its_tensor() -> None:
    manifest, base = model(1)
    state = ModelState.of_base(manifest, base)
    trained = noisy(state, 1, 0.01)
    trained[2][5] = np.nan
    with pytest.raises(NonFinite, match="tensor dense_kernel: entry 5"):
        snap(state, trained, no_residual(manifest), density=0.01, max_bytes=4096)
