"""Reports in any order, decisions at any time, directors killed at any statement: it ends alike, and nobody is told twice."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecloud.registry import SqliteStore, open_registry
from edgecloud.rollouts.stepping import Stepper
from modelwire.deploying.plans import RolloutPhase, RolloutVerb
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import State

from .desk import BY_STEPS, EQUAL, NEW, OLD, WORSE, Rolling, name_of

ON_THE_WAY = [State.OFFERED, State.FETCHING, State.STAGED, State.PROBING, State.SOAKING]
DEVICES = 6


class Killed(Exception):
    """The director is gone, in the middle of a statement."""


def killed_after(store: SqliteStore, statements: int) -> None:
    """Let the registry's connection of a director die at a statement that writes."""
    left, run, add = statements, store.database.run, store.database.add

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    def dying_run(sql: str, *values: object) -> int:
        if not sql.startswith(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "PRAGMA")):
            count()
        return run(sql, *values)

    def dying_add(sql: str, *values: object) -> int:
        count()
        return add(sql, *values)

    store.database.run = dying_run  # type: ignore[method-assign]
    store.database.add = dying_add  # type: ignore[method-assign]


def rounds(rolling: Rolling, kills: list[int], verdict: DeviceFigures) -> None:
    """Go through a rollout of three phases; a director is killed again and again, and another one goes on."""
    rolling.plan(phases=BY_STEPS)
    left = iter(kills)
    for _ in range(40):
        for _ in range(3):
            kill = next(left, None)
            if kill is not None:
                killed_after(rolling.store, kill)
            with suppress(Killed):
                rolling.step()
            if kill is not None:
                rolling.killed()
        rolling.settle()
        if rolling.row.state in ("done", "halted", "paused"):
            return
        rolling.serve(verdict)
    raise AssertionError("it never ends")


@pytest.mark.slow("two whole rollouts an example, some ten seconds")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=24), st.sampled_from([EQUAL, WORSE]))
def test_a_director_that_is_killed_at_any_statement_ends_as_one_that_is_not(kills: list[int], verdict: DeviceFigures) -> None:
    ends = []
    for some in ([], kills):
        with tempfile.TemporaryDirectory() as folder:
            rolling = Rolling(Path(folder) / "fleet.db", devices=DEVICES)
            rounds(rolling, some, verdict)
            told = Counter(row[0] for row in rolling.store.database.all("SELECT lineage FROM desired"))
            stand = [(one.device, one.phase, one.state, one.back) for one in rolling.assigned()]
            ends.append((rolling.standing, stand, told, rolling.row.reason))
            rolling.store.close()
    assert ends[0] == ends[1]


REPORTS = st.lists(
    st.tuples(st.integers(1, DEVICES), st.sampled_from([*ON_THE_WAY, State.CONFIRMED, State.REVERTED, State.REFUSED, State.TIMED_OUT])),
    max_size=40,
)
VERBS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(list(RolloutVerb))), max_size=6)


@settings(max_examples=60, deadline=None)
@given(REPORTS, VERBS, st.integers(0, 3))
def test_whatever_is_reported_and_decided_numbers_rise_and_no_phase_is_passed_unseen(
    said: list[tuple[int, State]], verbs: list[tuple[int, RolloutVerb]], every: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rolling = Rolling(Path(folder) / "fleet.db", devices=DEVICES)
        rolling.plan(phases=(RolloutPhase(count=3), RolloutPhase(share=10_000)))
        for turn, (n, state) in enumerate(said):
            for at, verb in verbs:
                if at == turn:
                    rolling.decide(verb)
            if rolling.desired(name_of(n)) is not None:
                code = Code.CRASH if state is State.REVERTED else ""
                rolling.say(name_of(n), state, DeviceFigures(rows=200, code=code, serves=NEW, passive=OLD))
            rolling.step(after=every * 40)
            numbers = [row[0] for row in rolling.store.database.all("SELECT number FROM desired WHERE lineage = 1 ORDER BY id")]
            assert numbers == sorted(set(numbers))
            if rolling.row.phase == 1 and not any(verb is RolloutVerb.RESUME for _, verb in verbs):
                confirmed = sum(one.state == "confirmed" or one.back for one in rolling.assigned(0))
                assert confirmed * 10 >= 9 * sum(one.state not in ("refused", "timed out") for one in rolling.assigned(0))
        # Whatever came before, a roll back leaves nobody who was not told to go back.
        rolling.decide(RolloutVerb.ROLL_BACK)
        rolling.settle()
        if rolling.row.state == "rolling back":
            end = "aborted" if rolling.row.reason.startswith("abort:") else "rolled back"  # what an abort took back ends as one
            assert all(one.back for one in rolling.assigned() if one.state not in ("waiting", "refused", "reverted", "timed out"))
            rolling.all_say(State.CONFIRMED)
            rolling.settle()
            rolling.step(after=700)
            assert rolling.row.state == end
        rolling.store.close()


def test_of_two_directors_at_once_none_offers_what_the_other_has_offered(tmp_path: Path) -> None:
    rolling = Rolling(tmp_path / "fleet.db")
    rolling.plan(phases=BY_STEPS)
    other = open_registry(rolling.path, synchronous="OFF")
    second = Stepper(other, rolling.key)
    for phase in range(3):
        for _ in range(3):
            rolling.step()
            second.step(rolling.now)
        rolling.serve()
        second.step(rolling.now)
        assert len(rolling.assigned(phase)) == (2, 2, 4)[phase]
    assert rolling.row.state == "done"
    assert rolling.store.database.number("SELECT count(*) FROM desired") == 8
    other.close()


def test_a_move_that_another_director_made_meanwhile_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rolling = Rolling(tmp_path / "fleet.db")
    rolling.plan(phases=BY_STEPS)
    rolling.settle()
    rolling.all_say(State.CONFIRMED, EQUAL)
    rolling.now += 61
    other = open_registry(rolling.path, synchronous="OFF")
    second, plain = Stepper(other, rolling.key), Stepper._moved

    def slowly(self: Stepper, *words: object) -> object:
        monkeypatch.setattr(Stepper, "_moved", plain)
        second.step(rolling.now)  # the other one is done with it first
        return plain(self, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(Stepper, "_moved", slowly)
    rolling.step()
    assert rolling.standing == ("running", 1) and len(rolling.assigned(1)) == 2
    assert rolling.store.database.number("SELECT count(*) FROM desired") == 4
    other.close()
