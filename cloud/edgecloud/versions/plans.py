"""Why a version is of its kind, as its board said beside it: a note that no rebuild needs, and that is hostile until it is read."""

from __future__ import annotations

from dataclasses import dataclass

from edgecloud.registry import VersionRow
from modelwire.errors import ModelWireError
from modelwire.planning import SAID, Bar, Choice, PlanNote, decode
from modelwire.wire import cbor

KEY = "plan"  # of an update's extension
_NAMES = {Choice.SNAPSHOT: "a snapshot", Choice.DELTA: "a delta", Choice.EXACT: "an exact update", Choice.RECIPE: "a recipe"}


@dataclass(frozen=True, slots=True)
class ToldPlan:
    """What a version says of the decision about it."""

    note: PlanNote | None
    trouble: str = ""  # why the note can't be read; empty where there is none, or it is whole


def plan_of(version: VersionRow) -> ToldPlan:
    """Return the decision that stands beside a version. Never fails: whatever the bytes are, they change nothing of the version."""
    try:
        extension = cbor.decode(version.extension, "extension") if version.extension else {}
        said = extension.get(KEY) if isinstance(extension, dict) else None
        if said is None:
            return ToldPlan(None)
        if not isinstance(said, bytes):
            return ToldPlan(None, "the plan beside it is no bytes")
        return ToldPlan(decode(said))
    except ModelWireError as e:
        return ToldPlan(None, e.message)


def reason_of(note: PlanNote, kind: str) -> str:
    """Return why the board did as it did, in words. kind: of the update that came."""
    form = "nothing that fitted" if note.form is None else _NAMES[note.form]
    others = sorted((total, choice) for choice, total in note.totals.items() if choice is not note.form and choice is not Choice.WAIT)
    mine, wait = note.totals.get(note.form) if note.form is not None else None, note.totals.get(Choice.WAIT)
    if note.choice is Choice.WAIT:
        out = f"its board let it wait for others, and had {form} to send"
        if wait is not None and mine is not None:
            out += f": that was to come to {wait:.3g}, beyond what its time costs anyway, and to send it at once to {mine:.3g}"
    else:
        out = f"its board chose {form}"
        if mine is not None:
            out += f", for {mine:.3g}"
        if others:
            out += f": {_NAMES[others[0][1]]} would have come to {others[0][0]:.3g}"
        if wait is not None:
            out += f", waiting to {wait:.3g}"
        elif Choice.WAIT in note.bars:
            out += f"; {SAID[note.bars[Choice.WAIT]]}"
    if note.form is not None and note.form.name.lower() != kind:
        out += f"; as {'one update of what waited' if note.choice is Choice.WAIT or note.updates > 1 else 'it came'} it is {_article(kind)}"
    return out


def row_of(note: PlanNote, choice: Choice) -> tuple[float | None, str]:
    """Return (J, why it was no choice) of one kind; (None, empty) for one that was not there."""
    if choice in note.totals:
        return note.totals[choice], ""
    bar = note.bars.get(choice, Bar.NOTHING)
    return None, SAID[bar]


def _article(kind: str) -> str:
    return "an exact update" if kind == "exact" else f"a {kind}"
