"""Cohorts: which devices' models went the same way from their base, and what of their data tells each cohort from the rest.

Two models are as alike as the directions in which they left the base: the cosine of their lattice coordinates, in the base's units. Where
all newest versions together are few enough they are recovered and compared whole; else sketches are compared, and the devices that stand
between two cohorts are decided by whole models. docs/comparing.md says how sure that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.sketches import counting
from edgecloud.versions import several
from edgecloud.versions.materialise import LoadedBases, rebuild
from modelwire.cards.card import Card
from modelwire.errors import AmbiguousName, BadArgument, ModelWireError, UnknownVersion
from modelwire.lattice.state import ModelState

from . import grouping
from .gathering import SketchedVersions, gather
from .reasons import FieldTable, Reason, reasons, shifted, tables
from .told import newest_cards

WHOLE = 1 << 25  # weights of all newest versions together, up to which they are compared whole: 128 MiB
TREE = 3000  # devices of one tree; of more, so many are drawn and the others join the nearest cohort
DOUBTFUL, ASKED, MIDDLE = 0.15, 60, 6  # relative margin of a device in doubt, how many of them are decided, against how many of a cohort
SPOKEN, OF_EACH = 400, 12  # devices whose cards are read: of more, a share of each cohort, and so many of it at least
Rows = NDArray[np.float32]
Progress = Callable[[int, int], None]
_Placed: TypeAlias = tuple[VersionRow, NDArray[np.float64] | None]  # None: it can't be rebuilt


@dataclass(frozen=True, slots=True)
class Cohort:
    """Devices whose models are alike. Cosines: 1 the same direction from the base, 0 none in common."""

    number: int  # from 1 on; the largest first
    base: bytes  # commit
    members: tuple[tuple[LineageRow, VersionRow], ...]  # the one in the middle first
    alike: float  # mean cosine of two of its models; NaN of one alone
    nearest: int | None  # the cohort of the same base that is most alike
    apart: float  # mean cosine with that one's models; NaN where there is none
    reasons: tuple[Reason, ...]
    carded: int  # devices of it that told cards

    @property
    def why(self) -> str:
        """What tells it from the rest, in words."""
        if self.reasons:
            return "; ".join(reason.words for reason in self.reasons[:3])
        if self.nearest is None:
            return "the only cohort of its base: nothing to tell it from"
        return "no field of the cards tells it from the rest" if self.carded else "its devices sent no cards"


@dataclass(frozen=True, slots=True)
class Clustered:
    """The cohorts of one model's newest versions."""

    model: str
    cohorts: tuple[Cohort, ...]
    whole: bool  # compared by all weights; False: by sketches
    decided: int  # devices in doubt that whole models decided
    moved: int  # of those, how many went to another cohort
    at_base: tuple[str, ...]  # devices whose newest version is their base's bits
    left_out: tuple[str, ...]  # devices whose newest version can't be recovered
    silent: tuple[str, ...]  # devices without a verified version


