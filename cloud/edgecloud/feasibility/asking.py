"""Finds what is to be scored beside an ingester, asks a process of its own, within a share of the time, and keeps what that says."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from edgecloud.probes import sets
from edgecloud.registry import EvaluationRow, ProbeRow, SqliteStore
from edgecloud.versions.materialise import LoadedBases
from modelwire.errors import DiskUnwritable, LineageError, ModelWireError, StateBusy, WireError
from modelwire.wire import cbor

from . import child, evaluating, fitness

log = logging.getLogger("edgecloud.scoring")
AT_ONCE = 8  # versions that are asked for together
TRIES, LONGEST = 3, 600.0  # in which the process can do nothing, before others are asked for; and seconds of rest at most
PATIENCE = 600.0  # seconds for one answer
CHILD = "edgecloud.feasibility.child"
MEMORY = 2 << 30  # bytes of data
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be scored next: versions on one base."""

    probe: ProbeRow
    base: bytes
    ids: tuple[int, ...]


@dataclass
class DueVersions:
    """Finds what is to be scored: first each model's newest version, then what came since the probe set was added, the newest first."""

    store: SqliteStore
    suspects: set[int] = field(default_factory=set)  # in hand when a process ended: asked for singly
    given_up: set[tuple[int, int]] = field(default_factory=set)  # id of a probe set, and version
    _bases: dict[tuple[bytes, bytes], bool] = field(default_factory=dict)  # probe set and base: whether its models take such rows
    # By id of a probe set: of one that was removed and added anew, and of one of other models with the same rows, nothing is done yet.
    _newest: dict[int, list[int]] = field(default_factory=dict)  # each model's newest version when it was first looked at
    _above: dict[int, int] = field(default_factory=dict)  # up to this id all is done

    def next(self) -> Due | None:
        """Return what is next; None where all is scored."""
        for probe in self.store.probes.all():
            bases = self._fitting(probe)
            if bases and (found := self._of(probe, bases)) is not None:
                return found
        return None

    def _of(self, probe: ProbeRow, bases: list[bytes]) -> Due | None:
        if probe.id not in self._newest:
            models = [probe.model] if probe.model else sorted({lineage.model for lineage in self.store.lineages.all()})
            rows = [row for model in models for _, row in evaluating.heads(self.store, model) if row.base in bases]
            self._newest[probe.id] = sorted((row.id for row in rows), reverse=True)
        if newest := self._newest[probe.id]:
            missing = self.store.evaluations.missing(probe.digest, [id for id in newest if (probe.id, id) not in self.given_up])
            newest[:] = [id for id in missing if isinstance(id, int)]
            if (found := self._due(probe, newest)) is not None:
                return found
            newest.clear()  # they are gone
        first = next(iter(self.store.versions.unverified(1)), None)
        last = self.store.database.number("SELECT coalesce(max(id), 0) FROM version")
        above = self._above.get(probe.id, 0)
        given_up = sum(of == probe.id for of, _ in self.given_up)
        ids = self.store.evaluations.due(probe.digest, probe.model, bases, probe.added_at, above, AT_ONCE + given_up)
        left = [id for id in ids if (probe.id, id) not in self.given_up]
        if left:
            return self._due(probe, left)
        self._above[probe.id] = last if first is None else min(last, first.id - 1)
        return None

    def _due(self, probe: ProbeRow, ids: list[int]) -> Due | None:
        some = list[int]()
        base: bytes | None = None
        for id in ids[:AT_ONCE]:
            row = self.store.versions.by_id(id)
            if row is None or (base is not None and row.base != base):
                continue
            if id in self.suspects and some:
                break
            base, some = row.base, [*some, id]
            if id in self.suspects:
                break
        return None if base is None else Due(probe, base, tuple(some))

    def _fitting(self, probe: ProbeRow) -> list[bytes]:
        """Return the bases whose models take the rows of a set, and none for a set without labels."""
        held = [base for base in self.store.bases.all() if (probe.digest, base.commit) not in self._bases]
        if held:
            loaded = LoadedBases(self.store)
            try:
                rows = sets.load(self.store, probe)
            except ModelWireError:
                rows = None
            for base in held:
                self._bases[probe.digest, base.commit] = rows is not None and rows.y is not None and _fits(rows, loaded, base.commit)
        return [commit for (digest, commit), fits in self._bases.items() if digest == probe.digest and fits]


def _fits(rows: sets.ProbeSet, bases: LoadedBases, commit: bytes) -> bool:
    try:
        sets.check_fits(rows, [sets.input_of(bases[commit].file, "")], "")
    except ModelWireError:
        return False
    return True


