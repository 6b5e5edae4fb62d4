"""Which versions stay recoverable: what a policy says, and what is never let go, whatever it says. Rows in, plan out; touches no store."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgecloud.registry import SquashRow, Status, VersionRow
from modelwire.errors import BadArgument

ALL = "all"
TAG = "tag:"  # how an annotation of a version begins that marks it: edgecloud annotate pi-7@12 "tag: released"
DAY = 24 * 3600
LAST_MAX = 1_000_000
_LAST = re.compile(r"last ([0-9]{1,7})\Z")
FORMS = 'write "all", or one or more of "daily", "last 50" and "tagged", joined by +: "daily + last 50 + tagged"'


@dataclass(frozen=True, slots=True)
class Keep:
    """What a policy keeps: a version that any of these names stays."""

    everything: bool = False
    daily: bool = False  # the last version of each day, in UTC
    last: int = 0  # the newest so many of each epoch
    tagged: bool = False  # versions with an annotation that begins with TAG

    def __str__(self) -> str:
        words = [("daily", self.daily), (f"last {self.last}", self.last), ("tagged", self.tagged)]
        return ALL if self.everything else " + ".join(word for word, said in words if said)


def parse_keep(text: str) -> Keep:
    """Return what a person, or a sealed policy, says is kept. Raises BadArgument."""
    words = [" ".join(word.split()) for word in text.strip().split("+")]
    if words == [ALL]:
        return Keep(everything=True)
    last = [int(found[1]) for word in words if (found := _LAST.match(word)) is not None]
    known = {word for word in words if word in ("daily", "tagged")}
    if len(known) + len(last) != len(words) or len(last) > 1 or not all(1 <= n <= LAST_MAX for n in last):
        raise BadArgument(reason=f"{text[:80]!r} does not say what is kept", fix=f"{FORMS}; at most last {LAST_MAX}")
    return Keep(daily="daily" in known, last=last[0] if last else 0, tagged="tagged" in known)


@dataclass(frozen=True, slots=True)
class Needed:
    """What must stay, whatever the policy says."""

    heads: Collection[int] = ()  # ids of the versions that epochs end with
    tagged: Collection[int] = ()  # ids
    commits: Collection[bytes] = ()  # that open commands and parked orphans name


def kept(versions: Sequence[VersionRow], keep: Keep, needed: Needed) -> set[int]:
    """Return the ids of the versions of one lineage that stay recoverable. versions: all of it, in the order of linking.

    Beside what the policy names: every epoch's head and last verified version, what an open command or an orphan rests on, and the
    parent of what is not judged yet. Versions that are not verified are never thinned.
    """
    out = {v.id for v in versions if v.status is not Status.VERIFIED}
    out |= {v.parent_id for v in versions if v.status is Status.STORED and v.parent_id is not None}
    out |= {*needed.heads} | {v.id for v in versions if v.commit in needed.commits}
    if keep.everything:
        return {v.id for v in versions}
    if keep.tagged:
        out |= {*needed.tagged}
    days: dict[tuple[int, int], int] = {}
    epochs: dict[int, list[int]] = {}
    for v in versions:
        if v.status is Status.VERIFIED:
            days[v.epoch, v.received_at // DAY] = v.id
            epochs.setdefault(v.epoch, []).append(v.id)
    if keep.daily:
        out |= {*days.values()}
    for ids in epochs.values():
        out |= {*ids[-max(keep.last, 1) :]}
    return out


@dataclass(frozen=True, slots=True)
class Job:
    """One step of thinning: some versions go, and where others rest on them, one update takes their place."""

    gone: tuple[VersionRow, ...]  # oldest first
    start: VersionRow | None = None  # recoverable, before them; None: the base
    end: VersionRow | None = None  # recoverable, behind them; None: nothing rests on them


@dataclass
class _Way:
    """How a version is come to today, from a kept one."""

    start: VersionRow | None = None
    between: list[VersionRow] = field(default_factory=list)  # newest first


def jobs(
    versions: Sequence[VersionRow], stay: Collection[int], gone: Collection[int], squashes: Mapping[int, SquashRow], most: int
) -> Iterator[Job]:
    """Yield the steps towards a policy, in the order in which they are to be done; after each, all that is not gone is recoverable.

    versions: of one lineage, in the order of linking. stay: ids of those that stay recoverable; gone: of those that are not any more.
    most: versions that go in one step, 2 or more; a longer run goes in several, each but the last up to a version that goes in the next.
    """
    rest = {v.id for v in versions if v.id not in stay and v.id not in gone}
    if not rest:
        return
    by_id = {v.id: v for v in versions}
    ways = []
    for v in versions:
        # What was refused leads nowhere, and what is not judged is made on its parent, which stays.
        if v.id in stay and v.status is Status.VERIFIED:
            way = _way_to(v, by_id, stay, squashes)
            if way.between:
                ways.append((v, way))
    used = {one.id for _, way in ways for one in way.between}
    loose = [v for v in versions if v.id in rest and v.id not in used]
    while loose:  # the newest first: none is left without what it is made on
        yield Job(tuple(loose[-most:]))
        del loose[-most:]
    for end, way in ways:
        run = way.between[::-1]
        while len(run) > most:
            yield Job(tuple(run[: most - 1]), way.start, run[most - 1])
            run = run[most - 1 :]
        yield Job(tuple(run), way.start, end)


def _way_to(version: VersionRow, by_id: Mapping[int, VersionRow], stay: Collection[int], squashes: Mapping[int, SquashRow]) -> _Way:
    way, at = _Way(), version
    while True:
        squash, own = squashes.get(at.id), None if at.kind == "snapshot" else at.parent_id
        before = squash.from_id if squash is not None else own
        if before is None:
            return way
        at = by_id[before]
        if at.id in stay:
            way.start = at
            return way
        way.between.append(at)
