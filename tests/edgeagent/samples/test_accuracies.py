"""A card tells how well the model does in each context, of held-out samples, and only where that may leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeagent.samples import cards
from edgeagent.samples.cards import Beside
from edgeagent.samples.spool import Spool, is_held_out
from edgeagent.service.goal import Goal
from edgeagent.settings.tree import PrivacySettings
from modelwire.cards.card import ENTRIES_MAX, Card, parse_card
from modelwire.tensors import F32, Weights
from tests.edgeagent.boards import ScriptedModel, centre, rig
from tests.edgeagent.centre import FakeClock

X = np.random.default_rng(5).normal(size=(200, 4)).astype(np.float32)
DAYS = [{"day": "sun" if x[3] > 0 else "rain"} for x in X]


def by_day(x: F32, weights: Weights) -> F32:
    """Answer right where the fourth number is above 0, wrong elsewhere."""
    answer = x[:, :3].argmax(1)
    return np.eye(3, dtype=np.float32)[np.where(x[:, 3] > 0, answer, (answer + 1) % 3)]


def told(tmp_path: Path, clock: FakeClock, **changes: str) -> Card:
    """Return the card of a round on samples of two kinds of day."""
    c = centre(clock)
    settings = {"privacy__least": "0", "train__held_out": "0.4", **changes}
    with rig(tmp_path / "d", c, lambda file, name: ScriptedModel(file, answer=by_day), **settings) as r:
        r.device.spool.extend("tiny", X, X[:, :3].argmax(1), contexts=DAYS)
        r.run(Goal(rounds=1, timeout=60))
        data = c.held("pi-7", "tiny")[1].header.extension["card"]
        assert isinstance(data, bytes)
        return parse_card(data)


def test_a_card_tells_the_accuracy_in_each_context(tmp_path: Path, clock: FakeClock) -> None:
    card = told(tmp_path, clock)
    judging = [i for i in range(200) if is_held_out(i + 1, 0.4)]
    for day, right in (("sun", 1.0), ("rain", 0.0)):
        name = f"accuracy/day={day}"
        assert card.entries[name][0] == sum(DAYS[i]["day"] == day for i in judging) and card.entry(name) == right
    assert set(card.entries) == {"accuracy/day=sun", "accuracy/day=rain"} and card.judged == len(judging)


@pytest.mark.parametrize("changes", [
    {"privacy__leave": "labels hours tags channels"}, {"privacy__leave": "loss labels"}, {"privacy__leave": "loss tags.weather"},
    {"privacy__epsilon": "4"}, {"privacy__least": "199"},
])  # fmt: skip
def test_it_stays_where_the_tag_or_the_loss_does_where_there_is_noise_and_where_few_are_judged(
    tmp_path: Path, clock: FakeClock, changes: dict[str, str]
) -> None:
    assert told(tmp_path, clock, **changes).entries == {}


def test_one_tag_may_leave_alone(tmp_path: Path, clock: FakeClock) -> None:
    assert len(told(tmp_path, clock, privacy__leave="loss tags.day").entries) == 2


def test_a_context_that_few_share_stays_and_the_others_leave() -> None:
    contexts = [{"day": "a"}] * 4 + [{"day": "b"}] * 5 + [{}] * 9
    assert {name: at.tolist() for name, at in cards.judged_in(contexts, PrivacySettings()).items()} == {"accuracy/day=b": [4, 5, 6, 7, 8]}


def test_only_so_many_entries_leave_and_those_of_the_most_samples() -> None:
    contexts = [{"place": f"{k:03}"} for k in range(100) for _ in range(1 + (k >= 50))]
    named = cards.judged_in(contexts, PrivacySettings(least=0))
    assert len(named) == ENTRIES_MAX and {f"accuracy/place={k:03}" for k in range(50, 100)} < set(named)


def test_a_name_that_is_too_long_for_an_entry_is_left_out() -> None:
    assert cards.judged_in([{"n" * 30: "v" * 40}], PrivacySettings(least=0)) == {}


def test_entries_go_first_where_a_card_has_no_room_and_never_outgrow_it() -> None:
    contexts = [{"day": str(k % 7)} for k in range(700)]
    whole = Card(700, labels={0: 300, 1: 400})

    def beside(room: int) -> Card:
        card = cards.beside(whole, Beside("", {}, 700, PrivacySettings(least=0), room, contexts))
        assert card is not None
        return card

    full = beside(8000)
    places = cards.judged_in(contexts, PrivacySettings(least=0))
    size = len(cards.sealed(full, 1.0, 1.0))
    for right in (np.zeros(700, bool), np.ones(700, bool), np.arange(700) % 3 == 0):
        said = cards.with_accuracies(full, places, right)
        assert len(said.entries) == 7 and len(cards.sealed(said, 1.0, 1.0)) <= size
        assert said.entry("accuracy/day=3") == pytest.approx(right[3::7].mean(), abs=1e-6)
    small = beside(size - 50)
    assert small.entries == {} and small.labels == whole.labels
    assert cards.with_accuracies(small, places, np.ones(700, bool)).entries == {}, "no room was made for them"
    assert cards.with_accuracies(full, places, None).entries == {}


def test_the_spool_tells_the_contexts_of_samples_that_are_there(tmp_path: Path) -> None:
    Spool.create(tmp_path)
    with Spool(tmp_path) as s:
        s.register("m", (4,), (3,), max_samples=40, max_bytes=1 << 20)
        ids = s.extend("m", X[:5], [0, 1, 2, 0, 1], contexts=[{"a": "x"}, None, {"a": "y", "b": "z"}, None, {"a": "x"}])
        s.drop("m", [ids[4]])
        got = s.contexts("m", np.array([ids[2], ids[0], ids[1], ids[4]]))
        assert got == [{"a": "y", "b": "z"}, {"a": "x"}, {}, {}] and s.contexts("m", np.array([], np.int64)) == []
