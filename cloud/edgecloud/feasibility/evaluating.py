"""Scores versions on probe sets and keeps what came of it: by context, by class, and on the rows by which each one is judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes import sets
from edgecloud.probes.sets import ProbeSet
from edgecloud.registry import EvaluationRow, LineageRow, ProbeRow, Status, Store, VersionRow
from edgecloud.versions.materialise import LoadedBases
from modelwire.errors import BadArgument, ModelWireError

from . import fitness, scoring

AT_ONCE = 64  # versions that are scored together: what is interrupted loses no more than these
CLASSES_MAX = 32  # of a probe set, up to which each class is a context of its own
LABEL = "label"  # the tag that such a context names, where no tag of the set has this name
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came of scoring."""

    versions: int  # that were scored
    failed: dict[int, str]  # those of them that could not be run, and why
    seconds: float


@dataclass(frozen=True, slots=True)
class PreparedProbes:
    """A probe set with what is the same for all that are scored on it."""

    row: ProbeRow
    probes: ProbeSet
    contexts: tuple[tuple[str, NDArray[np.int64]], ...]  # and their rows
    tags: dict[str, NDArray[np.str_]]
    chance: NDArray[np.float64]


def heads(store: Store, model: str) -> list[tuple[LineageRow, VersionRow]]:
    """Return the newest verified version of each device's model of this name; by device. What is no longer recoverable is left out."""
    out = []
    for standing in store.lineages.standings():
        if standing.lineage.model == model and standing.verified:
            row = store.versions.numbered(standing.lineage.id, standing.verified)
            if row is not None and _is_held(store, row):
                out.append((standing.lineage, row))
    return out


def everything(store: Store, model: str) -> list[tuple[LineageRow, VersionRow]]:
    """Return every verified version of each device's model of this name that is recoverable; by device, oldest first."""
    out = list[tuple[LineageRow, VersionRow]]()
    for lineage in store.lineages.all():
        if lineage.model == model:
            gone = {id for id, is_gone in store.thinnings.of(lineage.id).items() if is_gone}
            rows = (row for row in store.versions.of(lineage.id) if row.status is Status.VERIFIED and row.id not in gone)
            out += [(lineage, row) for row in sorted(rows, key=lambda row: (row.epoch, row.version))]
    return out


def fitting(
    store: Store, probe: ProbeRow, versions: Iterable[VersionRow], probes: ProbeSet | None = None, bases: LoadedBases | None = None
) -> list[VersionRow]:
    """Return those versions that take a probe set's rows and tell its classes. probes: the set, where it is at hand."""
    bases = LoadedBases(store) if bases is None else bases
    held, takes = sets.load(store, probe) if probes is None else probes, dict[bytes, bool]()
    out = []
    for version in versions:
        if version.base not in takes:
            try:
                sets.check_fits(held, [sets.input_of(bases[version.base].file, version.base.hex()[:16])], probe.name)
                takes[version.base] = True
            except ModelWireError:
                takes[version.base] = False
        if takes[version.base]:
            out.append(version)
    return out


def evaluate(
    store: Store,
    probe: ProbeRow,
    versions: Sequence[VersionRow],
    *,
    now: Callable[[], float] = time.time,
    bases: LoadedBases | None = None,
    probes: ProbeSet | None = None,
    progress: Progress = lambda done, total: None,
    stopping: Callable[[], bool] = lambda: False,
    at_once: int = AT_ONCE,
) -> Evaluated:
    """Score versions on a probe set, with their bases, and keep it, some at a time: what is interrupted loses the last few alone.

    Versions that can't be run are kept with their fault. stopping: asked between two pieces. Raises BadArgument for a set without labels,
    and as `scoring.score`.
    """
    bases = LoadedBases(store) if bases is None else bases
    ready = prepare(probe, sets.load(store, probe) if probes is None else probes)
    started, done, failed = time.monotonic(), 0, dict[int, str]()
    for base, part in _parts(versions, at_once):
        if stopping():
            break
        rows = score_some(store, ready, base, part, bases, int(now()))
        store.evaluations.put(rows)
        done += len(part)
        failed.update((row.subject, row.fault) for row in rows if row.fault and isinstance(row.subject, int))
        progress(done, len(versions))
    return Evaluated(done, failed, time.monotonic() - started)


