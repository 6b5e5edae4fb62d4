"""Who says more than the centre finds is told from who sees another world, and no honest version is called unfit beyond the stated rate."""

from __future__ import annotations

from math import comb
from pathlib import Path

import numpy as np
import pytest

from edgecloud.feasibility import evaluating, fitness
from edgecloud.registry import EvaluationRow
from modelwire.cards.card import card_of
from modelwire.errors import Unfit
from tests.edgecloud.feasibility.liars import LIAR, Car, planted

SET = b"p" * 32


@pytest.mark.parametrize(("right", "n"), [(0, 20), (3, 20), (19, 20), (95, 1000), (500, 1000)])
def test_the_bound_is_the_exact_one(right: int, n: int) -> None:
    p = fitness.upper(right, n)
    tail = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(right + 1))
    assert tail == pytest.approx(fitness.ALPHA, rel=1e-6)
    assert fitness.upper(n, n) == 1.0


def test_a_version_is_judged_by_the_rows_of_its_own_world() -> None:
    rng = np.random.default_rng(3)
    light, weather = rng.choice(["day", "night"], 4000), rng.choice(["rain", "sun", ""], 4000)
    labels = rng.integers(0, 4, 4000)
    card = card_of(100, labels=np.array([0] * 60 + [1] * 35 + [2] * 5), tags={"light": ["night"] * 95 + ["day"] * 5})
    tags = {"light": light, "weather": weather}
    seen = fitness.world(card, tags, labels, fitness.chances(SET, 4000))
    assert seen is not None
    own = seen.mine
    assert set(light[own]) == {"night"} and set(labels[own]) == {0, 1}
    assert (labels[own] == 0).mean() == pytest.approx(60 / 95, abs=0.05)  # as frequent as the card tells
    assert [set(weather[cell]) for cell, _ in seen.left_open] == [{"rain"}, {"sun"}]  # of weather it tells nothing: each may be its world
    whole = fitness.world(None, tags, labels, fitness.chances(SET, 4000))
    assert whole is not None and whole.mine.all() and [of_class for _, of_class in whole.left_open] == [False] * 4 + [True] * 4
    many = card_of(4000, labels=np.arange(4000) % 40)  # of none a tenth
    classes = fitness.world(many, {}, np.arange(4000) % 50, fitness.chances(SET, 4000))
    assert classes is not None and int(classes.mine.sum()) == 3200
    strange = card_of(100, tags={"light": ["tunnel"] * 100})
    assert fitness.world(strange, tags, labels, fitness.chances(SET, 4000)) is None  # none of its world: nothing is said


def row(n: int, right: int | None, base_right: int | None, broken: int = 0, context: str = fitness.OWN) -> EvaluationRow:
    return EvaluationRow(7, SET, context, n, right, base_right, None, broken, 1.0, 1)


@pytest.mark.parametrize(
    ("own", "claimed", "found"),
    [
        (row(400, 38, 300), 0.99, True),  # the version of the issue: it says 0.99 and measures 0.095
        (row(400, 38, 300), None, False),  # it says nothing
        (row(400, 38, 60), 0.99, False),  # its base is no better: the rows are another world than all of them know
        (row(400, 38, 300), 0.2, False),  # it says itself how it is
        (row(20, 7, 15), 0.99, False),  # so few rows may be chance
        (row(400, 290, 300), 0.99, False),  # within the margin of its base
    ],
)
def test_only_what_is_below_claim_and_base_beyond_chance_is_unfit(own: EvaluationRow, claimed: float | None, found: bool) -> None:
    whole = row(400, 40, None, context=fitness.ALL)
    assert (fitness.judge(whole, own, whole, claimed) is not None) == found


def test_outputs_that_are_no_numbers_are_unfit_unless_the_base_gives_none_either() -> None:
    whole, base = row(50, 40, None, broken=3, context=fitness.ALL), row(50, 40, None, context=fitness.ALL)
    found = fitness.judge(whole, None, base, None)
    assert found is not None and found.words == "unfit: it gives no number on 3 of 50 rows"
    assert fitness.judge(whole, None, whole, 0.99) is None


def test_what_no_card_tells_may_be_all_that_a_device_sees() -> None:
    rng = np.random.default_rng(2)
    light, labels = rng.choice(["day", "night"], 2000), rng.integers(0, 10, 2000)
    seen = fitness.world(None, {"light": light}, labels, fitness.chances(SET, 2000))
    assert seen is not None
    base = rng.random(2000) < 0.7
    night, three, nothing = (light == "night") & (rng.random(2000) < 0.97), (labels < 3) & (rng.random(2000) < 0.97), np.zeros(2000, bool)
    for right, honest in ((night, True), (three, True), (nothing, False), (labels == 0, True)):
        n, mine, bases = fitness.fairest(seen, right, base, 0.98)
        assert (fitness.judge(None, row(n, mine, bases), None, 0.98) is None) == honest


def test_honest_versions_are_called_unfit_no_more_often_than_stated() -> None:
    rng = np.random.default_rng(1)
    flagged = 0
    for _ in range(4000):  # the worst that is honest: MARGIN below its base, and a claim that is luck
        own = row(200, int(rng.binomial(200, 0.8)), 180)
        flagged += fitness.judge(None, own, None, 1.0) is not None
    assert flagged <= 4000 * fitness.ALPHA * 3


def test_a_liar_is_found_among_honest_cars_and_the_nearest_fit_version_is_named(tmp_path: Path) -> None:
    store = planted(tmp_path)
    car = Car(store)
    car.send(car.wrong(), accuracy_after=0.99)
    car.send(list(car.base.weights), accuracy_after=0.5)
    lineage = store.lineages.of(LIAR)[0]
    bad, good = store.versions.of(lineage.id)
    probe = store.probes.all()[0]
    with pytest.raises(Unfit, match="scored on no probe set"):
        fitness.require_fit(store, lineage, bad)
    versions = [row for _, row in evaluating.everything(store, "digits")]
    done = evaluating.evaluate(store, probe, versions, now=lambda: 5.0, at_once=10)
    assert (done.versions, done.failed) == (len(versions), {}) and len(versions) == 26
    found = fitness.unfit(store, [row.id for row in versions])
    assert set(found) == {bad.id} and fitness.unscored(store, [row.id for row in versions]) == []
    assert found[bad.id].words.startswith("unfit: it says accuracy 0.990 and measures 0.") and found[bad.id].claimed == 0.99
    with pytest.raises(Unfit) as refused:
        fitness.require_fit(store, lineage, bad)
    assert f"{LIAR}/digits@2 --fit-only" in refused.value.next_step
    fitness.require_fit(store, lineage, good)
    store.close()
