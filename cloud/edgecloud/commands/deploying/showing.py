"""One rollout as a document, as text and as a chart: its phases, gates, devices by state and error, and what was decided about it."""

from __future__ import annotations

import argparse
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from edgecloud.charts import drawing
from edgecloud.registry import SqliteStore
from edgecloud.registry.rollout_rows import WAITING, AssignmentRow, RolloutRow, RolloutTally
from edgecloud.rollouts import choosing, statements
from edgecloud.rollouts.choosing import percent
from edgecloud.rollouts.planning import duration
from edgecloud.rollouts.rows import FAILURES, SERVED, SHORT, summary
from edgecloud.rollouts.statements import SealedDecision, SealedPlan
from edgecloud.rollouts.verbs import why
from edgecommon.printing import Answer
from edgecommon.tables import Column, most
from modelwire.deploying.plans import WHOLE
from modelwire.deploying.states import State

from ..answer import Document, ago, facts, now, sentences, table, when
from .answers import counted, director_said

BACK, NOTE = "gone back", 84  # characters under a chart's title
ORDER = (WAITING, *(state.value for state in State), BACK)  # of a chart's bars, from below
COLOURS = MappingProxyType({
    WAITING: "0.85", State.OFFERED.value: "tab:cyan", State.FETCHING.value: "tab:blue", State.STAGED.value: "tab:purple",
    State.PROBING.value: "tab:olive", State.SOAKING.value: "lightgreen", State.CONFIRMED.value: "tab:green",
    State.REVERTED.value: "tab:red", State.REFUSED.value: "tab:orange", State.TIMED_OUT.value: "tab:brown", BACK: "tab:pink",
})  # fmt: skip
TROUBLED = (State.REVERTED.value, State.REFUSED.value, State.TIMED_OUT.value)
_UNDER_WAY = frozenset(state.value for state in (State.OFFERED, State.FETCHING, State.STAGED, State.PROBING))


def mark(store: SqliteStore, row: RolloutRow) -> str:
    """Return what changes whenever something of a rollout does that is shown."""
    return repr((row, store.rollouts.tallies(row.id), [one.number for one in store.rollouts.decisions(row.id)]))


def shown(store: SqliteStore, row: RolloutRow, args: argparse.Namespace) -> Answer:
    """Return a rollout as a document and as text."""
    tallies = store.rollouts.tallies(row.id)
    plan = statements.plan_of(store, row) if row.plan else None
    decisions = statements.decisions_of(store, row)
    troubled = store.rollouts.assignments(row.id, states=TROUBLED)
    unproven = statements.unproven(store, row)
    seen, director = director_said(store)
    limit = most(args)
    said = summary(store, row)
    document: Document = {
        **said, "made_by": plan.plan.made_by if plan else None, "counts": counted(tallies),
        "phases": [_phase(n, one, plan) for n, one in _by_phase(tallies, plan)],
        "codes": [{"state": s, "code": c or None, "devices": n} for (s, c), n in _codes(tallies)],
        "gates": None if plan is None else _gates(plan),
        "approvals": None if plan is None else {"have": len(statements.approvers(plan, decisions)), "of": plan.plan.approvals},
        "troubled": [_troubled(one) for one in troubled[:limit]], "more": len(troubled) - len(troubled[:limit]),
        "decisions": [_decision(one) for one in decisions], "unproven": unproven, "director_seen_at": seen,
    }  # fmt: skip
    parts = [
        _head(said, plan, decisions, director), _phases_text(tallies, plan, row), _codes_text(tallies), _judged(tallies, plan),
        _troubled_text(troubled, limit), _decisions_text(decisions, unproven),
    ]  # fmt: skip
    return Answer(document, "\n\n".join(filter(None, parts)))


def draw(path: Path, store: SqliteStore, row: RolloutRow) -> None:
    """Draw how many devices of each phase are in which state."""
    tallies = store.rollouts.tallies(row.id)
    phases = _by_phase(tallies, statements.plan_of(store, row) if row.plan else None)
    parts = {state: [sum(t.devices for t in of if _state(t) == state) for _, of in phases] for state in ORDER}
    drawing.stacked(
        path, [f"phase {n + 1}" for n, _ in phases], {state: of for state, of in parts.items() if any(of)}, COLOURS,
        title=f"{row.name}: {row.state}", note=textwrap.shorten(why(row), NOTE, placeholder="..."), unit="devices",
    )  # fmt: skip


def _state(one: RolloutTally) -> str:
    """Return the state under which a chart counts devices: those that are back from it are of no other."""
    return BACK if one.back and one.state in SERVED else one.state


def _by_phase(tallies: Sequence[RolloutTally], plan: SealedPlan | None) -> list[tuple[int, list[RolloutTally]]]:
    of = defaultdict[int, list[RolloutTally]](list)
    for one in tallies:
        of[one.phase].append(one)
    count = max(len(plan.plan.phases) if plan else 0, max(of, default=-1) + 1)
    return [(n, of[n]) for n in range(count)]


def _phase(number: int, tallies: Sequence[RolloutTally], plan: SealedPlan | None) -> Document:
    phase = plan.plan.phases[number] if plan is not None and number < len(plan.plan.phases) else None
    rows = sum(t.rows for t in tallies)
    better, worse = sum(t.better for t in tallies), sum(t.worse for t in tallies)
    return {
        "phase": number + 1, "says": choosing.said(phase) if phase else None, "devices": sum(t.devices for t in tallies),
        "counts": counted(tallies), "rows": rows, "better": better, "worse": worse, "change": (better - worse) / rows if rows else None,
        "soak": (phase.soak or plan.plan.soak) if phase and plan else None,
    }  # fmt: skip


