"""Ends a piece of the centre's work at every one of its writes, and looks each time at what is left of everything.

The steps are counted in a run that is let through. Then the work is begun on a fresh copy once for each of them, killed there, and what was
on the disk at that moment is opened as the next start does: the file is whole, its log is signed to its end, every version that was exact
is exact still, and the work done again comes to what it comes to undisturbed.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from edgecloud.registry import SqliteStore, open_registry
from modelwire.errors import ModelWireError
from tests.simulator.audit import Remembered, Verdict, audit, wrong_in_log
from tests.simulator.crashes import Crash, Steps, copy_registry
from tests.simulator.timeline import quiet


class Fleet(Protocol):
    """Whose versions these are."""

    def remembered(self) -> Remembered: ...

    def keys(self) -> Mapping[str, bytes]: ...


Piece = Callable[[SqliteStore], object]  # of work; done again it does what is left


@dataclass
class Survived:
    """What came of ending one piece of work everywhere."""

    steps: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    cuts: int = 0  # of SQLite's log, at any byte
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a finished piece of work leaves."""

    exact: int
    named: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, verdict: Verdict) -> Outcome:
        return cls(verdict.exact, tuple(sorted(verdict.named.items())))


def end_everywhere(
    start: Path, folder: Path, piece: Piece, fleet: Fleet, *, only: Iterable[int] | None = None, cuts: int = 20, again: int = 0,
    seed: int = 0,
) -> Survived:  # fmt: skip
    """Return what came of a piece of work that was killed before each of its writes, and in the middle of those to files.

    start: a registry that nobody has open; it stays as it is. folder: an empty one, for the copies. only: these steps alone, from 1.
    cuts: so many times SQLite's log is cut at any byte, as a power cut leaves it. again: versions recovered by themselves in each look.
    """
    out, steps = Survived(), Steps()
    with steps.installed(), quiet():
        before = _look(start, folder / "before", fleet, out, "before", again)
        whole = _copied(start, folder / "whole")
        store = open_registry(whole, synchronous="OFF")
        with steps.counted():
            piece(store)
        names = list(steps.names)
        out.steps, out.kinds = len(names), Counter(" ".join(name.split()[:3]) for name in names)
        _cut_log(whole, folder, fleet, out, Random(seed), cuts, before, piece)
        store.close()
        after = _look(whole, folder / "after", fleet, out, "undisturbed", again)
        for step in only if only is not None else range(1, len(names) + 1):
            for torn in (False, True) if names[step - 1] == "os.write" else (False,):
                out.crashes += 1
                which = f"killed {'in' if torn else 'before'} step {step} of {len(names)}, {names[step - 1]}"
                _one(start, folder, piece, fleet, out, steps, step, torn, which, before, after, again)
    return out


def _one(
    start: Path, folder: Path, piece: Piece, fleet: Fleet, out: Survived, steps: Steps, step: int, torn: bool, which: str,
    before: Outcome, after: Outcome, again: int,
) -> None:  # fmt: skip
    place, left = _copied(start, folder / "living"), folder / "left" / "fleet.db"
    store = open_registry(place, synchronous="OFF")
    try:
        with steps.crash_at(step, lambda: copy_registry(place, left), torn=torn):
            piece(store)
    except Crash:
        pass
    else:
        out.failures.append(f"{which}: never came to it")
        return
    finally:
        store.close()
        shutil.rmtree(place.parent)
    found = _look(left, folder / "looked", fleet, out, which, again)
    if found.exact < min(before.exact, after.exact):
        out.failures.append(f"{which}: {found.exact} versions are exact, {before.exact} were before and {after.exact} are to be after")
    done = open_registry(left, synchronous="OFF")
    try:
        done.files.sweep(before=float("inf"))
        piece(done)
    finally:
        done.close()
    again_done = _look(left, folder / "looked", fleet, out, f"{which}, then done", again)
    if again_done != after:
        out.failures.append(f"{which}, then done: {again_done}, undisturbed {after}")
    shutil.rmtree(left.parent)


def _cut_log(
    path: Path, folder: Path, fleet: Fleet, out: Survived, rng: Random, cuts: int, before: Outcome, piece: Piece
) -> None:
    """Cut SQLite's log anywhere, as a power cut leaves it: whole commits of it count, in their order, and nothing else."""
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size if log.exists() else 0
    for _ in range(cuts if size else 0):
        out.cuts += 1
        left = folder / "cut" / "fleet.db"
        copy_registry(path, left)
        at = rng.randrange(size)
        with left.with_name("fleet.db-wal").open("r+b") as file:
            file.truncate(at)
        found = _look(left, folder / "looked", fleet, out, f"its log cut at byte {at} of {size}", 0)
        if found.exact < before.exact and not found.named:
            out.failures.append(f"its log cut at byte {at} of {size}: {found.exact} versions are exact, {before.exact} were before")
        shutil.rmtree(left.parent)


def _look(path: Path, place: Path, fleet: Fleet, out: Survived, which: str, again: int) -> Outcome:
    """Audit a copy of a registry: the look itself must not mend anything."""
    copy = _copied(path, place)
    try:
        store = open_registry(copy, synchronous="OFF")
    except ModelWireError as error:
        shutil.rmtree(copy.parent)
        out.failures.append(f"{which}: it can't be opened any more: {error}")
        return Outcome(0, ())
    try:
        verdict = audit(store, fleet.remembered(), fleet.keys(), again=again)
        going = store.erasures.under_way()  # of what is left of these, pieces lack others until the erasure is done
        problems = [what for what in store.problems() + wrong_in_log(store) if not any(name and name in what for name in going)]
    finally:
        store.close()
        shutil.rmtree(copy.parent)
    out.failures += [f"{which}: {what}" for what in verdict.diverged + problems]
    return Outcome.of(verdict)


def _copied(path: Path, place: Path) -> Path:
    target = place / "fleet.db"
    copy_registry(path, target)
    return target