def _parts(versions: Sequence[VersionRow], at_once: int) -> Iterator[tuple[bytes, list[VersionRow]]]:
    """Yield versions of one base together, some at a time, the bases in the order in which they come first."""
    groups: dict[bytes, list[VersionRow]] = {}
    for version in versions:
        groups.setdefault(version.base, []).append(version)
    for base, of in groups.items():
        for start in range(0, len(of), at_once):
            yield base, of[start : start + at_once]


def score_some(
    store: Store, ready: PreparedProbes, base: bytes, part: Sequence[VersionRow], bases: LoadedBases, now: int
) -> list[EvaluationRow]:
    """Return what versions of one base come to, and the base itself. Writes nothing. Raises as `scoring.score`."""
    probe = ready.row
    began = time.perf_counter()
    scores = scoring.score(store, [base, *part], ready.probes, bases=bases)
    took = 1000 * (time.perf_counter() - began) / (1 + len(part))
    subjects: list[int | bytes] = [base, *(version.id for version in part)]
    out = list[EvaluationRow]()
    for place, subject in enumerate(subjects):
        fault = scores.failed.get(place, "")
        if fault:
            out.append(EvaluationRow(subject, probe.digest, fitness.ALL, len(ready.probes), None, None, None, 0, took, now, fault[:300]))
            continue
        right = None if scores.right is None else scores.right[place]
        for context, rows in ready.contexts:
            out.append(_row(subject, probe.digest, context, rows, right, None, scores.loss[place], took, now))
        if place and right is not None and scores.right is not None and 0 not in scores.failed:
            own = _own(store, ready, part[place - 1], right, scores.right[0])
            if own is not None:
                n, mine, bases_right = own
                out.append(EvaluationRow(subject, probe.digest, fitness.OWN, n, mine, bases_right, None, 0, took, now))
    return out


def _own(
    store: Store, ready: PreparedProbes, version: VersionRow, right: NDArray[np.bool_], base_right: NDArray[np.bool_]
) -> tuple[int, int, int] | None:
    claimed = fitness.claim_of(version)
    if claimed is None:
        return None  # it says nothing that could be wrong
    rows = fitness.world(fitness.world_of(store, version), ready.tags, ready.probes.labels, ready.chance)
    return None if rows is None else fitness.fairest(rows, right, base_right, claimed)


def _row(
    subject: int | bytes, probes: bytes, context: str, rows: NDArray[np.int64], right: NDArray[np.bool_] | None, base_right: int | None,
    losses: NDArray[np.float32], took: float, now: int,
) -> EvaluationRow:  # fmt: skip
    of = losses[rows].astype(np.float64)
    numbers = np.isfinite(of)
    return EvaluationRow(
        subject, probes, context, len(rows), None if right is None else int(right[rows].sum()), base_right,
        float(of[numbers].sum()) if numbers.any() else None, int((~numbers).sum()), took, now,
    )  # fmt: skip


def prepare(probe: ProbeRow, probes: ProbeSet) -> PreparedProbes:
    """Return a probe set with its contexts. Raises BadArgument for one without labels."""
    require_labels(probe, probes)
    contexts = [(fitness.ALL, np.arange(len(probes))), *((context, probes.rows(context)) for context in probes.contexts())]
    classes = [] if probes.labels is None else np.unique(probes.labels).tolist()
    if LABEL not in probes.tags and 1 < len(classes) <= CLASSES_MAX and probes.labels is not None:
        contexts += [(f"{LABEL}={one}", np.flatnonzero(probes.labels == one)) for one in classes]
    tags = {name: np.array(values) for name, values in probes.tags.items()}
    return PreparedProbes(probe, probes, tuple(contexts), tags, fitness.chances(probe.digest, len(probes)))


def require_labels(probe: ProbeRow, probes: ProbeSet) -> None:
    """Raise BadArgument for a probe set without labels."""
    if probes.y is None:
        raise BadArgument(reason=f"the probe set {probe.name!r} has no labels: nothing is right or wrong on it", fix=sets.EXAMPLE)


def _is_held(store: Store, version: VersionRow) -> bool:
    left = store.thinnings.get(version.id)
    return version.status is Status.VERIFIED and (left is None or not left.gone)
