"""Whose model would do: rows weighted by cards, halves that are drawn once, honest answers where nothing is better or nothing is known."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecloud import cli
from edgecloud.commands.comparing import feasible
from edgecloud.feasibility import evaluating, ranking, shortlisting
from edgecloud.probes import sets
from edgecloud.registry import SqliteStore
from modelwire.cards.card import Card, card_of
from modelwire.errors import BadArgument
from modelwire.lattice.snap import no_residual, snap
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.stock import runtime
from tests.worlds import MODELS

LIGHT = ("day", "night")


def probe_rows(n: int = 400) -> sets.ProbeSet:
    with np.load(MODELS / "data" / "digits.npz") as data:
        x, y = data["test_x"][:n].reshape(-1, 64) / 16.0, data["test_y"][:n].astype(np.int64)
    light = [LIGHT[i % 4 == 0] for i in range(len(x))]
    return sets.probe_set(x, y, {"light": light, "region": ["alps" if i % 3 else "coast" for i in range(len(x))]})


def card(nights: int, of: int = 100, labels: Mapping[int, int] | None = None) -> Card:
    shown = np.repeat(np.array(list(labels or {0: of})), list((labels or {0: of}).values()))
    return card_of(of, labels=shown if labels else None, tags={"light": ["night"] * nights + ["day"] * (of - nights)})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Three devices on the digits model whose training is noise, with cards; a fourth without one."""
    runtime()
    base = Base.of(MODELS / "digits.tflite")
    held = make_registry(tmp_path / "fleet.db", base)
    centre = Centre(held)
    for k, name in enumerate(("day-1", "night-1", "night-2", "silent")):
        device = centre.meet(ScriptedDevice(base, name=name, seed=k))
        said = {} if name == "silent" else {"card": card(90 if "night" in name else 5).encode()}
        centre.deliver(device, device.train(extension={"samples": 100, **said}))
    centre.rebuild()
    sets.add(held, "roads", probe_rows(), now=1)
    yield held
    held.close()


def ask(store: SqliteStore, device: str = "", context: str = "", count: int = 10) -> ranking.Ranking:
    lineage = store.lineages.of(device)[0] if device else None
    return ranking.rank(store, "digits", sets.find(store, "roads"), device=lineage, context=context, count=count)


def test_none_is_better_than_the_base_where_training_was_noise(store: SqliteStore) -> None:
    found = ask(store, "night-1")
    assert not found.is_better(ranking.BASE)
    assert [one.role for one in found.models].count(ranking.BASE) == 1
    assert [one.name for one in found.models if one.role == ranking.OWN] == ["night-1/digits@1"]
    assert found.best is not None and found.best.role == ranking.OTHER
    for one in found.models:
        assert one.score.low <= one.score.value <= one.score.high
    apart = {one.device: one.apart for one in found.models}
    assert apart["night-2"] == 0 and apart["day-1"] is not None and apart["day-1"] > 0.25 and apart["silent"] is None


def test_models_are_chosen_and_judged_on_other_rows_and_the_same_ones_each_time(store: SqliteStore) -> None:
    one, other = ask(store, "night-1"), ask(store, "night-1")
    assert one.models == other.models
    rows = shortlisting.of_context(probe_rows(), "light=night")
    first, second = shortlisting.halves(rows, b"digest")
    assert not (first & second).any() and (first | second).all()
    assert abs(int(first.sum()) - int(second.sum())) <= 1
    assert (first == shortlisting.halves(rows, b"digest")[0]).all()
    assert (first != shortlisting.halves(rows, b"another")[0]).any()


def test_a_base_is_among_the_models_of_a_context_and_count_limits_others(store: SqliteStore) -> None:
    found = ask(store, context="light=day,region=alps", count=1)
    assert sorted(one.role for one in found.models) == [ranking.BASE, ranking.OTHER]
    assert found.rows.even
    assert found.candidates == 4 and found.bases == 1
    assert "start from 2 bases: the one that they are held against is that of most" in feasible._text(replace(found, bases=2))


def test_a_context_that_nobody_has_names_those_that_exist(store: SqliteStore) -> None:
    with pytest.raises(BadArgument) as error:
        ask(store, context="light=noon")
    assert "light=noon" in error.value.message and "light=night" in str(error.value.facts)


def test_a_device_and_a_context_at_once_are_no_question(store: SqliteStore) -> None:
    with pytest.raises(BadArgument, match="one device or one context"):  # not an answer to one of them
        ask(store, "night-1", context="light=day")


def test_a_device_without_cards_is_told_apart_from_one_that_has_them(store: SqliteStore) -> None:
    with pytest.raises(BadArgument, match="no update of silent/digits carried a data card"):
        ask(store, "silent")


