"""What boards say against this registry, for people and machines: versions that it holds no more, and a log that is another one."""

from __future__ import annotations

from edgecloud.registry import LineageRow, SqliteStore
from modelwire.errors import WrongFleet
from modelwire.wire.numbers import spans

from .answer import Document, when

HELD = "its board had sent it and this centre had confirmed it; this registry holds it no more"
GIVEN_UP = "its board gave it up before it came; a later version carries what it changed"
REFUSALS, DAY = 1000, 86_400  # of the newest that are looked at; seconds
RESTORED = "an older copy of the registry was restored"


def lost_of(store: SqliteStore, lineage: LineageRow) -> list[Document]:
    """Return the numbers of a lineage that are lost."""
    return [{"version": r.version, "epoch": r.epoch, "held": r.held, "at": r.at} for r in store.losses.of(lineage.id)]


def numbers(lost: list[Document]) -> str:
    """Return numbers as people read them: @3, @5..@7."""
    runs = spans((0, one["version"]) for one in lost)
    return ", ".join(f"@{s.first}" if s.first == s.last else f"@{s.first}..@{s.last}" for s in runs)


def line(name: str, lost: list[Document]) -> str:
    """Return a line on what a registry held once and holds no more; empty when there is nothing of the kind."""
    gone = [one for one in lost if one["held"]]
    if not gone:
        return ""
    return f"{name} lost {numbers(gone)}: its board had sent them and they were confirmed; {RESTORED}, {when(gone[-1]['at'])} at the latest"


def witnesses_of(store: SqliteStore, device: str | None = None) -> list[Document]:
    """Return the links of the log that boards have seen and that the log does not hold."""
    return [
        {"device": w.device, "number": w.number, "link": w.digest, "ours": w.ours or None, "at": w.at}
        for w in store.losses.witnesses(device)
    ]


def namesakes_of(store: SqliteStore, now: int) -> list[Document]:
    """Return who said something in the last day for another fleet of this name: boards that were given its fleet.pub."""
    newest: dict[str, int] = {}
    for one in store.refusals.last(REFUSALS):
        if one.error == WrongFleet.__name__ and one.device and now - one.at < DAY:
            newest[one.device] = max(one.at, newest.get(one.device, 0))
    return [{"device": device, "at": at} for device, at in sorted(newest.items())]


def namesake_line(said: Document) -> str:
    return f"{said['device']} speaks for another fleet of this name, {when(said['at'])}: give its board this fleet's fleet.pub"


def witness_line(seen: Document) -> str:
    """Return what one board's witness means, in a line."""
    apart = "another one in this log" if seen["ours"] else "beyond the end of this log"
    return f"{seen['device']} has seen entry {seen['number']} of the centre's log, which is {apart}; {when(seen['at'])}"
