"""A step is held from round to round while it sends neither more than the density nor less than a quarter of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelwire.lattice.held_step import FEWEST, count_to_send
from modelwire.lattice.snap import Step, no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Schema, TensorSpec
from modelwire.update.manifest import manifest_for
from tests.keys import NO_FILE

N, DENSITY = 40_000, 0.02
ENOUGH = 1 << 20  # bytes


@given(st.integers(0, 1 << 32), st.integers(1, 1 << 32))
def test_what_the_held_step_sends_stays_or_moves_to_the_nearer_bound(sent: int, most: int) -> None:
    count = count_to_send(sent, most)
    least = max(1, int(FEWEST * most))
    assert least <= count <= most
    assert count == sent or (sent < least == count) or (sent > most == count)


def start() -> tuple[ModelState, list[F32]]:
    schema = Schema((TensorSpec("kernel", (200, N // 200)),))
    base = [np.full(N, 0.5, np.float32)]
    return ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents={}), base), base


def rounds(*scales: float) -> list[tuple[Step, int]]:
    """Return (step, entries sent) of rounds whose differences are normal with these deviations, each from the same state."""
    state, base = start()
    out: list[tuple[Step, int]] = []
    for number, scale in enumerate(scales):
        change = np.random.default_rng(number).standard_normal(N, np.float32) * np.float32(scale)
        held = out[-1][0] if out else None
        got = snap(state, [base[0] + change], no_residual(state.manifest), density=DENSITY, max_bytes=ENOUGH, held=held)
        out.append((got.step, sum(len(s.index) for s in got.sections)))
        got.undo()
    return out


def test_a_round_that_is_a_little_calmer_keeps_the_step_and_sends_less() -> None:
    (first, all_of_it), (second, less) = rounds(0.01, 0.009)
    assert first == second
    assert FEWEST * DENSITY * N <= less < 0.8 * all_of_it


def test_a_wilder_round_raises_the_step_and_sends_no_more_than_the_density() -> None:
    (first, _), (second, sent) = rounds(0.01, 0.1)
    assert second.size > 5 * first.size
    assert sent == pytest.approx(DENSITY * N, rel=0.03)


def test_a_calm_round_lowers_the_step_until_a_quarter_of_the_density_is_sent() -> None:
    (first, _), (second, sent) = rounds(0.01, 0.001)
    assert second.size < first.size / 5
    assert sent == pytest.approx(FEWEST * DENSITY * N, rel=0.1)  # a step is a whole number of units


def test_a_round_without_any_difference_sends_nothing_with_a_held_step_either() -> None:
    assert rounds(0.01, 0.0)[1][1] == 0


def test_a_budget_is_kept_with_a_held_step_that_would_pass_it() -> None:
    state, base = start()
    change = np.random.default_rng(0).standard_normal(N, np.float32) * np.float32(0.01)
    free = snap(state, [base[0] + change], no_residual(state.manifest), density=DENSITY, max_bytes=ENOUGH)
    free.undo()
    tight = snap(state, [base[0] + change], no_residual(state.manifest), density=DENSITY, max_bytes=600, held=free.step)
    assert tight.step.size > free.step.size
    assert 0 < sum(len(s.index) for s in tight.sections) < sum(len(s.index) for s in free.sections)
