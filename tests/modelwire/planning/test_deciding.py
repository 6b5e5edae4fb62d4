"""The table says what each form costs; the cheapest allowed one is chosen; whatever goes in, a plan comes out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwire.errors import BadArgument
from modelwire.planning import Bar, Candidate, Choice, Conditions, Figure, Forecast, Prices, decide, profile_of

from . import drawn

FREE = Prices(0, 0, 0, 0, 0, 0)
DELTA = Candidate(Choice.DELTA, 1_000, 0.003, recover_s=0.2)
SNAPSHOT = Candidate(Choice.SNAPSHOT, 100_000, recover_s=0.05)
RECIPE = Candidate(Choice.RECIPE, 500, recover_s=3)


@pytest.mark.slow("decides 150 times")
@settings(max_examples=150, deadline=None)
@given(st.lists(drawn.candidates, max_size=6), drawn.conditions, drawn.prices)
def test_whatever_goes_in_a_plan_comes_out(candidates: list[Candidate], conditions: Conditions, prices: Prices) -> None:
    plan = decide(candidates, conditions, prices)
    again = decide(candidates, conditions, prices, plan.note)
    for each in (plan, again):
        assert len(each.rows) == len(candidates) + 1 and each.reason and each.wait_s >= 0 and math.isfinite(each.wait_s)
        for row in each.rows:
            assert math.isfinite(row.total) and row.total == row.terms.total
        if each.choice is Choice.WAIT:
            assert each.rows[-1].barred is Bar.NONE or each.form is None
        else:
            assert each.chosen is not None and each.rows[each.chosen].barred is Bar.NONE and each.form is each.choice
    least = min((row.total for row in plan.rows[:-1] if row.barred is Bar.NONE), default=None)
    if plan.chosen is not None:
        assert plan.rows[plan.chosen].total == least
    assert again.form is plan.form and again.choice is plan.choice  # nothing has changed, so nothing changes


@pytest.mark.slow("draws many conditions")
@given(drawn.candidates, drawn.conditions, drawn.prices)
def test_a_row_is_the_formula(candidate: Candidate, conditions: Conditions, prices: Prices) -> None:
    terms = decide([candidate], conditions, prices).rows[0].terms
    size, link = candidate.bytes, conditions.link
    air = size if link.frame is None else math.ceil(size / link.frame) * link.frame
    seconds = candidate.steps * conditions.step_s.value if conditions.step_s else 0
    if conditions.encode_rate and conditions.encode_rate.value:
        seconds += min(1e18, candidate.encoded / conditions.encode_rate.value)
    wakeup = conditions.joules_per_wakeup.value if conditions.joules_per_wakeup else link.joules_per_wakeup
    byte = conditions.joules_per_byte.value if conditions.joules_per_byte else link.joules_per_byte
    watts = conditions.watts.value if conditions.watts else 0
    joules = (0 if link.always_on or conditions.awake else wakeup) + air * byte + seconds * watts
    stored = size if candidate.stored is None else candidate.stored
    n = max(1, conditions.forecast.waiting) if conditions.forecast else 1
    expected = [
        prices.per_byte * size, prices.per_joule * joules, prices.per_byte_month * stored * conditions.months.value,
        n * prices.per_second * conditions.recoveries.value * candidate.recover_s, n * prices.per_accuracy * candidate.accuracy_lost,
    ]  # fmt: skip
    found = [terms.bytes, terms.energy, terms.storage, terms.recovery, terms.accuracy]
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-290) and terms.waiting == 0


def test_each_thing_that_stands_against_a_form_is_named_and_the_rest_is_chosen_from() -> None:
    conditions = Conditions(
        uplink=Figure(1000), window_left_s=Figure(10), free_memory=Figure(1e6), promise_s=Figure(2.0), recipes=True, trainer_known=True
    )
    cases = [
        (conditions, SNAPSHOT, Bar.WINDOW), (conditions, RECIPE, Bar.PROMISE), (conditions, replace(DELTA, memory=2e6), Bar.MEMORY),
        (replace(conditions, recipes=False), RECIPE, Bar.RECIPES_OFF), (replace(conditions, trainer_known=False), RECIPE, Bar.TRAINER),
        (conditions, replace(SNAPSHOT, barred=Bar.TOO_LARGE), Bar.TOO_LARGE),
        (replace(conditions, uplink=None, window_left_s=Figure(0)), SNAPSHOT, Bar.WINDOW),
    ]  # fmt: skip
    for there, candidate, bar in cases:
        plan = decide([candidate, DELTA], there, Prices())
        assert plan.rows[0].barred is bar and plan.rows[0].why and plan.rows[0].total > 0
        assert decide([candidate], there, Prices()).form is None
        if there.window_left_s != Figure(0):
            assert plan.choice is Choice.DELTA
    limit = replace(conditions, window_left_s=Figure(1.0))
    assert decide([DELTA], limit, Prices()).choice is Choice.DELTA  # 1,000 bytes in a second at 1,000 bytes/s: it just fits
    assert decide([replace(DELTA, bytes=1001)], limit, Prices()).form is None


def test_where_nothing_fits_it_waits_and_says_why() -> None:
    plan = decide([RECIPE, replace(SNAPSHOT, barred=Bar.TOO_LARGE)], Conditions(), Prices())
    assert plan.choice is Choice.WAIT and plan.form is None and plan.chosen is None
    assert plan.reason.startswith("nothing fits, so it waits: recipe: update.recipes is off")
    assert "larger than an update may be" in plan.reason
    assert decide([], Conditions(), Prices()).reason == "nothing fits, so it waits: no form was offered"


def test_one_form_of_no_bytes_at_no_price_is_chosen() -> None:
    plan = decide([Candidate(Choice.DELTA, 0)], Conditions(), FREE)
    assert plan.choice is Choice.DELTA and plan.rows[0].total == 0


def test_of_two_that_cost_the_same_the_first_goes() -> None:
    assert decide([SNAPSHOT, DELTA], Conditions(), FREE).chosen == 0
    assert decide([DELTA, SNAPSHOT], Conditions(), FREE).chosen == 0


@given(st.floats(0.01, 2), st.floats(0.01, 2))
def test_a_form_stays_until_another_is_cheaper_by_more_than_a_tenth(first: float, second: float) -> None:
    prices = Prices(1, 0, 0, 0, 0, 0)

    def forms(a: float, b: float) -> list[Candidate]:
        return [Candidate(Choice.DELTA, 1000 * a, 0.01), Candidate(Choice.EXACT, 1000 * b)]

    before = decide(forms(0.001, 1), Conditions(), prices)
    assert before.choice is Choice.DELTA
    after = decide(forms(first, second), Conditions(), prices, before.note)
    turns = 1000 * second < 0.9 * (1000 * first)
    assert after.choice is (Choice.EXACT if turns else Choice.DELTA)
    if second < first and not turns:
        assert "as before" in after.rows[0].why and "10 %" in after.reason


def test_a_delta_of_another_density_is_another_form() -> None:
    thin, dense = replace(DELTA, density=0.001, bytes=990.0), replace(DELTA, density=0.01)
    prices = Prices(1, 0, 0, 0, 0, 0)
    before = decide([dense], Conditions(), prices).note
    assert decide([thin, dense], Conditions(), prices, before).density == 0.01
    assert decide([thin, replace(dense, density=0.02)], Conditions(), prices, before).density == 0.001


def test_a_form_that_is_barred_now_does_not_stay() -> None:
    before = decide([SNAPSHOT], Conditions(), Prices()).note
    there = Conditions(uplink=Figure(1000), window_left_s=Figure(10))
    assert decide([SNAPSHOT, DELTA], there, Prices(), before).choice is Choice.DELTA


def test_what_waits_or_did_not_fit_before_binds_nothing() -> None:
    nothing = decide([], Conditions(), Prices()).note
    assert decide([DELTA, SNAPSHOT], Conditions(), Prices(), nothing).choice is Choice.DELTA


def test_the_reason_names_the_choice_the_next_best_and_why_nothing_waits() -> None:
    plan = decide([DELTA, SNAPSHOT], Conditions(profile_of("lte")), Prices())
    assert plan.reason == "delta 0.3 % now, for 0.000103: snapshot would come to 0.0101; nothing waits on lte, which is always on"
    assert [row.name for row in plan.rows] == ["delta 0.3 %", "snapshot", "wait"]


def test_every_figure_that_was_known_is_listed_with_its_source() -> None:
    there = Conditions(profile_of("wifi"), uplink=Figure(5e4), forecast=Forecast(Figure(60.0)))
    sources = {name: source for name, _, source in decide([DELTA], there, Prices()).sources}
    assert sources["joules_per_wakeup"].startswith("profile: wifi (phones of 2012") and sources["uplink"] == "default"
    assert {"interval_s", "months", "recoveries", "joules_per_byte"} <= set(sources) and "watts" not in sources


@pytest.mark.parametrize(
    "fields",
    [{"bytes": -1}, {"bytes": math.nan}, {"density": -0.1}, {"alone": math.inf}, {"full": -1}, {"stored": -1}, {"memory": 1e19},
     {"recover_s": -1}, {"accuracy_lost": math.nan}, {"choice": Choice.WAIT}],
)  # fmt: skip
def test_a_candidate_that_is_none_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(BadArgument):
        Candidate(**{"choice": Choice.DELTA, "bytes": 1, **fields})  # type: ignore[arg-type]


def test_the_bits_of_a_plan_are_these_on_every_machine() -> None:
    there = Conditions(
        profile_of("lte-sleeping"), encode_rate=Figure(1.7e6), watts=Figure(2.3), recoveries=Figure(0.7), months=Figure(11),
        forecast=Forecast(Figure(3100.0), 4, 9000.0, 70_000.0, Figure(20_000.0), Figure(7_000.0)),
    )  # fmt: skip
    forms = [Candidate(Choice.DELTA, 3_600, 0.003, 1_000, 61_000, encoded=50_826, recover_s=0.31, accuracy_lost=1e-5), SNAPSHOT]
    plan = decide(forms, there, Prices())
    assert [row.total.hex() for row in plan.rows] == ["0x1.11b02396aaf4cp-10", "0x1.5e1dc288a62c6p-7", "0x1.8410513c47d73p-11"]
    assert plan.wait_s.hex() == "0x1.d0012df601764p+14"