def cluster(store: Store, *, model: str | None = None, count: int | None = None, progress: Progress | None = None) -> Clustered:
    """Return the cohorts of a model's devices, of each base apart. count: how many on a base; None finds it.

    A base with fewer devices than `count` gets a cohort a device.

    Raises AmbiguousName, UnknownVersion, and BadArgument for more cohorts than devices or where nothing can be compared.
    """
    lineages = {one.id: one for one in _of_model(store, model)}
    bases = LoadedBases(store)
    every = [_find(store, base.commit, lineages, bases, progress or (lambda done, total: None)) for base in store.bases.all()]
    most = max((len(found.members) for found in every), default=0)
    if count is not None and most and count > most:
        reason = f"{most} devices, the most on one base, can't be parted into {count} cohorts"
        raise BadArgument(reason=reason, fix="edgecloud cluster --cohorts auto")
    out = [_grouped(store, found, count, bases) for found in every if found.members]
    seen = {id for found in every for id in found.ids}
    silent = tuple(sorted(one.device for one in lineages.values() if one.id not in seen))
    if not out:
        raise BadArgument(reason="no device of the model has a verified version away from its base", fix="edgecloud devices")
    cohorts = _numbered([cohort for of in out for cohort in of.cohorts])
    return Clustered(
        next(iter(lineages.values())).model, cohorts, all(of.found.whole for of in out), sum(of.decided for of in out),
        sum(of.moved for of in out), tuple(sorted(d for of in out for d in of.found.at_base)),
        tuple(sorted(d for of in out for d in of.found.left_out)), silent,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """The newest versions on one base, as rows of length 1."""

    base: bytes
    members: list[tuple[LineageRow, VersionRow]]
    rows: Rows
    whole: bool
    at_base: list[str]
    left_out: list[str]
    ids: set[int]  # of lineages that have a version here


@dataclass(frozen=True, slots=True)
class _OnBase:
    found: _Found
    cohorts: list[Cohort]
    decided: int
    moved: int


def _of_model(store: Store, model: str | None) -> list[LineageRow]:
    every = store.lineages.all()
    models = sorted({one.model for one in every})
    if not every:
        raise BadArgument(reason="no device has a model yet", fix="edgecloud devices lists what devices have")
    if model is not None and model not in models:
        raise UnknownVersion(name=f"a model {model!r} of the fleet")
    if model is None and len(models) > 1:
        raise AmbiguousName(device="the fleet", models=", ".join(models), example=f"--model {models[0]}")
    return [one for one in every if model in (None, one.model)]


def _find(store: Store, base: bytes, lineages: dict[int, LineageRow], bases: LoadedBases, progress: Progress) -> _Found:
    """Return the newest versions on a base as vectors: all their coordinates where they are few, else their sketches."""
    gathered = gather(store, base, progress=progress)
    versions = [store.versions.by_id(id) for id in gathered.ids]
    newest = [(version, row) for row, version in enumerate(versions) if version is not None and version.lineage in lineages]
    lost = [v for id in gathered.left_out if (v := store.versions.by_id(id)) is not None and v.lineage in lineages]
    left_out = [lineages[v.lineage].device for v in lost]
    whole = bool(newest) and len(newest) * counting.on_lattice(bases[base].manifest) <= WHOLE
    held, at_base, rows = [], [], []
    for done, (version, vector) in enumerate(_whole(store, newest, bases) if whole else _sketched(newest, gathered)):
        lineage = lineages[version.lineage]
        if vector is None:
            left_out.append(lineage.device)
            continue
        if vector.any():
            held.append((lineage, version))
            rows.append(_unit(vector))
        else:
            at_base.append(lineage.device)
        progress(done + 1, len(newest))
    array = np.array(rows, np.float32) if rows else np.zeros((0, counting.BUCKETS), np.float32)
    return _Found(base, held, array, whole, at_base, left_out, {v.lineage for v, _ in newest} | {v.lineage for v in lost})


def _whole(store: Store, newest: Sequence[tuple[VersionRow, int]], bases: LoadedBases) -> Iterator[_Placed]:
    for version, state in several.each(store, [version for version, _ in newest], bases):
        yield version, coordinates(state) if isinstance(state, ModelState) else None


def _sketched(newest: Sequence[tuple[VersionRow, int]], gathered: SketchedVersions) -> Iterator[_Placed]:
    for version, row in newest:
        yield version, gathered.sketches[row].astype(np.float64)


def coordinates(state: ModelState) -> NDArray[np.float64]:
    """Return all lattice coordinates of a state, away from its base, in the base's units as sketches count them."""
    parts = [np.zeros(0)]
    for t, (q, e) in enumerate(zip(state.integers, state.exponents, strict=True)):
        shift = counting.shift_of(state.manifest, t, e) if state.manifest.lattice(t) else None
        if shift is not None:
            parts.append(np.ldexp(q.astype(np.float64), shift))  # float32 would overflow in the units of a hostile snapshot
    return np.concatenate(parts)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a vector that is not 0 at length 1; scaled first, so that no square overflows."""
    vector = vector / np.abs(vector).max()
    return np.asarray(vector / np.sqrt(np.einsum("i,i->", vector, vector)), np.float32)


def _grouped(store: Store, found: _Found, count: int | None, bases: LoadedBases) -> _OnBase:
    n = len(found.members)
    count = None if count is None else min(count, n)
    if n <= TREE:
        labels = grouping.groups(_squares(found.rows), count)
    else:
        drawn = np.sort(np.random.default_rng(n).choice(n, TREE, replace=False))
        some = grouping.groups(_squares(found.rows[drawn]), count)
        middles = np.array([found.rows[drawn[some == k]].mean(0) for k in range(some.max() + 1)])
        half = np.einsum("ij,ij->i", middles, middles) / 2
        labels = (found.rows @ middles.T - half).argmax(1)
        labels[drawn] = some
    decided, moved = (0, 0) if found.whole else _decide(store, found, labels, bases)
    return _OnBase(found, list(_cohorts(store, found, labels)), decided, moved)


def _squares(rows: Rows) -> grouping.Squares:
    """Return the squared distances of unit rows."""
    n = len(rows)
    products = np.zeros((n, n))
    for start in range(0, rows.shape[1], 1 << 13):
        part = rows[:, start : start + (1 << 13)].astype(np.float64)
        products += part @ part.T
    out = np.clip(2 - 2 * products, 0, 4)
    np.fill_diagonal(out, 0)
    return (out + out.T) / 2


def _decide(store: Store, found: _Found, labels: NDArray[np.int64], bases: LoadedBases) -> tuple[int, int]:
    """Let whole models decide where a device in doubt belongs. Returns how many were decided, and how many moved; labels are changed."""
    rows, sizes = found.rows.astype(np.float64), np.bincount(labels)
    if len(sizes) < 2:
        return 0, 0
    sums = np.array([rows[labels == k].sum(0) for k in range(len(sizes))])
    alike = rows @ (sums / sizes[:, None]).T
    own = np.arange(len(rows)), labels
    alike[own] = np.where(sizes[labels] > 1, (alike[own] * sizes[labels] - 1) / np.maximum(sizes[labels] - 1, 1), np.inf)
    other = alike.copy()
    other[own] = -np.inf
    second = other.argmax(1)
    margin = (alike[own] - other.max(1)) / np.maximum(1 - other.max(1), 1e-9)
    doubtful = [int(i) for i in np.argsort(margin, kind="stable") if margin[i] < DOUBTFUL][:ASKED]
    nearness = [np.where(labels == k, alike[:, k], -np.inf) for k in range(len(sizes))]
    middle = [np.argsort(-near, kind="stable")[: min(MIDDLE + 1, sizes[k])] for k, near in enumerate(nearness)]
    kept: dict[int, NDArray[np.float32]] = {}
    moved = decided = 0
    for i in doubtful:
        here, there = int(labels[i]), int(second[i])
        try:
            mean = [_mean_cosine(store, found, i, [int(j) for j in middle[k] if j != i][:MIDDLE], bases, kept) for k in (here, there)]
        except ModelWireError:
            continue
        decided += 1
        if mean[1] > mean[0]:
            labels[i], moved = there, moved + 1
    return decided, moved


def _mean_cosine(
    store: Store, found: _Found, one: int, others: Sequence[int], bases: LoadedBases, kept: dict[int, NDArray[np.float32]]
) -> float:  # fmt: skip
    """Return the mean cosine of a device's whole model with those of others; the vectors in `kept` stay below the bound of memory."""
    most = max(1, WHOLE // max(1, counting.on_lattice(bases[found.base].manifest)))

    def unit(i: int) -> NDArray[np.float32]:
        if i not in kept:
            vector = _unit(coordinates(rebuild(store, found.members[i][1], bases)))
            if len(kept) >= most:
                kept.pop(next(iter(kept)))
            kept[i] = vector
        return kept[i]

    mine = unit(one)
    return float(np.mean([np.einsum("i,i->", mine, unit(j), dtype=np.float64) for j in others])) if others else -1.0


def _cohorts(store: Store, found: _Found, labels: NDArray[np.int64]) -> Iterator[Cohort]:
    """Yield the cohorts with how alike they are, and why they are cohorts; `nearest` counts from 0 among these."""
    rows, kinds = found.rows, np.unique(labels)
    sums = np.array([rows[labels == k].sum(0, dtype=np.float64) for k in kinds])
    sizes = np.array([int((labels == k).sum()) for k in kinds])
    between = (sums @ sums.T) / np.outer(sizes, sizes)
    np.fill_diagonal(between, -np.inf)
    heard = _heard(labels)
    told = [newest_cards(store, found.members[i][0]) for i in heard]
    of = tables([one.card if one.updates else Card() for one in told])
    with_cards = np.array([one.updates > 0 for one in told])
    for k, kind in enumerate(kinds):
        here = np.flatnonzero(labels == kind)
        order = here[np.argsort(-(rows[here] @ sums[k].astype(rows.dtype)), kind="stable")]
        size = int(sizes[k])
        alike = (float(sums[k] @ sums[k]) - size) / (size * (size - 1)) if size > 1 else math.nan
        nearest = int(between[k].argmax()) if len(kinds) > 1 else None
        yield Cohort(
            k, found.base, tuple(found.members[i] for i in order), alike, nearest, between[k][nearest] if nearest is not None else math.nan,
            _reasons(of, labels[heard], kind, None if nearest is None else kinds[nearest]), int(with_cards[labels[heard] == kind].sum()),
        )  # fmt: skip


def _heard(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the devices whose cards are read."""
    n, rng = len(labels), np.random.default_rng(len(labels))
    if n <= SPOKEN:
        return np.arange(n)
    some = []
    for kind in np.unique(labels):
        here = np.flatnonzero(labels == kind)
        some.append(rng.choice(here, min(len(here), max(OF_EACH, SPOKEN * len(here) // n)), replace=False))
    return np.sort(np.concatenate(some))


def _reasons(of: Sequence[FieldTable], labels: NDArray[np.int64], kind: int, nearest: int | None) -> tuple[Reason, ...]:
    """Return what tells a cohort from all others, and from the one that is most like it, too: else that would say what others are."""
    found = reasons(of, labels == kind, kind)
    if nearest is None or not found:
        return found
    two = (labels == kind) | (labels == nearest)
    apart = shifted([table.of(two) for table in of], (labels == kind)[two])
    return tuple(reason for reason in found if reason.field in apart)


def _numbered(cohorts: list[Cohort]) -> tuple[Cohort, ...]:
    """Return them with their numbers, the largest first."""
    order = sorted(cohorts, key=lambda c: (-len(c.members), str(c.members[0][0])))
    number = {(c.base, c.number): n for n, c in enumerate(order, 1)}
    return tuple(
        replace(c, number=n, nearest=None if c.nearest is None else number[c.base, c.nearest]) for n, c in enumerate(order, 1)
    )  # fmt: skip
