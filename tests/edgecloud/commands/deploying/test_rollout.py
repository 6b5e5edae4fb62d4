"""`edgecloud rollout`: each verb is a sealed row, said twice it is one, and from where it leads nowhere it is refused by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edgecloud.commands import answer
from edgecloud.commands.deploying import answers, rollout
from edgecloud.keys import load_key, read_key_file
from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import STATES, DesiredRow, RolloutRow
from edgecloud.rollouts import statements
from edgecloud.rollouts.verbs import RULES
from modelwire.deploying.plans import RolloutDecision, RolloutVerb, seal_decision
from modelwire.deploying.states import State
from modelwire.errors import BadSignature
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.signing import PrivateKey
from tests.edgecloud import rollouts
from tests.edgecloud.centre import damage
from tests.edgecloud.desk import Desk

from .fleet import fleet, names, offer, report, variant

OTHER = PrivateKey(bytes([7]) * 32)  # of a second person
WORDS = {verb: verb.value.replace(" ", "") for verb in RolloutVerb}
CHANGED = 100  # Unix seconds


@pytest.fixture
def planned(desk: Desk) -> tuple[Desk, SqliteStore]:
    """Six devices, and the rollout spring of the variant tall, a draft."""
    store = fleet(desk, 6)
    variant(desk)
    desk.ok("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--name", "spring", "--by", "anna")
    return desk, store


def row_of(store: SqliteStore, name: str = "spring") -> RolloutRow:
    row = store.rollouts.named(name)
    assert row is not None
    return row


def moved(store: SqliteStore, state: str, reason: str = "") -> None:
    """Do what the director does: move a rollout, and note which decision it has come to."""
    decided = store.rollouts.decisions(row_of(store).id)
    noted = f" (decisions: {decided[-1].number})" if decided else ""
    store.rollouts.move(row_of(store).id, state=state, reason=reason + noted, now=CHANGED)


def verbs(store: SqliteStore, name: str = "spring") -> list[str]:
    return [one.decision.verb.value for one in statements.decisions_of(store, row_of(store, name))]


@pytest.mark.parametrize("verb", [verb for verb in RolloutVerb if verb is not RolloutVerb.APPROVE])
def test_a_verb_is_sealed_where_it_leads_on_and_said_twice_it_is_one(planned: tuple[Desk, SqliteStore], verb: RolloutVerb) -> None:
    desk, store = planned
    for state in STATES:
        moved(store, state)
        before = len(verbs(store))
        if state in RULES[verb].possible:
            first = desk.json("rollout", WORDS[verb], "spring", "--reason", "so it is", "--by", "berta")
            again = desk.json("rollout", WORDS[verb], "spring")
            assert (first["sealed"], again["sealed"], first["then"]) == (True, False, RULES[verb].then)
            assert verbs(store)[before:] == [verb.value]
            newest = statements.decisions_of(store, row_of(store))[-1].decision
            assert (newest.by, newest.reason, newest.rollout) == ("berta", "so it is", row_of(store).rollout)
            damage(store, "DELETE FROM decision")
        elif state in RULES[verb].already:
            assert desk.json("rollout", WORDS[verb], "spring")["sealed"] is False and len(verbs(store)) == before
        else:
            error = desk.error("rollout", WORDS[verb], "spring")
            assert f"spring is {state}" in str(error["message"]) and "edgecloud rollout" in str(error["hint"])
            assert len(verbs(store)) == before


def test_a_decision_that_the_director_has_not_come_to_counts_for_the_next_one(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    moved(store, "running")
    for word, sealed in (("pause", True), ("pause", False), ("resume", True), ("resume", False), ("halt", True), ("rollback", True)):
        assert desk.json("rollout", word, "spring")["sealed"] is sealed, word
    assert "is rolling back" in str(desk.error("rollout", "resume", "spring")["message"])
    assert verbs(store) == ["pause", "resume", "halt", "roll back"]
    numbers = [one.decision.number for one in statements.decisions_of(store, row_of(store))]
    assert numbers == sorted(set(numbers))


def test_who_resumes_against_the_quality_gate_is_told_what_it_means_and_a_reason_is_shown_without_its_note(
    planned: tuple[Desk, SqliteStore]
) -> None:
    desk, store = planned
    desk.ok("rollout", "start", "spring")
    moved(store, "paused", "quality: too few rows to tell")
    assert desk.json("rollout", "show", "spring")["reason"] == "quality: too few rows to tell"
    assert "goes on to the next phase" in str(desk.json("rollout", "resume", "spring")["then"])
    moved(store, "paused", "success: 1 of 2 devices serve it")
    assert "phase that it is in" in str(desk.json("rollout", "resume", "spring")["then"])
    moved(store, "running", "follows: every phase is through")
    said = desk.json("rollouts")["rollouts"]
    assert said[0]["follows"] and desk.ok("rollout", "show", "spring", "--watch").count("state  ") == 1  # type: ignore[index]
    assert any("until this one begins" in one for one in desk.json(  # type: ignore[attr-defined]
        "deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--plan")["warnings"])  # fmt: skip


def test_what_somebody_has_can_be_halted_or_taken_back_and_not_aborted(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    offer(store, row_of(store), ["pi-01", "pi-02"])
    moved(store, "running")
    report(store, row_of(store), "pi-01", State.SOAKING, rows=10)
    error = desk.error("rollout", "abort", "spring")
    assert "1 device has it" in str(error["message"]) and "halt" in str(error["hint"])
    report(store, row_of(store), "pi-01", State.REVERTED, code="crash")
    assert desk.json("rollout", "abort", "spring")["sealed"] is True


def test_another_person_approves_with_a_key_of_their_own_and_it_starts_no_earlier(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    assert "asks for nobody's approval" in str(desk.error("rollout", "approve", "spring")["message"])
    anna = desk.folder / "command.key"
    berta = desk.folder / "berta.key"
    berta.touch(mode=0o600)
    berta.write_text(write_key(KeyKind.COMMAND_PRIVATE, bytes([7]) * 32) + "\n")
    publics = [write_key(KeyKind.COMMAND, key) for key in (_public(anna), OTHER.public)]
    desk.ok("trust", "rotate", "command", "--public", publics[0], "--public", publics[1], "--now")
    desk.ok("deploy", "tall", "--all", "--phase", "2", "--phase", "all", "--name", "two", "--approvals", "1")
    assert "lacks 1 approval of 1" in str(desk.error("rollout", "start", "two")["message"])
    assert "who made it can't approve it" in str(desk.error("rollout", "approve", "two")["message"])
    two = row_of(store, "two")
    own = RolloutDecision(store.fleet, two.rollout, 1, RolloutVerb.APPROVE, "anna", "", 1)
    sealed = seal_decision(own, load_key(anna, KeyKind.COMMAND_PRIVATE), store.identity.id)
    store.rollouts.decide(two.id, 1, sealed, 1)  # as if this program had let it pass
    assert verbs(store, "two") == ["approve"]
    assert "lacks 1 approval of 1" in str(desk.error("rollout", "start", "two")["message"])
    said = desk.json("rollout", "approve", "two", "--key", "berta.key")
    assert said["sealed"] and said["approvals"] == {"have": 1, "of": 1}
    assert desk.json("rollout", "approve", "two", "--key", "berta.key")["sealed"] is False
    assert desk.json("rollout", "start", "two")["sealed"] is True
    assert desk.json("rollout", "show", "two")["approvals"] == {"have": 1, "of": 1}
    assert "needs 1 approvals" in str(
        desk.error("deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--approvals", "1", "--start")["message"]
    )


def _public(path: Path) -> bytes:
    return read_key_file(path).public


def test_show_counts_by_phase_state_and_error_and_names_who_failed_and_why(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    row = row_of(store)
    first, *rest = names(6)
    offer(store, row, [first, rest[0]])
    offer(store, row, rest[1:4], phase=1)
    moved(store, "running")
    report(store, row, first, State.SOAKING, rows=120, better=4, worse=3)
    report(store, row, rest[0], State.REVERTED, reason="it took 4 times as long", code="slow", rows=120, better=1, worse=9)
    report(store, row, rest[1], State.REFUSED, reason="the host said no", code="veto")
    said = desk.json("rollout", "show", "spring")
    assert said["counts"] == {"soaking": 1, "reverted": 1, "offered": 2, "refused": 1}
    phases = said["phases"]
    assert isinstance(phases, list)
    assert [(one["devices"], one["rows"], one["better"], one["worse"]) for one in phases] == [(2, 240, 5, 12), (3, 0, 0, 0)]
    assert phases[0]["change"] == pytest.approx(-7 / 240) and phases[1]["change"] is None
    codes = {(one["state"], one["code"]): one["devices"] for one in said["codes"]}  # type: ignore[attr-defined]
    assert codes == {("soaking", None): 1, ("reverted", "slow"): 1, ("offered", None): 2, ("refused", "veto"): 1}
    assert [(one["device"], one["code"], one["reason"]) for one in said["troubled"]] == [  # type: ignore[attr-defined]
        ("pi-02", "slow", "it took 4 times as long"), ("pi-03", "veto", "the host said no"),
    ]  # fmt: skip
    assert (said["served"], said["failed"], said["state"], said["made_by"]) == (1, 1, "running", "anna")
    text = desk.ok("rollout", "show", "spring")
    assert "-2.9 points" in text and "it took 4 times as long" in text and "> 1" in text
    assert len(desk.json("rollout", "show", "spring", "-n", "1")["troubled"]) == 1  # type: ignore[arg-type]
    assert desk.json("rollouts")["rollouts"][0]["served"] == 1  # type: ignore[index]
    assert desk.json("rollout", "show", row.rollout.hex()[:8])["rollout"] == "spring"


def test_what_devices_say_draws_on_no_terminal(planned: tuple[Desk, SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    desk, store = planned
    offer(store, row_of(store), ["pi-01"])
    report(store, row_of(store), "pi-01", State.REFUSED, reason="no\x1b[2J\nroom", code="x\x9b")
    damage(store, "UPDATE rollout SET reason = ?", "why\x1b]0;title " + "and more of it " * 9)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    text = desk.ok("rollout", "show", "spring") + desk.ok("rollouts")
    assert "\\x1b[2J" in text and not {"\x1b", "\x9b"} & set(text)
    assert max(map(len, text.splitlines())) <= 80


def test_devices_that_went_back_are_told_apart(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    row = row_of(store)
    offer(store, row, ["pi-01"])
    report(store, row, "pi-01", State.CONFIRMED, rows=5)
    lineage = store.lineages.get("pi-01", "digits")
    assert lineage is not None
    back = store.bases.named("digits")
    assert back is not None
    record = rollouts.desired(back.commit, 2, device="pi-01")
    store.rollouts.put_desired(DesiredRow(lineage.id, 2, row.id, back.commit, record, 1 << 40, 9))
    report(store, row, "pi-01", State.CONFIRMED)
    said = desk.json("rollout", "show", "spring")
    assert said["counts"] == {"confirmed, back": 1} and said["served"] == 0
    assert said["codes"] == [{"state": "gone back", "code": None, "devices": 1}]


def test_a_row_that_no_key_of_the_fleet_sealed_is_not_shown_as_one(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    forged = row_of(store).plan[:-1] + bytes([row_of(store).plan[-1] ^ 1])
    damage(store, "UPDATE rollout SET plan = ?", forged)
    code, _, err = desk.run("rollout", "show", "spring")
    assert code and "plan" in err and "command key" in err
    with pytest.raises(BadSignature):
        statements.plan_of(store, row_of(store))


def test_a_plan_or_a_decision_of_another_rollout_counts_for_nothing_and_does_not_keep_anybody_from_halting(
    planned: tuple[Desk, SqliteStore]
) -> None:
    desk, store = planned
    desk.ok("deploy", "tall", "--all", "--phase", "1", "--phase", "all", "--name", "other", "--start")
    row, other = row_of(store), row_of(store, "other")
    theirs = store.rollouts.decisions(other.id)[0]
    store.rollouts.decide(row.id, theirs.number, theirs.statement, 1)  # sealed, about the other
    store.rollouts.decide(row.id, theirs.number + 5, b"anything", 1)
    store.rollouts.decide(row.id, theirs.number + 9, rollouts.decision(RolloutVerb.HALT, theirs.number + 9, rollout=row.rollout), 1)
    assert statements.decisions_of(store, row) == []  # the last one by a key of no fleet of ours
    said = desk.json("rollout", "show", "spring")
    assert said["decisions"] == [] and len(said["unproven"]) == 3  # type: ignore[arg-type]
    assert "3 more stand there" in desk.ok("rollout", "show", "spring")
    store.rollouts.decide(row.id, (1 << 63) - 1, b"the last number there is", 1)
    store.rollouts.move(row.id, state="running", now=2)
    halted = desk.json("rollout", "halt", "spring")
    assert halted["sealed"] is True and halted["number"] < 1 << 62  # type: ignore[operator]
    assert verbs(store) == ["halt"] and desk.json("rollout", "halt", "spring")["sealed"] is False
    assert desk.json("rollout", "rollback", "spring")["sealed"] is True and verbs(store) == ["halt", "roll back"]
    damage(store, "UPDATE rollout SET plan = ? WHERE id = ?", other.plan, row.id)
    assert "the plan of other" in str(desk.error("rollout", "show", "spring")["message"])


def test_watching_shows_each_change_once_and_ends_with_the_rollout(
    planned: tuple[Desk, SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, store = planned
    states = iter(("draft", "running", "running", "paused", "done"))
    monkeypatch.setattr(time, "sleep", lambda seconds: moved(store, next(states)))
    monkeypatch.setattr(rollout, "time", time)
    out = desk.ok("rollout", "show", "spring", "--watch", "--every", "0.01")
    shown = [line.split()[1] for line in out.splitlines() if line.startswith("state ") and len(line.split()) == 2]
    assert shown[0] == "draft" and shown[-1] == "done" and shown.count("running") == 1 and shown.count("paused") == 1
    assert desk.error("rollout", "show", "spring", "--watch")["error"] == "Usage"  # with --json
    assert desk.run("rollout", "show", "spring", "--every", "2")[0] == 2


@pytest.mark.slow("draws with matplotlib", seconds=2)
def test_a_chart_is_drawn(planned: tuple[Desk, SqliteStore]) -> None:
    pytest.importorskip("matplotlib", reason="the charts need matplotlib")
    desk, store = planned
    offer(store, row_of(store), ["pi-01", "pi-02"])
    report(store, row_of(store), "pi-01", State.REVERTED, code="crash")
    desk.ok("rollout", "show", "spring", "--plot", "spring.svg")
    drawn = (desk.folder / "spring.svg").read_text()
    assert "spring: draft" in drawn and "reverted" in drawn and "phase 2" in drawn
    assert desk.error("rollout", "show", "spring", "--plot", "spring.gif")["error"] == "BadArgument"


def test_whether_a_director_runs_is_said(planned: tuple[Desk, SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    desk, store = planned
    assert "no director has run" in desk.ok("rollouts")
    store.tallies.set_measured(answers.DIRECTOR, "", answer.now())
    assert "a director is running" in desk.ok("rollouts")
    at = answer.now() + 3600
    monkeypatch.setattr(answers, "now", lambda: at)
    assert "is edgecloud director running?" in desk.ok("rollouts")


def test_names_that_are_none_are_told(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    for words in (("show", "none"), ("pause", "none"), ("start", "")):
        assert desk.error("rollout", *words)["error"] == "UnknownVersion"
    assert desk.error("rollout")["error"] == "Usage" and desk.error("rollout", "start", "spring", "--reason", "a\nb")["error"] == "Usage"
    (desk.folder / "command.key").rename(desk.folder / "away.key")
    assert desk.error("rollout", "start", "spring")["error"] == "MissingFile" and verbs(store) == []
    assert desk.error("rollout", "start", "spring", "--key", "director.key")["error"] == "WrongKeyKind"


def test_a_rollout_whose_plan_went_with_an_erased_device_is_still_listed(planned: tuple[Desk, SqliteStore]) -> None:
    desk, store = planned
    damage(store, "UPDATE rollout SET plan = x''")
    assert desk.json("rollout", "show", "spring")["gates"] is None and "erased" in desk.ok("rollout", "show", "spring")
    assert "not kept any more" in str(desk.error("rollout", "start", "spring")["message"])
