"""What every Store does with deployments: what is sealed stays as it is, numbers rise, and reports move assignments on and never back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.registry import (
    DesiredRow,
    FrozenRow,
    ReportTaken,
    RolloutTally,
    SqliteStore,
    VariantRow,
    create_registry,
    open_registry,
)
from modelwire.deploying.reports import Code, DeviceFigures
from modelwire.deploying.states import FINAL, TRANSITIONS, State
from modelwire.errors import LineageError
from tests.edgecloud import rollouts as words
from tests.edgecloud.conformance.test_store import BASE, IDENTITY, KEY, OTHER, TRUST

C = BASE.commit
BACK = b"b" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    path = tmp_path / "fleet.db"
    create_registry(path, fleet="orchard", identity=IDENTITY, trust=TRUST, now=1)
    made = open_registry(path, synchronous="OFF")
    made.bases.add(BASE)
    for name, key in (("pi-7", KEY), ("pi-8", OTHER)):
        made.devices.add(name, key, 10)
        made.lineages.ensure(name, words.MODEL)
    yield made
    made.close()


def begin(store: SqliteStore, rollout: bytes = words.ID, name: str = "spring") -> int:
    return store.rollouts.add(b"plan " + rollout, words.plan(rollout=rollout, name=name, variant=C), 20).id


def want(store: SqliteStore, rollout: int, number: int, lineage: int = 1, variant: bytes = C, expiry: int = 1000) -> DesiredRow:
    return store.rollouts.put_desired(DesiredRow(lineage, number, rollout, variant, b"desired %d" % number, expiry, 30))


def say(store: SqliteStore, state: str, number: int, now: int = 40, figures: DeviceFigures | None = None, **fields: object) -> ReportTaken:
    said = words.report(state, C, number, **fields)
    return store.rollouts.take_report(1, said, figures, repr((said, now)).encode(), now)


def test_of_a_base_the_statement_with_the_highest_number_counts(store: SqliteStore) -> None:
    rollouts = store.rollouts
    assert rollouts.variant(C) is None and rollouts.variants() == []
    one, two = (VariantRow(C, "digits", number, "night", b"sealed %d" % number, 5) for number in (3, 4))
    rollouts.add_variant(one)
    rollouts.add_variant(two)
    other = VariantRow(C, "apples", 1, "night", b"sealed", 5)
    rollouts.add_variant(other)
    assert rollouts.variant(C) == two and rollouts.variants("digits") == [one, two] and rollouts.variants() == [other, one, two]
    for number in (4, 3, 1):
        with pytest.raises(LineageError, match="numbers only rise"):
            rollouts.add_variant(VariantRow(C, "digits", number, "night", b"sealed", 5))
    with pytest.raises(LineageError):
        rollouts.add_variant(VariantRow(bytes(32), "digits", 9, "night", b"sealed", 5))  # of no base
    with pytest.raises(LineageError, match="write-once"):
        store.database.run("UPDATE variant SET statement = x''")


def test_a_plan_never_changes_and_is_found_by_id_name_and_the_beginning_of_its_id(store: SqliteStore) -> None:
    rollouts = store.rollouts
    first, second = begin(store, bytes.fromhex("ab" * 16)), begin(store, bytes.fromhex("ab" * 15 + "ac"), "")
    row = rollouts.by_id(first)
    assert (row.state, row.phase, row.plan, row.created_at) == ("draft", 0, b"plan " + b"\xab" * 16, 20)
    assert rollouts.get(row.rollout) == row == rollouts.named("spring") == rollouts.named("ab" * 16)
    for text in ("", "ab", "ab" * 8, "ab" * 17, "no", "\xb2" * 8, "AB" * 16, "nothing!"):
        assert rollouts.named(text) is None  # too short, of two, of none
    assert rollouts.named("ab" * 15 + "ac") == rollouts.by_id(second)
    with pytest.raises(LineageError, match="a plan never changes"):
        begin(store, bytes.fromhex("ab" * 16), "other")
    with pytest.raises(LineageError, match="spring"):
        begin(store, bytes(16))
    for change in ("plan = x''", "plan = x'01'", "variant = x'01'", "rollout = zeroblob(16)"):
        with pytest.raises(LineageError, match="write-once"):
            store.database.run(f"UPDATE rollout SET {change}")
    with pytest.raises(LineageError, match="write-once"):
        store.database.run("DELETE FROM rollout")
    with pytest.raises(LineageError):
        rollouts.by_id(99)


def test_a_rollout_moves_and_its_phase_begins_anew(store: SqliteStore) -> None:
    rollouts = store.rollouts
    one = begin(store)
    assert rollouts.move(one, state="running", now=50).phase_at == 50
    paused = rollouts.move(one, state="paused", reason="lunch", now=60)
    assert (paused.state, paused.reason, paused.phase_at, paused.changed_at) == ("paused", "lunch", 50, 60)
    assert rollouts.move(one, state="running", reason="", now=70).phase_at == 50
    assert rollouts.move(one, phase=1, now=80).phase_at == 80
    assert rollouts.all(ended=False) == [rollouts.by_id(one)]
    done = rollouts.move(one, state="done", now=90)
    assert rollouts.all(ended=False) == [] and rollouts.all() == [done]
    with pytest.raises(LineageError):
        rollouts.move(one, state="dancing", now=90)


def test_decisions_rise_and_stay(store: SqliteStore) -> None:
    one = begin(store)
    store.rollouts.decide(one, 1, b"start", 21)
    store.rollouts.decide(one, 7, b"pause", 22)
    assert [(d.number, d.statement) for d in store.rollouts.decisions(one)] == [(1, b"start"), (7, b"pause")]
    for number in (7, 2):
        with pytest.raises(LineageError, match="numbers only rise"):
            store.rollouts.decide(one, number, b"again", 23)
    with pytest.raises(LineageError, match="write-once"):
        store.database.run("DELETE FROM decision")


def test_models_wait_in_the_order_of_phases_and_who_is_frozen_is_left_out(store: SqliteStore) -> None:
    rollouts, one = store.rollouts, begin(store)
    assert rollouts.assign(one, [2], 1, 30) == 1 and rollouts.assign(one, [1, 2], 0, 31) == 1
    assert [(a.lineage, a.device, a.phase) for a in rollouts.waiting(one, 9)] == [(1, "pi-7", 0), (2, "pi-8", 1)]
    assert [a.lineage for a in rollouts.waiting(one, 9, phase=0)] == [1] and len(rollouts.waiting(one, 1)) == 1
    frozen = FrozenRow("pi-7", "", "in the workshop", "anna", 32)
    rollouts.freeze(frozen)
    rollouts.freeze(FrozenRow("pi-8", "apples", "", "anna", 32))
    assert [a.lineage for a in rollouts.waiting(one, 9)] == [2]
    assert rollouts.is_frozen("pi-7", "digits") and not rollouts.is_frozen("pi-8", "digits") and rollouts.is_frozen("pi-8", "apples")
    assert rollouts.frozen()[0] == frozen and rollouts.unfreeze("pi-7") and not rollouts.unfreeze("pi-7")
    assert [a.lineage for a in rollouts.assignments(one)] == [1, 2] and [a.lineage for a in rollouts.assignments(one, 1)] == [2]
    assert rollouts.assignments(one, states=["soaking", "offered"]) == [] and len(rollouts.assignments(one, states=["waiting"])) == 2
    assert rollouts.assigned(2) == rollouts.assignments(one, 1) and rollouts.assignment(one, 3) is None


def test_what_a_model_is_to_run_rises_and_the_newest_is_told_until_it_ends_or_expires(store: SqliteStore) -> None:
    rollouts, one = store.rollouts, begin(store)
    rollouts.assign(one, [1, 2], 0, 30)
    assert rollouts.desired_for_hello(1, 0) is None and rollouts.newest_desired(1) is None
    first, other = want(store, one, 5), want(store, one, 5, lineage=2, expiry=39)
    assert rollouts.open_desired(0, 0) == [first, other] and rollouts.open_desired(40, 0) == [first]
    assert rollouts.open_desired(0, first.id) == [other] and rollouts.open_desired(0, 0, limit=1) == [first]
    assert rollouts.desired_for_hello(2, 39) == other and rollouts.desired_for_hello(2, 40) is None
    for number in (5, 4):
        with pytest.raises(LineageError, match="numbers only rise"):
            want(store, one, number)
    second = want(store, one, 6, variant=BACK)
    assert rollouts.open_desired(0, 0) == [other, second] and rollouts.desired_for_hello(1, 0) == second
    found = rollouts.assignment(one, 1)
    assert found is not None and (found.state, found.number, found.back, found.offered_at) == ("offered", 6, True, 30)
    lone = begin(store, b"r" * 16, "lone")
    with pytest.raises(LineageError, match="not in the rollout"):
        want(store, lone, 9)
    assert rollouts.newest_desired(1) == second  # nothing was half written
    with pytest.raises(LineageError, match="write-once"):
        store.database.run("UPDATE desired SET record = x''")


def test_a_report_moves_its_assignment_with_its_figures_and_the_last_one_ends_the_desired(store: SqliteStore) -> None:
    rollouts, one = store.rollouts, begin(store)
    rollouts.assign(one, [1], 0, 30)
    want(store, one, 1)
    assert say(store, "probing", 1) is ReportTaken.APPLIED and say(store, "probing", 1) is ReportTaken.REPEATED
    figures = DeviceFigures(True, 50, 3, 1, 900, 800, "", "kept")
    assert say(store, "soaking", 1, 41, figures, before=0.5, after=0.75, bytes=7) is ReportTaken.APPLIED
    a = rollouts.assignment(one, 1)
    assert a is not None and (a.state, a.before, a.after, a.rows, a.better, a.worse, a.learned, a.bytes) == (
        "soaking", 0.5, 0.75, 50, 3, 1, "kept", 7,
    )  # fmt: skip
    assert rollouts.tallies(one) == [RolloutTally(0, "soaking", "", False, 1, 50, 3, 1)]
    assert rollouts.desired_for_hello(1, 1001) is not None, "who has begun with it is asked how it ended, also once it has expired"
    assert rollouts.open_desired(1001, 0) == []
    assert say(store, "fetching", 1, 42) is ReportTaken.LATE and say(store, "confirmed", 9) is ReportTaken.UNKNOWN
    assert say(store, "confirmed", 1, 43, figures) is ReportTaken.APPLIED
    assert rollouts.newest_desired(1).ended == 43 and rollouts.desired_for_hello(1, 0) is None and rollouts.open_desired(0, 0) == []
    assert say(store, "reverted", 1, 44) is ReportTaken.LATE and rollouts.assignment(one, 1).state == "confirmed"
    assert [r.state for r in rollouts.reports(1)] == ["probing", "soaking", "fetching", "confirmed", "reverted"]
    want(store, one, 2, variant=BACK)
    assert say(store, "confirmed", 2, 45, DeviceFigures(rows=9)) is ReportTaken.APPLIED
    a = rollouts.assignment(one, 1)
    assert (a.state, a.back, a.rows, a.number) == ("confirmed", True, 50, 2)  # figures are of the trial


def test_a_final_report_ends_what_came_before_it_and_an_ended_rollout_is_left_as_it_is(store: SqliteStore) -> None:
    rollouts, one, two = store.rollouts, begin(store), begin(store, b"r" * 16, "second")
    for rollout in (one, two):
        rollouts.assign(rollout, [1], 0, 30)
        want(store, rollout, rollout)
    assert say(store, "confirmed", two) is ReportTaken.APPLIED
    before = rollouts.assignment(one, 1)
    assert (before.state, before.code) == ("refused", Code.SUPERSEDED) and rollouts.open_desired(0, 0) == []
    three = begin(store, b"t" * 16, "third")
    rollouts.assign(three, [1], 0, 30)
    want(store, three, 3)
    rollouts.move(three, state="aborted", now=50)
    assert say(store, "soaking", 3) is ReportTaken.LATE and rollouts.assignment(three, 1).state == "offered"
    four = begin(store, b"f" * 16, "fourth")
    rollouts.assign(four, [1], 0, 60)
    want(store, four, 4)
    assert say(store, "confirmed", 4) is ReportTaken.APPLIED and rollouts.assignment(three, 1).state == "offered"
    assert len(rollouts.reports(1, 3)) == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(said=st.lists(st.tuples(st.sampled_from([1, 2]), st.sampled_from(list(State)), st.integers(40, 45)), max_size=20))
def test_whatever_comes_in_whatever_order_a_model_never_goes_back_and_few_rows_are_kept(store: SqliteStore, said: list) -> None:
    """All orders, repeats and replays of two desireds' reports."""
    with store.transaction():
        rollouts = store.rollouts
        one = begin(store, (len(rollouts.all()) + 1).to_bytes(16, "big"), "")
        rollouts.assign(one, [1], 0, 30)
        newest = rollouts.newest_desired(1)
        offset = newest.number if newest is not None else 0
        want(store, one, offset + 1)
        want(store, one, offset + 2)
        order, last = {s.value: i for i, s in enumerate(State)}, 0
        ended = False
        for number, state, now in said:
            taken = say(store, state.value, offset + number, now)
            a = rollouts.assignment(one, 1)
            if taken is ReportTaken.APPLIED:
                assert number == 2 and not ended and order[a.state] >= min(last, 5) and a.state == state.value
                last, ended = order[a.state], state in FINAL
            assert (rollouts.desired_for_hello(1, 0) is None) == ended
        assert len(rollouts.reports(1, offset + 1)) + len(rollouts.reports(1, offset + 2)) <= 2 * len(State)


