"""Data cards beside updates: they tell of the whole stream once, of nothing that shall stay, and cost no update its place."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeagent.samples import cards
from edgeagent.samples.spool import Spool
from edgeagent.service.goal import Goal
from edgeagent.settings.channels import channels_of, values_of
from edgeagent.state.outcome import merged
from edgecommon import runtime
from modelwire.cards.card import CARD_MAX, Card, card_of, merge, parse_card
from modelwire.cards.facts import FACTS, completed, facts_in, told_after
from modelwire.cards.privacy import Privacy
from modelwire.cards.sketch import Channel
from modelwire.errors import ConfigError, RuntimeUnusable
from tests.edgeagent.boards import Rig, ScriptedModel, centre, make, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.heads import board, grafted, samples

X = np.random.default_rng(5).normal(size=(4000, 4)).astype(np.float32)
Y = X[:, :3].argmax(1)


def sent(r: Rig) -> dict[int, Card]:
    """Return the cards at the centre, by version."""
    held = r.centre.held("pi-7", "tiny")
    return {v: parse_card(h.header.extension["card"]) for v, h in sorted(held.items()) if "card" in h.header.extension}  # type: ignore[arg-type]


def add(r: Rig, start: int, count: int) -> None:
    contexts = [{"weather": "rain" if i % 3 == 0 else "sun"} for i in range(start, start + count)]
    r.device.spool.extend("tiny", X[start : start + count], Y[start : start + count], contexts=contexts)


def whole(ids: Sequence[int]) -> Card:
    """Return the card of samples as the stream has them, without hours."""
    at = np.array(ids)
    tags = {"weather": ["rain" if i % 3 == 0 else "sun" for i in ids]}
    channels = [Channel("x.deviation"), Channel("x.mean")]
    flat = X[at].astype(np.float64)
    return card_of(len(at), labels=Y[at], tags=tags, channels=channels, values=np.stack([flat.std(1), flat.mean(1)], 1))


def without_facts(card: Card) -> Card:
    tags = {name: values for name, values in card.tags.items() if name not in FACTS}
    return replace(card, tags=tags, hours=(), judged=0, loss_before=0, loss_after=0, entries={})


def whole_told(told: Iterable[Card]) -> Card:
    """Return the sum of cards as the centre counts them: facts hold until others are told."""
    total, known = Card(), dict[str, str]()
    for card in told:
        total, known = merge(total, completed(card, known)), told_after(card, known)
    return total


OPEN = {"privacy__least": "0", "train__min_samples": "8"}


def test_the_cards_of_a_lineage_merge_to_the_card_of_the_whole_stream(tmp_path: Path, clock: FakeClock) -> None:
    """Whatever the reservoir dropped before a round saw it, and whichever round was rejected or cut short."""
    c = centre(clock)
    with rig(tmp_path / "d", c, spool__max_samples="50", **OPEN) as r:
        at = 0
        for n, count in enumerate((30, 400, 0, 90, 3)):
            add(r, at, count)
            at += count
            if n == 1:  # a round that begins and is then abandoned, as by a kill
                spool = r.device.spool
                spool.cards.begin("tiny", spool.last_id("tiny"))
                add(r, at, 70)
                at += 70
            r.run(Goal(rounds=n + 1, timeout=60))
        told = sent(r)
        assert len(told) == 4, "a round without new samples has no card"
        total = Card()
        for card in told.values():
            total = merge(total, card)
        assert without_facts(total) == whole(range(at))
        assert sum(total.hours) == at == total.samples
        assert [v for v, card in told.items() if "runtime" in card.tags] == [1], "what did not change is not said again"
        assert whole_told(told.values()).tags["runtime"] == {"scripted 1": at}
        assert all(card.judged > 0 and card.losses[0] == pytest.approx(np.log(3), abs=1e-4) for card in told.values())


def test_facts_are_told_when_they_change_and_anew_after_a_refusal_and_in_a_new_epoch(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"isa": "x86_64/64", "runtime": "a 1"}
    monkeypatch.setattr("edgeagent.samples.card_store.cards.facts", lambda _: about)
    with rig(tmp_path / "d", centre(clock), **OPEN) as r:
        told: list[dict[str, str]] = []

        def round() -> None:
            add(r, 30 * len(told), 30)
            r.run(Goal(rounds=len(told) + 1, timeout=60))
            told.append(facts_in(list(sent(r).values())[-1]))

        round(), round()
        about = {"isa": "x86_64/64", "runtime": "a 2"}
        round(), round()
        assert told == [{"isa": "x86_64/64", "runtime": "a 1"}, {}, about, {}]
        good, row = r.lineage.head().commit, r.lineage.versions(1)[0]
        r.lineage.refused(row, "a test", good, 0)
        round(), round()
        assert told[4:] == [about, {}]
        assert r.lineage.told() == about
        r.device.database.run("UPDATE model SET epoch=epoch+1")
        assert r.lineage.told() == {}, "a new epoch is told all"


def test_a_fact_that_may_not_leave_is_not_waited_for(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), privacy__leave="labels, tags.runtime", privacy__least="20") as r:
        for n, count in enumerate((10, 30, 30)):
            add(r, 200 * n, count)
            r.run(Goal(rounds=n + 1, timeout=60))
        assert [facts_in(card) for card in sent(r).values()] == [{}, {"runtime": "scripted 1"}, {}]


def test_coalesced_cards_count_facts_as_they_held(tmp_path: Path) -> None:
    def card(samples: int, runtime: str = "") -> dict[str, bytes]:
        return {"card": Card(samples, tags={"runtime": {runtime: samples}} if runtime else {}).encode()}

    told = merged([card(5), card(7, "a 1"), card(11), card(13, "a 2"), card(17)], [1, 2, 3, 4, 5])["card"]
    assert isinstance(told, bytes)
    one = parse_card(told)
    assert one.tags == {"runtime": {"a 1": 18, "a 2": 30}} and one.samples == 53
    assert completed(one, {"runtime": "a 0"}).tags == {"runtime": {"a 0": 5, "a 1": 18, "a 2": 30}}
    assert told_after(one, {"runtime": "a 0", "isa": "x"}) == {"isa": "x"}, "which came last is not known"
    assert told_after(Card(5), {"runtime": "a 0"}) == {"runtime": "a 0"}


def test_a_queue_in_which_a_fact_changed_tells_it_again(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"runtime": "a 1"}
    monkeypatch.setattr("edgeagent.samples.card_store.cards.facts", lambda _: about)
    with rig(tmp_path / "d", centre(clock), **OPEN) as r:
        r.run(Goal(publish=True, timeout=60))
        for n in range(2):
            add(r, 30 * n, 30)
            train(r, 1)
            about = {"runtime": "a 2"}
        assert r.lineage.told() == about
        r.lineage.coalesce()
        assert r.lineage.told() == {}


def test_a_rejected_round_keeps_its_samples_for_the_next_card(tmp_path: Path, clock: FakeClock) -> None:
    bad = [True]

    def model(file: bytes, name: str) -> ScriptedModel:
        start = ScriptedModel(file).get_weights()

        def answer(x: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
            moved = any((weights[k] != start[k]).any() for k in start)
            return np.full((len(x), 3), np.nan if moved and bad[0] else 1 / 3, np.float32)

        return ScriptedModel(file, answer=answer)  # type: ignore[arg-type]

    with rig(tmp_path / "d", centre(clock), model, **OPEN) as r:
        add(r, 0, 40)
        r.run(Goal(rounds=1, timeout=60))
        assert not sent(r) and not r.states()
        bad[0] = False
        add(r, 40, 20)
        r.run(Goal(rounds=2, timeout=60))
        assert [without_facts(card) for card in sent(r).values()] == [whole(range(60))]


def test_a_kill_between_the_two_databases_tells_of_no_sample_twice(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, **OPEN) as r:
        add(r, 0, 40)
        monkeypatch.setattr(type(r.device.spool.cards), "carded", lambda *_: None)
        r.run(Goal(rounds=1, timeout=60))
        monkeypatch.undo()
        assert r.device.spool.cards.coming("tiny", 1 << 60).samples == 40
    with rig(tmp_path / "d", c) as r:
        assert r.device.spool.cards.coming("tiny", 1 << 60).samples == 0
        assert r.device.spool.cards.known("tiny").samples == 40
        add(r, 40, 30)
        r.run(Goal(rounds=2, timeout=60))
        assert [card.samples for card in sent(r).values()] == [40, 30]


def test_what_shall_stay_stays(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), privacy__leave="labels, tags.weather", privacy__least="15") as r:
        add(r, 0, 40)
        r.run(Goal(rounds=1, timeout=60))
        (card,) = sent(r).values()
        rain = sum(i % 3 == 0 for i in range(40))
        assert card.tags == {"weather": {"sun": 40 - rain}} and rain < 15
        assert set(card.labels) == {k for k in range(3) if (Y[:40] == k).sum() >= 15}
        assert not card.hours and not card.sketches and not card.judged and card.samples == 40


def test_noise_is_another_each_time_and_off_by_default(tmp_path: Path, clock: FakeClock) -> None:
    card = whole(range(500))
    plain = [cards.to_leave(card, {}, Privacy(least=5), 0) for _ in range(2)]
    noisy = [cards.to_leave(card, {}, Privacy(least=5, epsilon=1.0), 0).labels for _ in range(2)]
    assert plain[0] == plain[1] and plain[0].labels == card.labels
    assert noisy[0] != noisy[1]


def test_no_card_leaves_when_it_is_switched_off_nor_of_that_time_later(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, privacy__card="false") as r:
        add(r, 0, 40)
        r.run(Goal(rounds=1, timeout=60))
        assert not sent(r)
    path = tmp_path / "d" / "edgeagent.toml"
    path.write_text(path.read_text().replace("card = false", "card = true"))
    with rig(tmp_path / "d", c) as r:
        add(r, 40, 20)
        r.run(Goal(rounds=2, timeout=60))
        assert [card.samples for card in sent(r).values()] == [20]


def test_coalesced_updates_carry_the_sum_of_their_cards_and_snapshots_none(tmp_path: Path, clock: FakeClock) -> None:
    a, b = whole(range(30)), whole(range(30, 90))
    told = merged([{"card": a.encode(), "samples": 3}, {"note": "x"}, {"card": b.encode()}], [1, 2, 3])
    assert parse_card(told["card"]) == whole(range(90))  # type: ignore[arg-type]
    with rig(tmp_path / "d", centre(clock), **OPEN) as r:
        add(r, 0, 40)
        r.run(Goal(rounds=1, timeout=60))
        r.lineage.snapshot(0, note="asked for")
        r.run(Goal(publish=True, timeout=60))
        assert list(sent(r)) == [1]


def test_an_update_without_room_for_its_card_goes_and_the_next_one_tells(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path / "d", centre(clock), update__max_bytes="600B", **OPEN) as r:
        add(r, 0, 40)
        monkeypatch.setattr("edgeagent.samples.card_store.cards.facts", lambda _: {"board": "b" * 40, "isa": "i" * 40})
        monkeypatch.setattr("edgeagent.rounds.opening.CARD_SHARE", 1)  # a card of all that the update may take
        r.run(Goal(rounds=1, timeout=60))
        assert r.states() == {1: "verified"} and not sent(r)
        monkeypatch.undo()
        add(r, 40, 20)
        r.run(Goal(rounds=2, timeout=60))
        (card,) = sent(r).values()
        assert card.samples == 60 and len(card.encode()) <= 150
        assert r.lineage.versions(1)[0]["bytes"] <= 600


@pytest.mark.slow("reads hundreds of odd streams")
def test_a_card_never_outgrows_what_travels_however_odd_the_stream(tmp_path: Path) -> None:
    Spool.create(tmp_path)
    with Spool(tmp_path) as s:
        s.register("m", (4,), (3,), max_samples=40, max_bytes=1 << 20, channels=("x.mean", "x.3", "x.9"))
        for n in range(6):
            names = {f"name-{n}-{k}-{'long' * 10}": f"{'v' * 30}{{}}" for k in range(8)}
            contexts = [{name: value.format(i) for name, value in names.items()} for i in range(300)]
            s.extend("m", X[:300], Y[:300], contexts=contexts)
        card = s.cards.begin("m", s.last_id("m"))
        data = card.encode()
        assert card.samples == 1800 and len(data) <= CARD_MAX and parse_card(data) == card
        assert sum(card.labels.values()) == 1800
        small = cards.to_leave(card, {"board": "b" * 40}, Privacy(), 9, 200)
        assert len(cards.sealed(small, 1.0, 1e30)) <= 200 and small.samples == 1800
        s.cards.carded("m", s.last_id("m"))
        assert s.cards.coming("m", 1 << 60).samples == 0


def test_losses_that_no_card_can_say_are_left_out() -> None:
    card = Card(9, judged=9)
    for losses in ((float("nan"), 1.0), (1.0, float("inf")), (None, 1.0), (1e300, 1.0)):
        assert parse_card(cards.sealed(card, *losses)).judged == 0
    assert parse_card(cards.sealed(card, 2.0, 0.5)).losses == (2.0, 0.5)


def test_channels_are_measured_as_they_are_named() -> None:
    channels = channels_of(("x.mean", "x.deviation", "x.least", "x.most", "x.2:0.5:-3:4", "x.99"))
    assert channels[4] == Channel("x.2", 0.5, -3, 4)
    got = values_of(channels, X[:10].reshape(10, 2, 2))
    flat = X[:10].astype(np.float64)
    assert np.array_equal(got[:, :5], np.stack([flat.mean(1), flat.std(1), flat.min(1), flat.max(1), flat[:, 2]], 1))
    assert np.isnan(got[:, 5]).all()
    for wrong in (("y.mean",), ("x.mean:a",), ("x.mean:0:99",), ("x.mean", "x.mean:1"), ("x.mean:0:0:0:0",), ("x.-1",)):
        with pytest.raises(ConfigError, match="channels"):
            channels_of(wrong)


def test_a_changed_axis_starts_its_sketch_anew(tmp_path: Path) -> None:
    Spool.create(tmp_path)
    with Spool(tmp_path) as s:
        for axis in ("x.mean", "x.mean:1:3"):
            s.register("m", (4,), (3,), max_samples=100, max_bytes=1 << 20, channels=(axis,))
            s.extend("m", X[:300], Y[:300])
        card = s.cards.coming("m", 1 << 60)
        assert card.samples == 600 and card.sketches[0].channel == Channel("x.mean", 1.0, 3)
        assert 300 <= card.sketches[0].count <= 400  # of the new ones, and of old ones that were there still


def test_facts_are_words_of_a_card() -> None:
    told = cards.facts("ai-edge-litert 2.3.0 x86_64/64 xnnpack threads=1")
    assert told["runtime"] == "ai-edge-litert 2.3.0" and told["isa"] == "x86_64/64"
    assert all(0 < len(value) <= 40 and value.isprintable() for value in told.values())
    assert "runtime" not in cards.facts("")
    exact = cards.facts("exact-head 1 int8")  # the same bits on every processor: its key names none
    assert exact["runtime"] == "exact-head 1" and exact["isa"].startswith(platform.machine())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privacy__leave", "faces"), ("privacy__leave", "labels.3"), ("card__channels", "z"), ("privacy__card", "1"),
        ("privacy__least", "2.5"),
    ],
)  # fmt: skip
def test_settings_of_cards_are_checked(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises((ConfigError, ValueError)):
        make(tmp_path, **{key: value})


@pytest.mark.slow("its round starts a process that computes features")
@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_a_head_on_kept_features_tells_of_its_samples_too(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("edgecloud.graft")
    try:
        runtime.load()
    except RuntimeUnusable as e:
        pytest.skip(f"no TFLite runtime in this environment: {e}")
    with board(tmp_path / "d", grafted(), update__kind=kind) as b:
        x, y = samples(60)
        b.spool.extend("m", x, y, contexts={"region": "north"})
        b.agent.run(Goal(rounds=1, timeout=120))
        (held,) = b.centre.held("pi-7", "m").values()
        assert held.header.kind.name.lower() == kind
        card = parse_card(held.header.extension["card"])  # type: ignore[arg-type]
        assert card.samples == 60 and card.tags["region"] == {"north": 60} and card.judged > 0
        assert b.spool.cards.coming("m", 1 << 60).samples == 0
