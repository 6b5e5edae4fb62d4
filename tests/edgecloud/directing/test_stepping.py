"""A rollout from its plan to its end: what the director does with seals, reports and gates, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.registry import Base, DesiredRow, FrozenRow, SqliteStore, VariantRow
from edgecloud.rollouts import choosing, enrolling, stepping
from edgecloud.rollouts.stepping import Stepper
from modelwire.deploying.plans import RolloutGates, RolloutPhase, RolloutVerb
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import State
from modelwire.errors import BadArgument, LineageError
from modelwire.wire.signing import PrivateKey
from tests.keys import COMMAND, ROOT

from .desk import ANOTHER, BY_STEPS, EQUAL, MODEL, NEW, OLD, STRANGER, T0, WORSE, Rolling, base_of, name_of, new_variant

APPROVE, START, PAUSE, RESUME = RolloutVerb.APPROVE, RolloutVerb.START, RolloutVerb.PAUSE, RolloutVerb.RESUME
HALT, ROLL_BACK, ABORT = RolloutVerb.HALT, RolloutVerb.ROLL_BACK, RolloutVerb.ABORT


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Rolling]:
    made = Rolling(tmp_path / "fleet.db")
    yield made
    made.store.close()


def test_an_equal_variant_goes_phase_by_phase_to_all(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    assert rolling.standing == ("running", 0) and len(rolling.assigned()) == 2
    said, terms = rolling.terms(rolling.assigned()[0].device)
    assert (said.variant, terms.variant, terms.soak, terms.back, said.phase) == (NEW, new_variant(), 60, False, 0)
    rolling.serve()
    assert rolling.standing == ("running", 1) and len(rolling.assigned()) == 4
    rolling.serve()
    assert rolling.standing == ("running", 2) and len(rolling.assigned()) == 8
    rolling.serve()
    assert rolling.standing == ("done", 2) and rolling.states() == {"confirmed": 8}


def test_nothing_is_offered_before_it_was_started(rolling: Rolling) -> None:
    rolling.plan(started=False)
    assert not rolling.step() and rolling.row.state == "draft" and rolling.states() == {}


def test_a_phase_waits_until_its_devices_have_soaked(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.all_say(State.SOAKING, EQUAL)
    rolling.settle()
    assert rolling.standing == ("soaking", 0)
    rolling.now += 59
    rolling.all_say(State.CONFIRMED, EQUAL)
    rolling.settle()
    assert rolling.standing == ("soaking", 0), "who says that it soaked for a minute in less does not hurry it"
    rolling.now += 1
    rolling.settle()
    assert rolling.standing == ("running", 1)


def test_a_worse_variant_is_halted_with_the_canaries_and_rolled_back(rolling: Rolling) -> None:
    rolling.plan(phases=(RolloutPhase(count=3), *BY_STEPS[1:]))
    rolling.settle()
    rolling.all_say(State.SOAKING, WORSE)
    rolling.settle()
    assert rolling.row.state == "halted" and rolling.row.reason.startswith("quality: on 600 rows of 3 devices 6 are gained and 66 lost")
    assert rolling.states() == {"soaking": 3}, "who has it keeps it until somebody says roll back"
    rolling.decide(ROLL_BACK)
    rolling.settle()
    assert rolling.row.state == "rolling back" and rolling.states() == {"offered back": 3}
    said, terms = rolling.terms(rolling.assigned()[0].device)
    assert (said.variant, terms.back, terms.variant, terms.urls, terms.soak, terms.slower) == (OLD, True, b"", (), 0, 0)
    rolling.all_say(State.CONFIRMED)
    rolling.settle()
    assert rolling.row.state == "rolled back" and "3 devices are back" in rolling.row.reason
    assert all(one.rows == 200 for one in rolling.assigned()), "what was measured of the variant stays"


def test_a_halt_stops_those_who_are_under_way_and_leaves_those_who_serve_it(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    for n, state in enumerate((State.FETCHING, State.STAGED, State.PROBING, State.SOAKING, State.CONFIRMED), 1):
        rolling.say(name_of(n), state, EQUAL)
    rolling.decide(HALT, reason="the customer called")
    rolling.settle()
    assert rolling.row.state == "halted" and "halt: anna, the customer called" in rolling.row.reason
    assert rolling.states() == {"offered back": 6, "soaking": 1, "confirmed": 1}
    assert rolling.terms("pi-1")[1].back and rolling.terms("pi-1")[0].variant == OLD
    rolling.decide(ROLL_BACK)
    rolling.settle()
    assert rolling.states() == {"offered back": 8}


def test_the_way_back_of_a_confirmed_device_names_what_it_said_lies_beside(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    rolling.serve()
    assert rolling.row.state == "done"
    lineage = rolling.store.lineages.get("pi-1", MODEL)
    assert lineage is not None
    rolling.store.lineages.grant(lineage.id, b"x" * 16, NEW, 20)  # its head is on the variant now, as a snapshot of it says
    rolling.decide(ROLL_BACK)
    rolling.settle()
    assert rolling.row.state == "rolling back" and rolling.terms("pi-1")[0].variant == OLD


def test_devices_that_are_away_do_not_hold_up_the_end_of_a_roll_back_and_are_told_when_they_come(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    rolling.serve(only=["pi-1", "pi-2"])
    rolling.decide(ROLL_BACK)
    rolling.settle()
    rolling.all_say(State.CONFIRMED, only=["pi-1", "pi-2"])
    rolling.settle()
    assert rolling.row.state == "rolling back"
    rolling.now += 601
    rolling.settle()
    assert rolling.row.state == "rolled back" and "6 are away, and go back when they come" in rolling.row.reason
    lineage = rolling.store.lineages.get("pi-3", MODEL)
    assert lineage is not None
    told = rolling.store.rollouts.desired_for_hello(lineage.id, rolling.now + 80 * 86_400)
    assert told is not None and told.variant == OLD


def test_any_number_of_devices_that_are_away_hold_up_no_roll_back(rolling: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "BATCH", 2)
    rolling.plan()
    rolling.settle()
    rolling.decide(ROLL_BACK)
    rolling.settle()
    rolling.step(after=601)
    assert rolling.row.state == "rolled back" and "8 are away" in rolling.row.reason


def test_a_device_that_is_on_line_and_never_answers_holds_up_a_roll_back_for_a_day(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    lineage = rolling.store.lineages.get("pi-1", MODEL)
    assert lineage is not None
    rolling.store.lineages.seen(lineage.id, True, 1, rolling.now)
    rolling.decide(ROLL_BACK)
    rolling.settle()
    rolling.step(after=3600)
    assert rolling.row.state == "rolling back"
    rolling.step(after=86_400)
    assert rolling.row.state == "rolled back" and "8 have not answered" in rolling.row.reason


def test_a_clock_that_was_a_year_ahead_and_is_set_right_holds_nothing_up(rolling: Rolling) -> None:
    rolling.now += 365 * 86_400
    rolling.plan(phases=BY_STEPS, rate=2, jitter=60)
    rolling.settle()
    rolling.step(after=60)
    rolling.all_say(State.SOAKING, EQUAL)
    rolling.settle()
    assert rolling.standing == ("soaking", 0)
    rolling.now -= 365 * 86_400
    rolling.settle()
    assert rolling.standing == ("soaking", 0), "nobody has confirmed it"
    rolling.all_say(State.CONFIRMED, EQUAL)
    rolling.settle()
    assert rolling.standing == ("running", 1) and rolling.states() == {"confirmed": 2, "offered": 1, "waiting": 1}
    rolling.step(after=61)
    assert rolling.states() == {"confirmed": 2, "offered": 2}


def test_one_that_crashes_is_halted_and_refusals_are_not_counted(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    first, second = (one.device for one in rolling.assigned())
    rolling.say(first, State.REFUSED, DeviceFigures(code=Code.MEMORY))
    rolling.settle()
    assert rolling.standing == ("running", 0)
    rolling.say(second, State.REVERTED, DeviceFigures(code=Code.CRASH))
    rolling.settle()
    assert rolling.row.state == "halted" and rolling.row.reason.startswith("errors: 1 of 1 devices that tried it failed (crash 1)")


def test_a_phase_that_nearly_all_refuse_is_paused_and_who_resumes_takes_it_on_himself(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.all_say(State.REFUSED, DeviceFigures(code=Code.MEMORY))
    rolling.settle()
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("success: 2 of 2 devices refused it")
    rolling.decide(RESUME)
    rolling.step(after=1)
    assert rolling.row.state == "soaking"
    rolling.step(after=61)
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("quality: no device had held-out samples")
    rolling.decide(RESUME)
    rolling.settle()
    assert rolling.standing == ("running", 1)


def test_too_few_samples_pause_a_phase_and_who_resumes_goes_on(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.serve(DeviceFigures(rows=20, better=1, worse=1))
    assert rolling.row.state == "paused" and "more rows would tell" in rolling.row.reason
    assert not rolling.step(5, after=100), "a pause stays until somebody ends it"
    rolling.decide(RESUME, reason="they are lab boards")
    rolling.settle()
    assert rolling.standing == ("running", 1)
    assert not rolling.step(after=1) and rolling.standing == ("running", 1), "the same decision is not heeded twice"


def test_a_pause_lets_those_under_way_go_on_and_offers_nobody_anything(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.decide(PAUSE)
    rolling.settle()
    rolling.all_say(State.SOAKING, EQUAL)
    rolling.step(3, after=100)
    assert rolling.standing == ("paused", 0) and rolling.states() == {"soaking": 2}
    rolling.all_say(State.CONFIRMED, WORSE)
    rolling.step(after=100)
    rolling.decide(RESUME)
    rolling.settle()
    assert rolling.row.state in ("paused", "halted")


def test_a_paused_rollout_is_halted_when_it_fails(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    rolling.decide(PAUSE)
    rolling.settle()
    for n in range(1, 5):
        rolling.say(name_of(n), State.REVERTED, DeviceFigures(code=Code.LOAD))
    rolling.settle()
    assert rolling.row.state == "halted"


def test_patience_ends_in_a_pause_and_resuming_gives_it_anew(rolling: Rolling) -> None:
    rolling.plan(gates=RolloutGates(patience=100))
    rolling.settle()
    rolling.step(after=101)
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("patience: ")
    rolling.decide(RESUME)
    rolling.settle()
    assert rolling.row.state == "running"
    rolling.step(after=101)
    assert rolling.row.state == "paused"


def test_an_abort_before_anybody_was_offered_it_ends_it_and_later_it_takes_offers_back(rolling: Rolling) -> None:
    rolling.plan(started=False)
    rolling.decide(ABORT)
    rolling.settle()
    assert rolling.row.state == "aborted"
    rolling.plan(rollout=bytes([9]) * 16, name="summer")
    rolling.settle()
    rolling.decide(ABORT)
    rolling.settle()
    assert rolling.row.state == "rolling back" and rolling.states() == {"offered back": 8}
    rolling.all_say(State.CONFIRMED)
    rolling.settle()
    assert rolling.row.state == "aborted"


def test_an_abort_when_one_serves_it_leads_nowhere_and_says_so(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    rolling.say("pi-1", State.SOAKING, EQUAL)
    rolling.decide(ABORT)
    done = rolling.step()
    assert rolling.row.state == "running" and any("abort, leads nowhere" in note for note in done.notes)


def test_what_is_said_again_changes_nothing(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    for verb, state in ((START, "running"), (PAUSE, "paused"), (PAUSE, "paused"), (RESUME, "running"), (RESUME, "running")):
        rolling.decide(verb)
        rolling.settle()
        assert rolling.standing == (state, 0)
    for verb in (HALT, HALT, PAUSE, RESUME, START):
        rolling.decide(verb)
        rolling.settle()
        assert rolling.row.state == "halted"


def test_a_second_person_must_approve_with_a_key_of_their_own(rolling: Rolling) -> None:
    rolling.plan(approvals=1)
    done = rolling.step()
    assert rolling.row.state == "draft" and any("before it was approved" in note for note in done.notes)
    rolling.decide(APPROVE)  # by the key that made the plan
    rolling.decide(APPROVE, key=STRANGER, by="bert")  # by one that the trust record does not name
    rolling.decide(START)
    done = rolling.step()
    assert rolling.row.state == "draft" and rolling.states() == {}
    assert any("decision 3" in note for note in done.notes)


@pytest.mark.parametrize("key", [STRANGER, ROOT], ids=["a stranger", "a key of another role"])
def test_a_plan_that_no_command_key_sealed_brings_nobody_anything(rolling: Rolling, key: PrivateKey) -> None:
    rolling.plan(key=key)
    done = rolling.step()
    assert rolling.states() == {} and rolling.row.state == "draft" and done.notes


def test_a_decision_that_no_command_key_sealed_is_not_heeded(rolling: Rolling) -> None:
    rolling.plan(started=False)
    rolling.decide(START, key=STRANGER)
    assert not rolling.step() and rolling.row.state == "draft"


def test_a_decision_about_another_rollout_is_not_heeded(rolling: Rolling) -> None:
    first = rolling.plan(started=False)
    second = rolling.plan(rollout=bytes([9]) * 16, name="summer", started=False)
    rolling.decide(START, row=second)
    moved = rolling.store.rollouts.decisions(second.id)[0]
    rolling.store.rollouts.decide(first.id, moved.number, moved.statement, rolling.now)
    rolling.settle()
    assert rolling.store.rollouts.by_id(first.id).state == "draft"


def test_a_row_that_says_it_runs_brings_nobody_anything_without_its_plan(rolling: Rolling) -> None:
    rolling.plan(key=STRANGER)
    rolling.store.rollouts.move(rolling.row.id, state="running", now=rolling.now)
    rolling.step()
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("seal: ") and rolling.states() == {}


@pytest.mark.parametrize("last", [None, PAUSE, HALT, ROLL_BACK, ABORT])
def test_a_row_that_says_it_runs_brings_nobody_anything_that_no_decision_lets_run(rolling: Rolling, last: RolloutVerb | None) -> None:
    rolling.plan(started=False)
    if last is not None:
        rolling.decide(START)
        rolling.decide(last)
        rolling.settle()
        assert rolling.states() == {}
    rolling.store.rollouts.move(rolling.row.id, state="running", reason="start: anna (decisions: 9)", now=rolling.now)
    rolling.settle()
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("seal: it is running, and no decision"), rolling.row
    assert rolling.states() == {}


def test_a_row_in_a_phase_that_its_plan_has_not_is_paused_and_ends_no_director(rolling: Rolling) -> None:
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.store.rollouts.move(rolling.row.id, phase=9, now=rolling.now)
    rolling.settle()
    assert rolling.standing == ("paused", 2) and rolling.row.reason.startswith("seal: its row is in phase 10, and its plan has 3")
    assert rolling.states() == {"offered": 2}


def test_a_row_that_says_it_runs_needs_the_approvals_of_its_plan(rolling: Rolling) -> None:
    rolling.plan(approvals=1)
    rolling.settle()
    assert rolling.row.state == "draft"
    rolling.store.rollouts.move(rolling.row.id, state="running", now=rolling.now)
    rolling.settle()
    assert rolling.row.state == "paused" and rolling.states() == {}


def test_a_director_whose_key_the_fleet_does_not_name_does_nothing(rolling: Rolling) -> None:
    rolling.plan()
    for key in (STRANGER, COMMAND):
        with pytest.raises(BadArgument, match="none of the director keys"):
            Stepper(rolling.store, key).step(rolling.now)
    assert rolling.states() == {}


def test_a_variant_that_the_root_key_did_not_seal_is_not_offered(rolling: Rolling) -> None:
    rolling.store.rollouts.add_variant(VariantRow(NEW, MODEL, 2, "night", new_variant(COMMAND, number=2), 5))
    rolling.plan()
    rolling.settle()
    assert rolling.row.state == "paused" and rolling.row.reason.startswith("seal: ") and "offered" not in rolling.states()


def test_frozen_devices_are_left_out_and_hold_nobody_up(rolling: Rolling) -> None:
    rolling.store.rollouts.freeze(FrozenRow("pi-3", "", "crash tests", "anna", 1))
    rolling.plan()
    rolling.settle()
    assert rolling.states() == {"offered": 7}
    rolling.serve()
    assert rolling.row.state == "done"


def test_a_device_that_is_frozen_while_it_waits_is_not_waited_for(rolling: Rolling) -> None:
    rolling.plan(rate=4)
    rolling.step()
    assert rolling.states() == {"offered": 4, "waiting": 4}
    waits = [one.device for one in rolling.assigned() if one.state == "waiting"]
    rolling.store.rollouts.freeze(FrozenRow(waits[0], MODEL, "", "anna", 1))
    rolling.step(2, after=61)
    assert rolling.states() == {"offered": 7, "waiting": 1}
    rolling.serve()
    assert rolling.row.state == "done"


def test_a_canary_that_died_holds_nobody_up_once_it_is_frozen(rolling: Rolling) -> None:
    rolling.plan(phases=(RolloutPhase(("pi-1", "pi-2", "pi-3"), 3), RolloutPhase(share=10_000)))
    rolling.settle()
    rolling.serve(only=["pi-1", "pi-2"])
    assert rolling.standing == ("running", 0), rolling.row
    rolling.store.rollouts.freeze(FrozenRow("pi-3", "", "it fell into the sea", "anna", 1))
    rolling.settle()
    assert rolling.standing == ("running", 1) and "pi-3" not in {one.device for one in rolling.assigned(1)}


def test_named_devices_come_first_and_canaries_take_turns(rolling: Rolling) -> None:
    first = rolling.plan(phases=(RolloutPhase(devices=("pi-7", "pi-2"), count=3), RolloutPhase(share=10_000)))
    rolling.settle()
    assert [one.device for one in rolling.assigned(0)][:2] == ["pi-7", "pi-2"] and len(rolling.assigned(0)) == 3
    rolling.decide(HALT)
    rolling.settle()
    canaries = set[tuple[str, ...]]()
    for n in range(5):
        rolling.plan(rollout=bytes([20 + n]) * 16, name=f"try {n}", phases=BY_STEPS)
        rolling.settle()
        canaries.add(tuple(one.device for one in rolling.assigned(0)))
        rolling.decide(HALT)
        rolling.settle()
    assert len(canaries) > 1 and rolling.store.rollouts.by_id(first.id).state == "halted"


def test_a_device_is_in_one_rollout_at_a_time(rolling: Rolling) -> None:
    rolling.plan(devices=("pi-1", "pi-2", "pi-3"), phases=(RolloutPhase(share=10_000),))
    rolling.settle()
    rolling.plan(rollout=bytes([9]) * 16, name="summer")
    rolling.settle()
    assert {one.device for one in rolling.assigned()} == {name_of(n) for n in range(4, 9)}


def test_the_rate_bounds_how_many_are_offered_it_a_minute(rolling: Rolling) -> None:
    rolling.plan(rate=3)
    rolling.settle()
    assert rolling.states() == {"offered": 3, "waiting": 5}
    rolling.step(after=30)
    assert rolling.states()["offered"] == 3
    rolling.step(after=31)
    assert rolling.states()["offered"] == 6


def test_devices_that_the_rate_holds_up_are_offered_it_though_enough_serve_it(rolling: Rolling) -> None:
    for n in range(9, 21):
        rolling.join(n)
    rolling.plan(rate=19)
    rolling.settle()
    rolling.all_say(State.SOAKING, EQUAL)
    rolling.settle()
    assert rolling.states() == {"soaking": 19, "waiting": 1} and rolling.row.state == "running"
    rolling.step(after=61)
    rolling.settle()
    rolling.serve()
    assert rolling.states() == {"confirmed": 20} and rolling.row.state == "done"


def test_devices_that_wait_are_offered_it_though_a_person_waived_the_gate_of_the_last_phase(rolling: Rolling) -> None:
    rolling.plan(rate=4, gates=RolloutGates(margin=10_000))
    rolling.settle()
    rolling.all_say(State.REVERTED, DeviceFigures(code=Code.VETO))
    rolling.settle()
    assert rolling.row.state == "paused" and rolling.states() == {"reverted": 4, "waiting": 4}
    rolling.decide(RESUME)
    rolling.settle()
    rolling.step(after=61)
    assert rolling.states() == {"reverted": 4, "offered": 4}


def test_the_jitter_spreads_the_offers_of_a_phase(rolling: Rolling) -> None:
    rolling.plan(jitter=800)
    rolling.settle()
    found = [rolling.states()["offered"]]
    for _ in range(8):
        rolling.step(after=100)
        found.append(rolling.states()["offered"])
    assert found == sorted(found) and found[0] == 1 and found[4] in (4, 5) and found[-1] == 8


def test_outside_its_window_it_is_fetched_and_not_served(rolling: Rolling) -> None:
    rolling.now = T0 - T0 % 86_400 + 12 * 3600
    rolling.plan(window=(3600, 5 * 3600))
    rolling.settle()
    said, terms = rolling.terms("pi-1")
    assert terms.not_before == rolling.now + 13 * 3600 and said.expiry == terms.not_before + 3600
    rolling.decide(ROLL_BACK)
    rolling.settle()
    assert rolling.terms("pi-1")[1].not_before == 0, "the way back waits for no window"


def test_an_offer_that_nobody_heard_in_time_is_made_anew_with_a_higher_number(rolling: Rolling) -> None:
    rolling.plan(expiry=1000)
    rolling.settle()
    before = rolling.desired("pi-1")
    rolling.step(after=1002)
    after = rolling.desired("pi-1")
    assert before and after and after.number > before.number and after.expiry > rolling.now


def test_devices_that_come_later_follow_and_a_newer_rollout_ends_that(rolling: Rolling) -> None:
    first = rolling.plan(phases=(RolloutPhase(count=2), RolloutPhase(share=10_000)), follow=True)
    rolling.through((0, 1))
    assert rolling.standing == ("running", 1) and rolling.row.reason.startswith("follows: ")
    rolling.join(9)
    rolling.step(after=61)
    assert rolling.terms("pi-9")[1].rollout == first.rollout
    rolling.serve()
    assert rolling.states() == {"confirmed": 9} and rolling.row.state == "running"
    rolling.plan(rollout=bytes([9]) * 16, name="summer")
    rolling.settle()
    assert rolling.store.rollouts.by_id(first.id).state == "done" and rolling.states() == {"offered": 9}


@pytest.mark.parametrize("named", [False, True])
def test_a_device_that_can_not_run_it_is_not_offered_it_whenever_it_comes(rolling: Rolling, named: bool) -> None:
    other = bytes([3]) * 32
    rolling.store.bases.add(base_of(other, "other", ANOTHER))
    rolling.store.rollouts.add_variant(VariantRow(NEW, MODEL, 2, "night", new_variant(runtime="litert", number=2), 5))
    rolling.join(9, other)
    rolling.join(10, runtime="tflite 2.14 x86_64")
    rolling.join(11, runtime="litert 2.1 aarch64")
    rolling.plan(follow=not named, devices=tuple(name_of(n) for n in range(1, 12)) if named else ())
    rolling.settle()
    assert {one.device for one in rolling.assigned()} == {name_of(n) for n in (*range(1, 9), 11)}
    if not named:
        rolling.serve()
        rolling.serve()
        assert rolling.row.reason.startswith("follows: "), rolling.row
        rolling.join(12, other)
        rolling.join(13, runtime="litert 2.1 aarch64")
        rolling.step(after=61)
        assert {one.device for one in rolling.assigned()} == {name_of(n) for n in (*range(1, 9), 11, 13)}


def test_a_base_that_can_not_be_read_keeps_its_own_devices_out_and_nobody_else(rolling: Rolling) -> None:
    other = bytes([3]) * 32
    rolling.store.bases.add(Base(other, "other", b"no manifest", other, 1000, 1))
    rolling.join(9, other)
    rolling.plan()
    rolling.settle()
    assert {one.device for one in rolling.assigned()} == {name_of(n) for n in range(1, 9)}


def test_a_rollout_that_can_not_look_at_the_fleet_holds_up_no_other(rolling: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = enrolling.Enrolment.go_on

    def go_on(self: enrolling.Enrolment, store: SqliteStore) -> bool:
        if self._plan.name == "spring":
            raise LineageError(reason="its cards can't be read")
        return plain(self, store)

    monkeypatch.setattr(enrolling.Enrolment, "go_on", go_on)
    rolling.plan()
    rolling.plan(rollout=bytes([9]) * 16, name="summer")
    rolling.settle()
    assert rolling.states() == {"offered": 8} and rolling.row.name == "summer"


def test_who_begins_anew_may_have_another_schema(rolling: Rolling) -> None:
    rolling.store.bases.add(base_of(bytes([3]) * 32, "other", ANOTHER))
    rolling.join(9, bytes([3]) * 32)
    rolling.plan(learned="anew")
    rolling.settle()
    assert rolling.states() == {"offered": 9}


def test_numbers_rise_above_those_of_a_registry_that_was_restored(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    one = rolling.desired("pi-1")
    assert one is not None and one.number >= rolling.now * 1000


def test_a_row_with_the_last_number_there_is_holds_up_its_own_rollout_and_no_director(rolling: Rolling) -> None:
    first = rolling.plan(devices=("pi-1",))
    rolling.settle()
    rolling.store.rollouts.put_desired(DesiredRow(1, (1 << 63) - 1, first.id, NEW, b"no record", 1 << 40, rolling.now))
    rolling.decide(ROLL_BACK, row=first)
    rolling.plan(rollout=bytes([9]) * 16, name="summer", devices=("pi-2",))
    for _ in range(3):
        done = rolling.step()
    assert rolling.states() == {"offered": 1} and rolling.row.name == "summer"
    assert any("spring" in note and "no number is left" in note for note in done.notes), done.notes


def test_a_newer_rollout_is_not_undone_by_rolling_back_an_older_one(rolling: Rolling) -> None:
    first = rolling.plan()
    rolling.settle()
    rolling.serve()
    assert rolling.row.state == "done"
    rolling.plan(rollout=bytes([9]) * 16, name="summer", devices=("pi-1",))
    rolling.settle()
    newer = rolling.desired("pi-1")
    rolling.decide(ROLL_BACK, row=first)
    rolling.settle()
    assert rolling.desired("pi-1") == newer
    assert rolling.states(first) == {"confirmed": 1, "offered back": 7}
    for n in range(2, 9):
        rolling.say(f"pi-{n}", State.CONFIRMED)
    rolling.settle()
    reason = next(row.reason for row in rolling.store.rollouts.all() if row.id == first.id)
    assert "7 devices are back on what they had; 1 were told something newer since" in reason


def test_late_reports_of_an_ended_rollout_move_nothing(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    rolling.decide(ROLL_BACK)
    rolling.settle()
    rolling.now += 601
    rolling.settle()
    assert rolling.row.state == "rolled back"
    before = rolling.assigned()
    rolling.say("pi-1", State.SOAKING, EQUAL)
    assert rolling.assigned() == before and not rolling.step()


def test_losses_are_judged_where_devices_have_no_accuracies(rolling: Rolling) -> None:
    rolling.plan()
    rolling.settle()
    for n in range(1, 9):
        figures = replace(EQUAL, accuracy=False, better=0, worse=0)
        rolling.say(name_of(n), State.SOAKING, figures, before=0.5 + n / 100, after=(0.5 + n / 100) * 1.30 + n / 1000)
    rolling.settle()
    assert rolling.row.state == "halted" and rolling.row.reason.startswith("quality: on 8 devices the loss")


def test_a_large_fleet_is_looked_through_in_spans_and_begins_alike(rolling: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolling, "SPAN", 3)
    rolling.plan(phases=(RolloutPhase(count=2), RolloutPhase(share=10_000)))
    done = rolling.step()
    assert done.unfinished and done.assigned == 0 and rolling.states() == {}
    rolling.settle()
    assert rolling.states() == {"offered": 2}
    canaries = sorted((name_of(n) for n in range(1, 9)), key=lambda device: choosing.rank(rolling.row.rollout, device))
    assert [one.device for one in rolling.assigned()] == canaries[:2]


def test_two_rollouts_that_look_through_a_large_fleet_take_no_device_both(rolling: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolling, "SPAN", 3)
    first = rolling.plan(phases=(RolloutPhase(count=3), RolloutPhase(share=10_000)))
    second = rolling.plan(rollout=bytes([9]) * 16, name="summer", phases=(RolloutPhase(count=3), RolloutPhase(share=10_000)))
    rolling.settle()
    taken = [[one.lineage for one in rolling.store.rollouts.assignments(row.id)] for row in (first, second)]
    assert [len(one) for one in taken] == [3, 3] and not set(taken[0]) & set(taken[1])


def test_what_was_seen_of_the_fleet_before_a_pause_is_looked_at_anew(rolling: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolling, "SPAN", 3)
    rolling.plan()
    rolling.step()
    rolling.decide(PAUSE)
    rolling.settle()
    rolling.store.rollouts.freeze(FrozenRow("pi-1", "", "", "anna", 1))
    rolling.decide(RESUME)
    rolling.settle()
    assert "pi-1" not in {one.device for one in rolling.assigned()} and rolling.states() == {"offered": 7}
