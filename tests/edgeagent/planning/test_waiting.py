"""Updates that wait for each other: nothing is offered before it is time, and then one says it all; elsewhere nothing waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent.planning.plans import KEPT
from edgeagent.planning.telling import because
from edgeagent.service.goal import Goal
from edgeagent.settings import reading, template
from edgeagent.state.new_folder import create_folder
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from modelwire.wire.records import Level
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, SETTINGS, TINY, Rig, centre, command, fill, make_with, rig
from tests.edgeagent.by_hand import train, train_on
from tests.edgeagent.centre import Centre, FakeClock

HOURLY = {"train__every": "1h", "train__min_new_samples": "0", "link__hello_every": "7d"}


def days(r: Rig, hours: int) -> None:
    """Let so many hours pass, with a round and a look at the link in each."""
    for _ in range(hours):
        r.centre.clock.now += 3600.0
        r.serve(10)


def send(r: Rig, goal: Goal | None = None) -> None:
    """Run to a goal, after the service ran."""
    r.agent.stopping = ""
    r.run(goal or Goal(publish=True, timeout=600))


def uploads(c: Centre) -> list[int]:
    return sorted(c.held("pi-7", "tiny"))


@pytest.mark.slow("lives through two days of rounds", seconds=3)
def test_a_sleeping_modem_is_woken_once_for_many_updates_and_all_of_them_are_known(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", **HOURLY) as r:
        fill(r.device)
        days(r, 48)
        rounds, came = r.lineage.head().rounds, uploads(c)
        assert rounds >= 40 and 2 <= len(came) <= rounds / 4, "some at a time"
        last = came[-1]
        assert c.held("pi-7", "tiny")[last].level is Level.VERIFIED
        states = r.states()
        assert {states[n] for n in came} == {"verified"} and {states[n] for n in range(1, last) if n not in came} == {"skipped"}
        waits = r.lineage.plans.waits(clock.wall())
        assert waits is None or waits.count == rounds - last
        send(r)
        held = c.held("pi-7", "tiny")[rounds]
        assert held.state is not None and held.state.root == r.lineage.load().state.root, "bit for bit"


@pytest.mark.slow("lives through half a day of rounds")
@pytest.mark.parametrize("profile", ["ethernet", "lte"])
def test_an_always_on_link_never_waits(tmp_path: Path, clock: FakeClock, profile: str) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile=profile, **HOURLY) as r:
        fill(r.device)
        days(r, 12)
        rounds = r.lineage.head().rounds
        assert uploads(c) == list(range(1, rounds + 1)) and rounds >= 10
        assert all(r.lineage.plans.of(n).hold == 0 for n in range(1, rounds + 1))  # type: ignore[union-attr]


def waiting(r: Rig, count: int = 3) -> None:
    """Let so many updates wait."""
    r.run(Goal(publish=True, timeout=60))
    fill(r.device)
    train(r, count)
    assert [w.state for w in r.lineage.outbox.waiting()] == ["queued"] * count


def test_what_waits_is_not_offered_until_it_is_time_and_no_longer_than_wait_most(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", update__wait_most="2h", train__every="6h") as r:
        waiting(r, 1)
        r.serve(3600)
        waits = r.lineage.plans.waits(clock.wall())
        assert uploads(c) == [] and waits is not None and waits.count == 1 and waits.until <= clock.wall() + 3700
        assert "a wake-up of the link takes 12.6 J" in because(waits.document)
        r.serve(4000)
        assert uploads(c) == [1] and r.states() == {1: "verified"}


@pytest.mark.parametrize("way", ["publish", "once", "retry", "rounds"])
def test_whoever_asks_has_it_sent_at_once_as_one(tmp_path: Path, clock: FakeClock, way: str) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h", train__when="due") as r:
        waiting(r)
        if way == "publish":
            send(r)
        elif way == "once":
            send(r, Goal(once=True, timeout=600))
        elif way == "rounds":
            send(r, Goal(rounds=5, timeout=600))
        else:
            c.after(5, r.device.nudge)
            r.serve(60)
        assert uploads(c) == {"publish": [3], "once": [3, 4], "retry": [3], "rounds": [5]}[way]
        assert r.lineage.plans.waits(clock.wall()) is None and not r.lineage.outbox.waiting("queued")


def test_a_snapshot_that_the_centre_asks_for_takes_along_what_waits(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r)
        c.after(5, lambda: c.push(command(r, 1)))
        r.serve(120)
        assert uploads(c)[-1] == 4 and c.held("pi-7", "tiny")[4].level is Level.VERIFIED
        assert not r.lineage.outbox.waiting("queued")


def test_a_command_on_a_head_that_the_centre_does_not_know_is_let_in_by_what_waits(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r)
        known = r.lineage.base_commit
        c.after(5, lambda: c.push(command(r, 1, parent=known)))
        r.serve(120)
        assert uploads(c) == [3], "it was refused, and what waited went as one"
        c.after(5, lambda: c.push(command(r, 2, parent=r.lineage.head().commit)))
        r.serve(120)
        assert uploads(c) == [3, 4] and c.held("pi-7", "tiny")[4].level is Level.VERIFIED


def test_what_a_command_asked_for_is_joined_with_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r, 2)
        assert r.lineage.plans.joins()
        r.lineage.snapshot(0, note="asked for")
        assert r.lineage.plans.waits(clock.wall()) is None and not r.lineage.plans.joins()
        r.serve(60)
        assert uploads(c) == [1, 2, 3]


@pytest.mark.parametrize("apart", [-10 * 86400, 400 * 86400])
def test_a_clock_that_is_set_lets_nothing_wait_for_ever(tmp_path: Path, clock: FakeClock, apart: int) -> None:
    with rig(tmp_path / "d", centre(clock), link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r)
        assert r.lineage.plans.waits(clock.wall()) is not None
        assert r.lineage.plans.waits(clock.wall() + apart) is None


@pytest.mark.slow("lives through four days of rounds")
def test_a_leap_of_the_clock_is_no_interval_between_rounds(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", **HOURLY) as r:
        fill(r.device)
        days(r, 3)
        clock.now += 365 * 86400.0
        days(r, 24)
        rounds, came = r.lineage.head().rounds, uploads(c)
        assert rounds >= 20 and len(came) <= rounds / 4, "it is not taken for a board that trains once in a season"


def test_what_is_joined_waits_no_longer_than_its_first_part(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h", prices__per_hour_waiting="1e-9") as r:
        waiting(r, 2)
        first = r.lineage.plans.held()
        for _ in range(4):
            clock.now += 6 * 3600.0
            assert r.lineage.coalesce()
            joined = r.lineage.plans.held()
            assert (joined.queued, joined.until) == (1, first.until) and joined.updates == r.lineage.head().version
            fill(r.device)
            train(r, 1)
        last = r.lineage.plans.last()
        assert last is not None and last.document["wait_s"] <= 2, "no longer than it may"
        clock.now += 2
        assert r.lineage.plans.waits(clock.wall()) is None, "a day is over"
        r.serve(60)
        assert uploads(c) == [6]


def test_after_a_week_without_a_link_it_goes_at_once(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", **HOURLY) as r:
        fill(r.device)
        days(r, 2)
        c.cut()
        for _ in range(7):
            clock.now += 86400.0
            r.lineage.coalesce()  # as it does by itself, and as a full outbox does
            train(r, 1)
        c.mend()
        r.serve(300)
        assert uploads(c) == [r.lineage.head().version]


def test_what_goes_by_a_command_goes_though_it_was_joined(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r, 2)
        r.lineage.snapshot(int(clock.wall()), note="asked for")
        train(r, 1)
        assert r.lineage.plans.waits(clock.wall()) is None
        assert r.lineage.coalesce() == [1, 2, 3] and r.lineage.plans.waits(clock.wall()) is None


def test_of_old_decisions_only_the_choice_stays(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        plans = r.lineage.plans
        for version in range(1, KEPT + 12):
            plans.keep(version, "delta", 0, {"reason": "x" * 500, "rows": []}, 1)
        kept = {n: plan.document["reason"] for n in (1, 11, 12) if (plan := plans.of(n)) is not None}
        assert kept == dict.fromkeys((1, 11), "it was decided: delta; the table of so old a decision is not kept") | {12: "x" * 500}


def test_waiting_survives_a_restart_and_damaged_decisions_stop_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r)
    with rig(tmp_path / "d", c) as r:
        r.serve(600)
        assert uploads(c) == [] and len(r.lineage.outbox.waiting("queued")) == 3
        r.device.database.run("UPDATE plan SET decision='{\"rows\": 7'")
        assert r.lineage.plans.waits(clock.wall()) is not None and because({"rows": 7}) == ""
        train(r, 1)  # what was decided before can't be read: it decides anew
        send(r)
        assert uploads(c) == [4]


def test_exact_updates_wait_and_go_as_one_too(tmp_path: Path, clock: FakeClock) -> None:
    folder, c, manifest = tmp_path / "d", centre(clock), manifest_of(TINY, exact=True)
    c.bases[manifest.commit] = (manifest, manifest.schema.flat(read_weights(TINY)))
    text = template.render({**SETTINGS, "link.profile": "lte-sleeping", "train.every": "6h"}, ["tiny"])
    loaded = reading.build(reading.parse(text), where="test", path=folder / reading.FILE, environment={}, flags={})
    create_folder(folder, loaded, text, models={"tiny": TINY}, seed=DEVICE_SEED, fleet=keys.FLEET, exact=True)
    with rig(folder, c) as r:
        waiting(r)
        assert {w.kind for w in r.lineage.outbox.waiting()} == {"exact"}
        send(r)
        held = c.held("pi-7", "tiny")
        assert list(held) == [3] and held[3].kind is Kind.EXACT
        assert held[3].state is not None and held[3].state.root == r.lineage.load().state.root


def test_without_waiting_in_the_settings_none_waits(tmp_path: Path, clock: FakeClock) -> None:
    for change in ({"update__wait_most": "0"}, {"update__kind": "delta"}, {"prices__per_hour_waiting": "1000"}):
        folder = tmp_path / str(sorted(change))
        with rig(folder, centre(clock), link__profile="lte-sleeping", train__every="6h", **change) as r:
            r.run(Goal(publish=True, timeout=60))
            fill(r.device)
            train(r, 2)
            assert r.lineage.plans.waits(clock.wall()) is None
            last = r.lineage.plans.last()
            assert last is None or "nothing is known" not in last.document["rows"][-1]["why"]


@pytest.mark.parametrize("change", ["update.kind=delta", "link.profile=ethernet", "update.wait_most=0", "update.wait_most=1h"])
def test_settings_that_let_less_wait_hold_for_what_waits_already(tmp_path: Path, clock: FakeClock, change: str) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__profile="lte-sleeping", train__every="6h") as r:
        waiting(r)
    key, _, value = change.partition("=")
    made = template.render({**SETTINGS, "link.profile": "lte-sleeping", "train.every": "30d", key: value}, ["tiny"])
    (tmp_path / "d" / reading.FILE).write_text(made)
    clock.now += 3600.0
    with rig(tmp_path / "d", c) as r:
        r.serve(60)
        assert uploads(c) == [3], "as one"


def test_what_waits_of_one_model_goes_along_with_another_one_that_wakes_the_modem(tmp_path: Path, clock: FakeClock) -> None:
    folder, c = tmp_path / "d", centre(clock)
    make_with(folder, {"link.profile": "lte-sleeping", "train.every": "6h"}, {"tiny": TINY, "other": TINY})
    with rig(folder, c) as r:
        r.run(Goal(publish=True, timeout=60))
        for model in ("tiny", "other"):
            fill(r.device, model=model)
            for _ in range(2):
                train_on(r.device, clock.wall, model)
        r.serve(60)
        assert not c.held("pi-7", "tiny") and not c.held("pi-7", "other")
        r.device.lineages["other"].plans.release()
        r.serve(60)
        assert list(c.held("pi-7", "other")) == [2] and list(c.held("pi-7", "tiny")) == [2]
