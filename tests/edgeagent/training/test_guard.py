"""The guard: scores, and what it lets pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent.samples.spool import Samples
from edgeagent.training import guard
from edgeagent.training.guard import Score


@given(before=st.floats(0, 10), after=st.one_of(st.floats(0, 10), st.just(float("nan")), st.just(float("inf"))), margin=st.floats(0, 1))
def test_the_guard_lets_pass_what_is_not_worse_by_more_than_the_margin(before: float, after: float, margin: float) -> None:
    verdict = guard.judge(Score(before, None), Score(after, None), margin=margin, size=10, budget=10)
    assert verdict.accepted == (after <= before + margin) and bool(verdict.reason) != verdict.accepted


def test_a_model_whose_score_was_not_finite_can_only_get_better() -> None:
    assert guard.judge(Score(float("nan"), None), Score(9.0, None), margin=0, size=1, budget=None).accepted


def test_scores_are_cross_entropy_for_probabilities_and_squared_error_for_targets() -> None:
    y = np.eye(3, dtype=np.float32)[[0, 1]]
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32)
    s = guard.score(p, Samples(np.zeros((2, 4), np.float32), y, True))
    assert s.loss == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2, rel=1e-6) and s.accuracy == 0.5
    t = guard.score(p, Samples(np.zeros((2, 4), np.float32), p + np.float32(0.5), False))
    assert t.loss == pytest.approx(0.25) and t.accuracy is None
    assert np.isnan(guard.score(p * np.nan, Samples(np.zeros((2, 4), np.float32), y, True)).loss)
    sure = guard.score(np.eye(3, dtype=np.float32)[[1, 1]], Samples(np.zeros((2, 4), np.float32), y, True))
    assert np.isfinite(sure.loss), "a certain mistake costs a finite amount"
