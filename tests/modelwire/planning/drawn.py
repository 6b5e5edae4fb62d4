"""Candidates, conditions and prices as hypothesis draws them: every number that the dataclasses let in, the odd ones first."""

from __future__ import annotations

from hypothesis import strategies as st

from modelwire.planning import PROFILES, Bar, Candidate, Choice, Conditions, Figure, Forecast, Origin, Prices

numbers = st.sampled_from([0.0, 1e-300, 1e-9, 1.0, 1e18]) | st.floats(0, 1e9) | st.floats(0, 1e18)
shares = st.floats(0, 1)
figures = st.builds(Figure, numbers, st.sampled_from(Origin), st.text(max_size=5))
prices = st.builds(*[Prices, *[st.sampled_from([0.0, 1e12]) | st.floats(0, 10)] * 6])
candidates = st.builds(
    Candidate, st.sampled_from([Choice.SNAPSHOT, Choice.DELTA, Choice.EXACT, Choice.RECIPE]), numbers, shares,
    alone=st.none() | numbers, full=st.none() | numbers, stored=st.none() | numbers, encoded=numbers, steps=numbers, memory=numbers,
    recover_s=numbers, accuracy_lost=shares, barred=st.sampled_from([Bar.NONE] * 9 + [Bar.TOO_LARGE]),
)  # fmt: skip
forecasts = st.builds(
    Forecast, figures, st.integers(0, 10**18), numbers, numbers, st.none() | figures, st.none() | figures,
)  # fmt: skip
conditions = st.builds(
    Conditions, st.sampled_from(list(PROFILES.values())), uplink=st.none() | figures, window_left_s=st.none() | figures,
    free_memory=st.none() | figures, encode_rate=st.none() | figures, step_s=st.none() | figures, watts=st.none() | figures,
    joules_per_wakeup=st.none() | figures, joules_per_byte=st.none() | figures, recoveries=figures, months=figures,
    promise_s=st.none() | figures, awake=st.booleans(), recipes=st.booleans(), trainer_known=st.booleans(),
    forecast=st.none() | forecasts,
)  # fmt: skip