class Asking:
    """Asks the process. stopping: asked often. share: of one processor's time, above 0 and up to 1. rest: seconds between two looks."""

    def __init__(self, path: Path, stopping: Callable[[], bool], share: float, clock: Callable[[], float], rest: float) -> None:
        self._path, self._stopping, self._share, self._clock, self._rest = path, stopping, share, clock, rest
        self._process: subprocess.Popen[bytes] | None = None
        self._said: Connection | None = None
        self._heard: Connection | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None else self._process.pid

    def work(self, store: SqliteStore) -> None:
        """Score what is due until asked to stop."""
        try:
            self._work(store)
        finally:
            self._end()

    def _work(self, store: SqliteStore) -> None:
        due, failures = DueVersions(store), 0
        while not self._stopping():
            try:
                found = due.next()
            except StateBusy:
                found = None
            if found is None:
                self._end()  # it holds memory that others may want
                self._wait(self._rest)
                continue
            began = time.monotonic()
            rows, why = self._ask(found)
            if why and not self._stopping():
                self._blame(store, due, found, why)
            elif rows is not None:
                failures = 0
                self._keep(store, due, found, rows)
            else:
                failures += 1
                if failures % TRIES == 0:
                    due.given_up |= {(found.probe.id, id) for id in found.ids}
                self._wait(min(LONGEST, self._rest * 2**failures))
            self._wait((time.monotonic() - began) * (1 / self._share - 1))

    def _ask(self, due: Due) -> tuple[list[EvaluationRow] | None, str]:
        """Return what the process says of versions, or why it ended. None and no reason: it could not do it just now."""
        if self._process is None and not self._start():
            return None, ""
        assert self._said is not None and self._heard is not None
        end = time.monotonic() + PATIENCE
        try:
            self._said.send_bytes(cbor.encode([due.probe.digest, due.base, list(due.ids)]))
            while not self._heard.poll(0.1):
                if self._stopping():
                    return None, ""
                if time.monotonic() > end:
                    self._end()
                    return None, f"it took longer than {PATIENCE:g} s"
            rows = child.unpacked(cbor.decode(self._heard.recv_bytes(child.FRAME_MAX)), int(self._clock()))
        except (EOFError, OSError, WireError):
            self._end()
            return None, "its process ended"
        wanted = {due.base, *due.ids}
        if rows is None or any(row.subject not in wanted or row.probes != due.probe.digest for row in rows):
            return None, ""
        return rows, ""

    def _keep(self, store: SqliteStore, due: DueVersions, found: Due, rows: list[EvaluationRow]) -> None:
        told = {row.subject for row in rows}
        due.given_up |= {(found.probe.id, id) for id in found.ids if id not in told}  # gone, or no longer of that base
        due.suspects -= told
        try:
            store.evaluations.put(rows)
        except (StateBusy, DiskUnwritable):
            return  # asked for again
        except LineageError:  # a version was erased meanwhile, or a row is none: the others are asked for by themselves
            due.suspects |= set(found.ids)
            if len(found.ids) == 1:
                due.given_up.add((found.probe.id, found.ids[0]))

    def _blame(self, store: SqliteStore, due: DueVersions, found: Due, why: str) -> None:
        """Ask for what was in hand singly; one that ends the process alone is kept with that fault."""
        if len(found.ids) > 1:
            due.suspects |= set(found.ids)
            return
        id = found.ids[0]
        due.given_up.add((found.probe.id, id))
        log.warning("version %d could not be scored on %s: %s", id, found.probe.name, why)
        row = EvaluationRow(id, found.probe.digest, fitness.ALL, found.probe.rows, None, None, None, 0, 0.0, int(self._clock()), why)
        with contextlib.suppress(StateBusy, DiskUnwritable, LineageError):
            store.evaluations.put([row])

    def _start(self) -> bool:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(self._path), str(MEMORY)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, **_ONE_THREAD},
            )  # fmt: skip
        except OSError as error:
            log.error("the process that scores versions can't be started: %s", error)
            return False
        assert self._process.stdin is not None and self._process.stdout is not None
        self._said = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._heard = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            end = time.monotonic() + PATIENCE
            while not self._heard.poll(0.1):
                if self._stopping() or time.monotonic() > end:
                    self._end()
                    return False
            self._heard.recv_bytes(child.FRAME_MAX)  # it has started
        except (EOFError, OSError):
            log.error("the process that scores versions did not start; trying again in %g s", self._rest)
            self._end()
            return False
        return True

    def _end(self) -> None:
        process, self._process = self._process, None
        for connection in (self._said, self._heard):
            if connection is not None:
                connection.close()
        self._said = self._heard = None
        if process is not None:
            process.kill()  # it writes nothing, so nothing is lost
            process.wait()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping() and time.monotonic() < end:
            time.sleep(0.05)