def test_a_model_that_says_what_the_centre_does_not_find_is_left_out(store: SqliteStore) -> None:
    base = Base.of(MODELS / "digits.tflite")
    centre = Centre(store, now=2000)
    device = centre.meet(ScriptedDevice(base, name="liar", seed=9))
    told = card(50, labels=dict.fromkeys(range(10), 10))
    broken = [w * np.float32(0) if i == 5 else w for i, w in enumerate(base.weights)]
    made = snap(device.state, broken, no_residual(base.manifest), density=1.0, max_bytes=1 << 20)
    device.state = made.state
    centre.deliver(device, device.seal(Kind.DELTA, made.sections, extension={"accuracy_after": 0.99, "card": told.encode()}))
    centre.rebuild()
    evaluating.evaluate(store, sets.find(store, "roads"), [row for _, row in evaluating.heads(store, "digits")])
    found = ask(store, "night-1")
    assert found.unfit == ("liar/digits@1",)
    assert all(one.device != "liar" for one in found.models) and not found.own_unfit
    assert ask(store, "liar").own_unfit.startswith("unfit: it says accuracy 0.990")  # it is shown, and said what it is


def test_rows_are_weighted_until_tags_and_labels_are_as_frequent_as_in_the_card() -> None:
    rows = probe_rows()
    found = shortlisting.of_card(rows, card(60, labels={0: 50, 1: 30, 2: 20}), "pi-7")
    night = np.array(rows.tags["light"])[found.rows] == "night"
    assert rows.labels is not None
    labels, share = rows.labels[found.rows], found.weights / found.weights.sum()
    assert set(labels.tolist()) == {0, 1, 2}
    assert share[night].sum() == pytest.approx(0.6, abs=1e-6)
    assert [share[labels == k].sum() for k in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=1e-6)
    assert found.fields == ("tags.light", "labels")


def test_what_a_card_tells_and_no_row_has_is_said() -> None:
    made = card_of(100, tags={"light": ["night"] * 60 + ["fog"] * 40})
    assert shortlisting.of_card(probe_rows(), made, "pi-7").lacking == {"light=fog": 0.4}
    eleven = card(50, of=110, labels=dict.fromkeys(range(11), 10))
    assert shortlisting.of_card(probe_rows(), eleven, "pi-7").lacking == {"label=10": pytest.approx(1 / 11)}  # as contexts name it
    with pytest.raises(BadArgument, match="0 equally weighted rows"):
        shortlisting.of_card(probe_rows(), card_of(10, tags={"light": ["fog"] * 10}), "pi-7")
    with pytest.raises(BadArgument, match="the cards of pi-7 tell none of it"):
        shortlisting.of_card(probe_rows(), card_of(10, tags={"weather": ["fog"] * 10}), "pi-7")


def test_too_few_rows_of_a_context_give_no_answer() -> None:
    with pytest.raises(BadArgument, match="30 that an answer needs"):
        shortlisting.of_context(probe_rows(40), "light=night")


def test_the_command_answers_people_and_machines(store: SqliteStore, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(store.database.path)
    assert cli.main(["--db", path, "feasible", "--for", "night-1"]) == 0
    text = capsys.readouterr().out
    assert "None is better than the base beyond chance" in text
    assert "(own)" in text and "(base)" in text and "95 in 100" in text
    assert "Clopper and Pearson, of so many rows as count the same" in text  # weighted ones are not exact
    assert cli.main(["--db", path, "--json", "feasible", "--context", "light=night", "--count", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert cli.main(["--db", path, "feasible", "--context", "light=night"]) == 0
    assert "Clopper and Pearson, exact" in capsys.readouterr().out
    assert told["better_than_base"] is False and told["own_unfit"] is None and told["better_than_own"] is None
    assert [one["role"] for one in told["models"]].count("other") == 1
    assert all(one["low"] <= one["score"] <= one["high"] for one in told["models"])


def test_nothing_is_called_better_than_a_base_that_could_not_be_scored(store: SqliteStore) -> None:
    found = ask(store, context="light=night")
    alone = replace(found, models=tuple(one for one in found.models if one.role != ranking.BASE))
    assert "nothing says that it is better than the base" in feasible._text(alone) and not alone.is_better(ranking.BASE)


@pytest.mark.parametrize("words", [[], ["--for", "night-1", "--context", "light=night"], ["--for", "night-1@1"], ["--context", "light"]])
def test_what_the_command_can_not_take_is_said_with_what_to_do(
    store: SqliteStore, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(["--db", str(store.database.path), "feasible", *words]) != 0
    assert "try:" in capsys.readouterr().err
