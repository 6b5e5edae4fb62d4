"""The machine: each state in its order, each refusal by its own word, and whatever is killed ends confirmed or reverted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.deploying.hosts import HostWord
from edgeagent.deploying.machine import PROBES
from edgeagent.deploying.means import BoardFacts, Probed, Stop
from edgeagent.settings.tree import BudgetSettings, DeploySettings
from modelwire.deploying.reports import Code, figures_in
from modelwire.deploying.states import FINAL, TRANSITIONS, State
from modelwire.errors import DesiredRefused, DiskUnwritable, Malformed, ModelWireError, NotWelcome, ShapeMismatch, StateBusy, TooLarge
from modelwire.wire.records import Desired
from tests import keys

from .worlds import NOW, OF_B, SETTINGS, A, B, C, Killed, World, desired, terms

ALL = ["offered", "fetching", "staged", "probing", "soaking", "confirmed"]


def test_a_variant_goes_through_each_state_and_each_is_reported_once() -> None:
    w = World()
    w.take(desired())
    w.run()
    assert w.states == ALL
    assert (w.disk.served, w.disk.passive, w.disk.snapshots, w.disk.learned) == (B, A, [B], "kept")
    last = w.reports[-1]
    figures = figures_in(last.more)
    assert figures is not None and (figures.serves, figures.passive, figures.rows, figures.code) == (B, A, 50, "")
    assert (last.before, last.after, last.slot, last.phase, last.bytes, last.reason) == (0.8, 0.9, "active", 2, 9000, "")


def test_soaking_lasts_as_long_as_asked_of_running_and_a_kill_forgets_a_minute_at_most() -> None:
    w = World()
    w.take(desired(of=terms(soak=600)))
    w.run(until=lambda: w.stands(State.SOAKING))
    began, waits = w.now, w.machine.holds_training()
    for _ in range(4):
        w.run(90)
        assert w.stands(State.SOAKING) and w.machine.holds_training() == waits, "the log says it once, not each minute"
        w.again()
        w.now += 1e6  # years pass while it is off: they are none of running
    lost = w.disk.row.soaked if w.disk.row else 0
    assert 4 * (90 - 62) <= lost <= 360
    w.run(600, until=lambda: w.stands(State.CONFIRMED))
    assert w.stands(State.CONFIRMED) and w.now - began > 600


def test_a_board_whose_power_is_cut_each_minute_is_confirmed_all_the_same() -> None:
    w = World()
    w.take(desired(of=terms(soak=300)))
    w.run(until=lambda: w.stands(State.SOAKING))
    for _ in range(20):
        w.again()
        w.run(50)
    assert w.stands(State.CONFIRMED)


def test_no_round_begins_from_the_probe_to_the_end_and_one_under_way_is_waited_for() -> None:
    w = World()
    w.idle = False
    w.take(desired())
    w.run(50)
    assert w.stands(State.STAGED) and (wait := w.machine.holds_training()) is not None and "about to be tried" in wait.reason
    w.idle = True
    w.run(until=lambda: w.stands(State.SOAKING))
    wait = w.machine.holds_training()
    assert wait is not None and "the variant night is served on trial" in wait.reason
    w.run()
    assert w.stands(State.CONFIRMED) and w.machine.holds_training() is None


@pytest.mark.parametrize("asks", [{"consent": True}, {}])
def test_it_waits_for_its_host_and_for_its_hour_and_rounds_go_on_meanwhile(asks: dict[str, Any]) -> None:
    accept = "auto" if asks else "ask"
    w = World(replace(SETTINGS, deploy=DeploySettings(accept)))
    w.take(desired(of=terms(not_before=NOW + 500, **asks)))
    w.run(50)
    assert w.stands(State.STAGED) and "before" in w.machine.held_back() and w.machine.holds_training() is None
    w.newest = NOW + 500
    w.run(50)
    assert w.stands(State.STAGED) and "edgeagent desired accept" in w.machine.held_back()
    w.disk.host[1] = HostWord(1, True, "")
    w.run()
    assert w.stands(State.CONFIRMED)


def test_without_the_centres_clock_nothing_is_served_anew() -> None:
    w = World()
    w.newest = 0
    w.take(desired(expiry=NOW - 1))
    w.run(50)
    assert w.stands(State.STAGED) and "clock was not heard" in w.machine.held_back()
    w.newest = NOW
    w.run(5)
    assert w.stands(State.TIMED_OUT), "it was a recording of long ago"
    assert_as_before(w)


@pytest.mark.parametrize("state", [State.OFFERED, State.FETCHING, State.STAGED, State.PROBING, State.SOAKING])
def test_a_veto_ends_it_in_every_state(state: State) -> None:
    w = at(state)
    w.disk.host[1] = HostWord(1, False, "we race today")
    w.idle = True
    w.run()
    assert w.stands(State.REVERTED if state in (State.PROBING, State.SOAKING) else State.REFUSED)
    assert code_of(w) == Code.VETO and w.reports[-1].reason == "the host said no: we race today"
    assert_as_before(w)


@pytest.mark.parametrize("state", [State.OFFERED, State.FETCHING, State.STAGED, State.PROBING, State.SOAKING])
def test_a_newer_desired_ends_it_in_every_state_and_takes_its_place(state: State) -> None:
    w = at(state)
    w.take(desired(2))
    w.hear()
    ended = [r for r in w.reports if r.number == 1][-1]
    assert ended.state == ("reverted" if state in (State.PROBING, State.SOAKING) else "refused")
    assert w.disk.seen == A, "what was served is served"
    w.idle = True
    w.run()
    assert w.stands(State.CONFIRMED) and w.disk.served == B and w.disk.snapshots == [B]
    with pytest.raises(DesiredRefused, match="2 is the newest"):
        w.take(desired(1))


def test_the_way_back_costs_no_download_and_is_confirmed_by_an_update() -> None:
    w = World()
    w.take(desired())
    w.run()
    w.reports.clear()
    w.more["fails"] = Stop(Code.GONE, "nothing may be fetched")
    w.again()
    w.take(desired(2, terms(None, back=True, urls=()), variant=A, bytes=0))
    w.run()
    assert w.states[-1] == "confirmed" and len(w.states) <= 3, "states that came at once are one report: going back takes few bytes"
    assert (w.disk.served, w.disk.passive, w.disk.snapshots) == (A, B, [B, A])


def test_the_way_back_before_it_was_confirmed_costs_no_update() -> None:
    w = at(State.SOAKING)
    w.take(desired(2, terms(None, back=True, urls=()), variant=A, bytes=0))
    w.run()
    assert w.disk.snapshots == [] and w.disk.seen == A and w.stands(State.CONFIRMED)


def test_a_way_back_that_is_not_here_is_refused() -> None:
    w = World()
    w.take(desired(1, terms(None, back=True, urls=()), variant=C, bytes=0))
    w.run()
    assert (w.states[-1], code_of(w)) == ("refused", Code.PASSIVE)


# Refused.

SMALL = BoardFacts("ai-edge-litert 2.0.2", 1 << 30, 1 << 34)


@pytest.mark.parametrize(("what", "code"), [
    ({"of": terms(replace(OF_B, commit=C))}, Code.VARIANT),
    ({"of": terms(replace(OF_B, model="other"))}, Code.VARIANT),
    ({"of": terms(replace(OF_B, fleet="farm"))}, Code.VARIANT),
    ({"of": terms(replace(OF_B, size=9001))}, Code.VARIANT),
    ({"of": terms(fleet=bytes(16))}, Code.VARIANT),
    ({"of": terms(key=keys.DIRECTOR)}, Code.VARIANT),
    ({"of": terms(key=keys.RECEIPT)}, Code.VARIANT),
    ({"of": terms(replace(OF_B, runtime="tflite"))}, Code.RUNTIME),
    ({"of": terms(replace(OF_B, ram=1 << 40))}, Code.MEMORY),
    ({"budget": BudgetSettings(max_ram=1000)}, Code.MEMORY),
    ({"facts_": replace(SMALL, disk=20_000)}, Code.DISK),
    ({"facts_": replace(SMALL, memory=20_000)}, Code.MEMORY),
    ({"deploy": DeploySettings("never")}, Code.FROZEN),
    ({"deploy": DeploySettings(max_bytes=8999)}, Code.BUDGET),
    ({"deploy": DeploySettings(http=False)}, Code.VETO),
    ({"fails": Stop(Code.GONE, "404")}, Code.GONE),
    ({"fails": Stop(Code.BUDGET, "all tries")}, Code.BUDGET),
    ({"refuses": ShapeMismatch(tensor="x", expected=4, got=5)}, Code.SCHEMA),
    ({"refuses": Malformed(what="variant", reason="another manifest")}, Code.FILE),
])  # fmt: skip
def test_what_can_not_be_brought_is_refused_by_its_own_word_and_changes_nothing(what: dict[str, Any], code: str) -> None:
    rules = {k: v for k, v in what.items() if k in ("deploy", "budget")}
    w = World(replace(SETTINGS, **rules), **{k: v for k, v in what.items() if k in ("facts_", "fails", "refuses")})
    w.take(desired(of=what.get("of")))
    w.run()
    assert (w.state, code_of(w)) == (State.REFUSED, code) and w.reports[-1].reason
    assert_as_before(w)
    assert (w.disk.fetched > 0) is False


def test_terms_that_can_not_be_read_are_refused() -> None:
    w = World()
    wrong = desired()
    w.take(replace(wrong, more={"terms": {**wrong.more["terms"], "soak": -1}}))  # type: ignore[dict-item]
    w.run()
    assert (w.state, code_of(w)) == (State.REFUSED, Code.VARIANT)


@pytest.mark.parametrize(("wrong", "says"), [
    (desired(4), "5 is the newest"),
    (desired(6, expiry=NOW - 1), "it expired"),
    (desired(5, variant=C), "another one has its number"),
    (desired(5, terms(soak=29)), "another one has its number"),
])  # fmt: skip
def test_a_desired_that_counts_no_more_is_an_error_and_changes_nothing(wrong: Desired, says: str) -> None:
    w = World()
    w.take(desired(5))
    w.run()
    before, said = repr(w.disk), len(w.reports)
    with pytest.raises(DesiredRefused, match=says):
        w.take(wrong)
    w.run(20)
    assert repr(w.disk) == before and len(w.reports) == said


def test_the_same_one_again_is_answered_by_the_same_report_also_after_its_time() -> None:
    w = World()
    w.take(desired(5))
    w.run()
    w.newest = NOW + 1_000_000
    w.take(replace(desired(5), at=77))
    w.hear()
    w.machine.connected()
    w.hear()
    assert w.states[-2:] == ["confirmed"] * 2, "what is over is said when it is asked for again, not at each connection"
    assert w.states.count("confirmed") == 2


def test_one_without_terms_is_passed_by_once_and_ends_nothing() -> None:
    w = at(State.SOAKING)
    plain = replace(desired(2), more={})
    for _ in range(2):
        w.take(plain)
        w.hear()
    assert [(r.number, r.state, r.reason) for r in w.reports if r.number == 2] == [(2, "refused", "this release deploys nothing")]
    assert w.stands(State.SOAKING)
    w.run()
    assert w.stands(State.CONFIRMED)


@pytest.mark.parametrize("state", [State.OFFERED, State.FETCHING, State.STAGED])
def test_its_time_is_over_before_it_was_tried(state: State) -> None:
    w = at(state)
    w.newest = NOW + 86_401
    w.idle = True
    w.run()
    assert w.stands(State.TIMED_OUT)
    assert_as_before(w)


# Tried.


@pytest.mark.parametrize("code", [Code.CRASH, Code.LOAD, Code.NOT_FINITE, Code.SLOW, Code.TOO_MUCH_MEMORY, Code.WORSE])
def test_what_fails_when_it_is_tried_is_reverted_and_dropped(code: str) -> None:
    w = World(found=Probed("anew", 0.9, 0.2, stop=Stop(code, "so it was")))
    w.take(desired())
    w.run()
    assert (w.state, code_of(w), w.reports[-1].reason) == (State.REVERTED, code, "so it was")
    assert (w.reports[-1].before, w.reports[-1].after) == (0.9, 0.2)
    assert_as_before(w)


def test_a_board_that_dies_of_it_again_and_again_reverts() -> None:
    w = World()
    w.take(desired())
    for _ in range(PROBES):
        w.run(until=lambda: w.means.probing > 0)
        w.again()
    w.run()
    assert (w.state, code_of(w)) == (State.REVERTED, Code.CRASH)
    assert_as_before(w)


def test_one_whose_process_is_killed_from_outside_is_tried_again_within_bounds() -> None:
    w = World(found=Probed(lost=True))
    w.take(desired())
    w.run(50)
    assert (w.state, code_of(w)) == (State.REVERTED, Code.CRASH)


BUSY = StateBusy(path="/var/lib/edgeagent")
FULL = DiskUnwritable(path="/var/lib/edgeagent", reason="full", disk="/ has nothing free", fix="make room")


@pytest.mark.parametrize("trouble", [FULL, BUSY])
def test_what_is_the_boards_own_trouble_is_held_against_no_variant(trouble: ModelWireError) -> None:
    w = World(no_room=trouble)
    w.take(desired())
    for _ in range(3 * PROBES):
        with pytest.raises(type(trouble)):
            w.run(50)
    assert w.stands(State.PROBING) and w.disk.row is not None and w.disk.row.probes == 1, "nor is it tried again and again"
    w.means.no_room, w.means.cannot = None, trouble
    for _ in range(3):
        with pytest.raises(type(trouble)):
            w.run(50)
    assert w.stands(State.SOAKING)
    w.means.cannot = None
    w.run()
    assert w.states == ALL


def test_a_variant_that_a_new_root_key_does_not_vouch_for_is_given_up_without_a_restart() -> None:
    w = World(replace(SETTINGS, deploy=DeploySettings("ask")))
    w.take(desired())
    w.run(20)
    assert w.stands(State.STAGED)
    w.root = keys.COMMAND.public
    w.run(5)
    assert (w.state, code_of(w)) == (State.REFUSED, Code.VARIANT)
    assert_as_before(w)


def test_it_is_confirmed_once_the_centre_lets_it_and_reverted_where_no_update_can_say_it() -> None:
    w = World(cannot=NotWelcome(device="pi-7", model="tiny", status="", next=""))
    w.take(desired())
    w.run()
    assert w.stands(State.SOAKING)
    w.means.cannot = None
    w.run(5)
    assert w.stands(State.CONFIRMED)
    w = World(cannot=TooLarge(what="it", size=2, limit=1))
    w.take(desired())
    w.run()
    assert (w.state, code_of(w)) == (State.REVERTED, Code.BUDGET)
    assert_as_before(w)


# Killed.


@pytest.mark.parametrize("how", ["well", "worse", "veto", "newer", "back"])
def test_killed_at_each_write_it_ends_confirmed_or_reverted_and_serves_the_one_that_it_says(how: str) -> None:
    def story(w: World) -> None:
        if how == "worse":
            w.means.found = w.more["found"] = Probed("kept", 0.9, 0.1, stop=Stop(Code.WORSE, "worse"))
        w.take(desired())
        if how == "veto":
            w.run(until=lambda: w.stands(State.SOAKING))
            w.disk.host[1] = HostWord(1, False, "no")
        if how == "newer":
            w.run(until=lambda: w.stands(State.SOAKING))
            w.take(desired(2))
        w.run()
        if how == "back":
            w.take(desired(2, terms(None, back=True, urls=()), variant=A, bytes=0))
            w.run()

    whole = World()
    story(whole)
    assert whole.disk.writes > 8
    for step in range(1, whole.disk.writes + 1):
        w = World()
        w.disk.dies_at = step
        with pytest.raises(Killed):
            story(w)
        w.again()
        last = 2 if how in ("newer", "back") else 1
        for number in range(1, last + 1):  # the centre says again what is open, and what comes next
            if number > w.disk.number:
                w.take(desired(number) if how != "back" or number == 1 else
                       desired(2, terms(None, back=True, urls=()), variant=A, bytes=0))  # fmt: skip
            w.run()
        assert w.state in FINAL, step
        assert w.disk.soaking == b"" and w.disk.staged == b"", step
        assert not w.stands(State.CONFIRMED) or w.disk.served == (A if how == "back" else B), step
        assert not w.stands(State.REVERTED) or w.disk.served == A, step
        if how != "veto" or w.disk.host:  # a kill may have come before the host said it
            assert (w.state, w.disk.served, w.disk.snapshots) == (whole.state, whole.disk.served, whole.disk.snapshots), step
            assert w.disk.row is not None and whole.disk.row is not None
            assert (w.disk.row.code, w.disk.row.reason) == (whole.disk.row.code, whole.disk.row.reason), "it says why, whatever was killed"


@given(st.lists(st.sampled_from(["tick", "kill", "newer", "same", "old", "yes", "no", "busy", "idle", "late", "fail"]), max_size=60))
@settings(deadline=None, max_examples=300)
def test_whatever_comes_only_known_transitions_happen_and_one_base_is_served(events: list[str]) -> None:
    w, number, last = World(), 0, dict[int, str]()
    for event in events:
        before = w.state
        if event == "tick":
            w.run(3)
        elif event == "kill":
            w.again()
        elif event == "newer":
            number += 1
            w.take(desired(number, terms(soak=5), expiry=w.newest + 50))
        elif event == "same" and w.disk.row is not None:
            w.machine.say_again()
        elif event == "old" and number > 1:
            with pytest.raises(DesiredRefused):
                w.take(desired(number - 1))
        elif event in ("yes", "no"):
            w.disk.host[number] = HostWord(number, event == "yes", "")
        elif event in ("busy", "idle"):
            w.idle = event == "idle"
        elif event == "late":
            w.newest += 100
        elif event == "fail":
            w.means.found = Probed(stop=Stop(Code.CRASH, "it crashed"))
        w.hear()
        assert w.disk.seen in (A, B) and w.disk.served in (A, B)
        assert w.disk.soaking != w.disk.served
        assert before is None or w.state is not None
    for report in w.reports:
        known = last.get(report.number)
        assert known is None or known == report.state or reachable(State(known), State(report.state)), (known, report.state)
        last[report.number] = report.state


def reachable(before: State, after: State) -> bool:
    nexts = [b for a, b in TRANSITIONS if a is before]
    return after in nexts or any(reachable(n, after) for n in nexts)


def at(state: State) -> World:
    """Return a world that stands in a state."""
    w = World()
    w.idle = state not in (State.STAGED,)
    w.take(desired())
    if state is not State.OFFERED:
        w.run(until=lambda: w.stands(state))
        w.machine.tick(w.now)
    assert w.stands(state)
    return w


def code_of(w: World) -> str:
    figures = figures_in(w.reports[-1].more)
    assert figures is not None
    return figures.code


def assert_as_before(w: World) -> None:
    """What was served is served, and nothing lies about."""
    assert (w.disk.served, w.disk.soaking, w.disk.staged, w.disk.passive, w.disk.snapshots) == (A, b"", b"", b"", [])
