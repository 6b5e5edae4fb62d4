"""What must hold in every schedule: nothing lost, nothing doubled, nothing diverged, and both sides say the same of every number.

While it goes on, a witness sees each word on which a board relies: what it believes the centre to hold, the centre holds. Nobody restores
a backup here, so no board may take its centre for one that went back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from edgeagent.state.lineage import Lineage
from edgeagent.state.outbox import Outbox
from edgecloud.intake.decision import Reply
from edgecloud.registry import SqliteStore, Status
from edgecloud.versions import materialise
from modelwire.errors import ModelWireError
from modelwire.wire.records import Welcome
from tests.simulator.audit import wrong_in_log
from tests.simulator.boards import MODEL, RealBoard
from tests.simulator.centre import SimulatedCentre

BELIEVED = ("stored", "verified")
IN_LINE = "in line again"  # what `rewind` says when nothing has gone back


class Witness:
    """Sees what boards come to believe, and what the centre holds on its disk at that moment."""

    def __init__(self, centre: SimulatedCentre, boards: Sequence[RealBoard], failures: list[str]) -> None:
        self._centre, self._boards, self._failures = centre, boards, failures
        self._held: set[bytes] = set()  # commits that were in the registry when it was looked at last, its last transaction ended

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on for the time of the block."""
        plain_mark, plain_rewind, plain_start, plain_say = Outbox._mark, Lineage.rewind, self._centre._start, self._centre._say

        def mark(outbox: Outbox, state: str, rows: Iterable[Any], reason: str = "") -> list[int]:
            rows = list(rows)
            if state in BELIEVED:
                for row in rows:
                    self._believed(row["version"], row["commit_id"], state)
            return plain_mark(outbox, state, rows, reason)

        def rewind(lineage: Lineage, w: Welcome, now: int, held: int | None = None) -> str:
            said = plain_rewind(lineage, w, now, held)
            if said != IN_LINE:
                self._failures.append(f"{lineage.board.device} takes its centre for one that went back, and it did not: {said}")
            return said

        def start() -> None:
            plain_start()
            self._held = self._holds()

        def say(replies: Sequence[Reply]) -> None:
            store = self._centre.store
            if replies and store is not None and not store.database.connection.in_transaction:  # what is not committed, it does not hold
                self._held |= self._holds()
            plain_say(replies)

        with (
            patch.object(Outbox, "_mark", mark), patch.object(Lineage, "rewind", rewind), patch.object(self._centre, "_start", start),
            patch.object(self._centre, "_say", say),
        ):  # fmt: skip
            yield

    def _holds(self) -> set[bytes]:
        store = self._centre.store
        assert store is not None
        return {bytes(row[0]) for row in store.database.all('SELECT "commit" FROM version')}

    def _believed(self, version: int, commit: bytes, state: str) -> None:
        if commit not in self._held:
            self._failures.append(f"a board believes that @{version} is {state}, and the centre does not hold it")


@dataclass
class Compared:
    """What came of holding both sides against each other."""

    versions: int = 0
    lost: int = 0
    diverged: int = 0
    failures: list[str] = field(default_factory=list)


def compared(centre: SimulatedCentre, boards: Sequence[RealBoard]) -> Compared:
    """Hold every version of every board against the centre's: both lists, the roots, and the bytes of the model files."""
    out = Compared()
    assert centre.store is not None
    loaded = materialise.LoadedBases(centre.store)
    for board in boards:
        _board(out, centre.store, board, loaded)
    out.failures += centre.store.problems() + wrong_in_log(centre.store)
    if centre.counts.faults or centre.counts.refused:
        out.failures.append(f"{centre.counts.faults} messages met a fault, and {centre.counts.refused} honest updates were refused")
    return out


def _board(out: Compared, store: SqliteStore, board: RealBoard, bases: materialise.LoadedBases) -> None:
    name, own = board.name, board.lineage
    lineage = store.lineages.get(name, MODEL)
    if lineage is None:
        out.lost += 1
        out.failures.append(f"the centre knows nothing of {name}")
        return
    rows = {r["version"]: r for r in own.versions() if r["version"] is not None}
    theirs = list(store.versions.of(lineage.id))
    numbers = Counter(v.version for v in theirs)
    out.versions += len(rows)
    out.failures += [f"{name}@{n} is at the centre {count} times" for n, count in numbers.items() if count > 1]
    other = {n: r for n, r in rows.items() if r["state"] not in ("verified", "skipped")}
    out.failures += [f"{name}@{n} is {r['state']} at its board: {r['reason']}" for n, r in other.items()]
    ours = {(n, r["commit_id"], r["root"]) for n, r in rows.items() if r["state"] == "verified"}
    held = {(v.version, v.commit, v.root) for v in theirs if v.status is Status.VERIFIED}
    for n, commit, _ in sorted(ours - held):
        out.lost += 1
        out.failures.append(f"{name}@{n} ({commit.hex()[:8]}) is verified at its board, and not as such at the centre")
    out.failures += [f"{name}@{n} is at the centre, and its board does not say so" for n, _, _ in sorted(held - ours)]
    out.failures += [f"{name}: {alarm.kind} was alarmed of, and nothing is wrong" for alarm in store.losses.alarms(name)]
    if head := own.head().blocked:
        out.failures.append(f"{name} is blocked: {head}")
    for version in sorted(theirs, key=lambda v: v.version):
        row = rows.get(version.version)
        if row is None or version.status is not Status.VERIFIED:
            continue
        try:
            file = materialise.file_of(materialise.rebuild(store, version, bases), bases[version.base])
        except ModelWireError as error:
            out.lost += 1
            out.failures.append(f"{name}@{version.version} can't be rebuilt: {error}")
            continue
        if hashlib.sha256(file).digest() != row["file_sha256"]:
            out.diverged += 1
            out.failures.append(f"{name}@{version.version} is another file at the centre than at its board")
    if rows and own.load().file != file_of_head(store, lineage.id, bases):
        out.diverged += 1
        out.failures.append(f"{name}: what is served there is not the centre's newest version")


def file_of_head(store: SqliteStore, lineage: int, bases: materialise.LoadedBases) -> bytes:
    """Return the model file of a lineage's newest verified version, rebuilt."""
    newest = max((v for v in store.versions.of(lineage) if v.status is Status.VERIFIED), key=lambda v: v.version)
    return materialise.file_of(materialise.rebuild(store, newest, bases), bases[newest.base])