def test_every_state_of_a_device_can_be_held(store: SqliteStore) -> None:
    assert {s for pair in TRANSITIONS for s in pair} == set(State)
    one = begin(store)
    store.rollouts.assign(one, [1], 0, 30)
    for number, state in enumerate(State, 1):
        want(store, one, number)
        assert say(store, state.value, number) is ReportTaken.APPLIED


def test_a_rollout_of_many_steps_without_looking_at_all_of_them(store: SqliteStore) -> None:
    """What the director and the ingester ask at each step is answered from an index."""
    plans = {
        "waiting": "SELECT a.id FROM assignment a JOIN lineage l ON l.id = a.lineage WHERE a.rollout_id = 1 AND a.state = 'waiting'"
        " ORDER BY a.phase, a.id LIMIT 9",
        "tallies": "SELECT phase, state, code, back, count(*), sum(rows) FROM assignment INDEXED BY assignment_stands WHERE rollout_id = 1"
        " GROUP BY phase, state, code, back",
        "newest": "SELECT * FROM desired WHERE lineage = 1 ORDER BY number DESC LIMIT 1",
        "open": "SELECT * FROM desired d INDEXED BY desired_open WHERE ended = 0 AND id > 5 AND expiry >= 1 ORDER BY id LIMIT 9",
        "erasing": "SELECT rowid FROM report WHERE lineage IN (SELECT id FROM lineage WHERE device = 'x')",
    }
    for name, sql in plans.items():
        steps = [str(row[3]) for row in store.database.all(f"EXPLAIN QUERY PLAN {sql}")]
        assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in steps), (name, steps)