def _gates(plan: SealedPlan) -> Document:
    g = plan.plan.gates
    return {name: getattr(g, name) for name in ("success", "error", "error_least", "margin", "surely", "patience")}


def _codes(tallies: Sequence[RolloutTally]) -> list[tuple[tuple[str, str], int]]:
    """Return how many devices stand alike, by state in its order and error code, the most first."""
    out = defaultdict[tuple[str, str], int](int)
    for one in tallies:
        out[_state(one), one.code] += one.devices
    return sorted(out.items(), key=lambda item: (ORDER.index(item[0][0]), -item[1], item[0][1]))


def _troubled(one: AssignmentRow) -> Document:
    return {
        "device": one.device, "phase": one.phase + 1, "state": one.state, "code": one.code or None, "reason": one.reason, "back": one.back,
        "before": one.before, "after": one.after, "rows": one.rows, "micros": one.micros or None, "changed_at": one.changed_at,
    }  # fmt: skip


def _decision(one: SealedDecision) -> Document:
    d = one.decision
    return {"number": d.number, "verb": d.verb.value, "by": d.by, "reason": d.reason, "at": d.at, "key": one.key.hex()[:16]}


def _head(said: Document, plan: SealedPlan | None, decisions: Sequence[SealedDecision], director: str) -> str:
    whom = ""
    if plan is not None:
        p = plan.plan
        whom = p.cohort or " and ".join(f"{key}={value}" for key, value in p.where) or (f"{len(p.devices)} by name" if p.devices else "all")
    approvals = f"{len(statements.approvers(plan, decisions))} of {plan.plan.approvals}" if plan is not None and plan.plan.approvals else ""
    made = f"by {plan.plan.made_by}, {when(plan.plan.at)}" if plan is not None else "the plan went with a device that was erased"
    head = facts([
        ("rollout", f"{said['rollout']} of {said['model']}, id {said['id'].hex()[:SHORT]}"),
        ("variant", f"{said['variant']}, {said['commit'].hex()[:16]}"),
        ("for", whom), ("made", made), ("approvals", approvals), ("state", said["state"]),
        ("changed", ago(said["changed_at"], now())), ("director", director),
    ])  # fmt: skip
    return f"{head}\n{sentences([said['reason']])}" if said["reason"] else head


def _phases_text(tallies: Sequence[RolloutTally], plan: SealedPlan | None, row: RolloutRow) -> str:
    columns = (
        Column("phase"), Column("goes to", 1, words=True), Column("devices"), Column("waiting", 3), Column("under way", 2),
        Column("serve it"), Column("failed"), Column("untried", 4), Column("soak", 5),
    )  # fmt: skip
    lines = []
    for n, of in _by_phase(tallies, plan):
        one = _phase(n, of, plan)
        counts = {state: sum(t.devices for t in of if _state(t) == state) for state in ORDER}
        here = "> " if n == row.phase else ""
        lines.append((
            f"{here}{n + 1}", one["says"] or "", one["devices"], counts[WAITING], sum(counts[s] for s in _UNDER_WAY),
            sum(counts[s] for s in SERVED), sum(counts[s] for s in FAILURES), counts["refused"] + counts["timed out"],
            "" if one["soak"] is None else duration(one["soak"]),
        ))  # fmt: skip
    return table(columns, lines)


def _codes_text(tallies: Sequence[RolloutTally]) -> str:
    rows = [(state, code, n) for (state, code), n in _codes(tallies)]
    return table((Column("state"), Column("error"), Column("devices")), rows) if rows else "no device is in it yet"


def _judged(tallies: Sequence[RolloutTally], plan: SealedPlan | None) -> str:
    """Return the gates in words: what they ask for, and what the devices have brought so far."""
    lines = []
    if plan is not None:
        g = plan.plan.gates
        lines.append(f"Next phase: when {percent(g.success)} of a phase serve it and have soaked."
                     f" Halt: when more than {percent(g.error)} of those that tried it fail, {g.error_least} at least.")  # fmt: skip
        allowed = "not judged" if g.margin >= WHOLE else f"it may lose {percent(g.margin)} of accuracy"
        lines.append(f"Quality: {allowed}, paired on each device's own held-out samples.")
    for n, of in _by_phase(tallies, plan):
        one = _phase(n, of, plan)
        if one["rows"]:
            lines.append(f"Phase {n + 1}: of {one['rows']} samples {one['better']} are right now that were wrong, {one['worse']} the"
                         f" other way round: {100 * one['change']:+.1f} points.")  # fmt: skip
    return sentences(lines)


def _troubled_text(rows: Sequence[AssignmentRow], limit: int | None) -> str:
    if not rows:
        return ""
    columns = (
        Column("device"), Column("state", 2), Column("error"), Column("phase", 3), Column("reason", words=True, wrapped=True),
    )
    return table(columns, [(o.device, o.state, o.code, o.phase + 1, o.reason) for o in rows], title="failed, refused or late:", limit=limit)


def _decisions_text(decisions: Sequence[SealedDecision], unproven: Sequence[int]) -> str:
    columns = (Column("decided"), Column("by", 1), Column("what"), Column("reason", words=True, wrapped=True))
    rows = [(when(o.decision.at), o.decision.by, o.decision.verb.value, o.decision.reason) for o in decisions]
    odd = f"{len(unproven)} more stand there that no command key of the fleet sealed about it: they count for nothing. edgecloud audit"
    return "\n".join(filter(None, (table(columns, rows) if rows else "", sentences([odd]) if unproven else "")))
