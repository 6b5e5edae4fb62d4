"""Which versions are unfit: they say an accuracy that the centre does not find, or give no numbers. They stay their device's exact bits.

The rule, for a version that says an accuracy and was scored on a probe set: take the rows whose tags and label its cards tell of, each
value a tenth as often as the commonest or more, and as many of each value as is its share there. It is unfit when on these rows even the
upper bound of its accuracy (Clopper and Pearson, one-sided, 99.9 %) is more than MARGIN below what it says, and more than MARGIN below what
its base has right of the same rows. So a version whose true accuracy there is within MARGIN of either is called unfit at most once in a
thousand times. Of a tag that no card tells, and of labels where none tells them, any one value may be all that the device sees: where on
the rows of one its accuracy may be what it says, or on those of a tag's value beats the base's by MARGIN, nothing is said against it. A
version that gives an output which is no number, on more rows than its base does, is unfit whatever it says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes import sets
from edgecloud.registry import EvaluationRow, LineageRow, ProbeRow, Status, Store, VersionRow
from edgecloud.versions import cards
from edgecloud.versions.materialise import LoadedBases
from modelwire.cards.card import Card, merge
from modelwire.errors import ModelWireError, Unfit, WireError
from modelwire.wire import cbor

ALL, OWN = "", "own"  # contexts: all rows; the rows that a version is judged by
MARGIN = 0.1  # of accuracy, that a version may lack
ALPHA = 0.001  # how often an honest version is called unfit, at most
COVERED = 0.1  # of how often the commonest value is seen: from there on a device knows a value
ROWS_MIN = 20  # fewer rows judge nobody
CARDS = 30  # the last ones of a model that tell what it has seen
CLAIM = "accuracy_after"
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class UnfitVersion:
    """Why a version is unfit."""

    version_id: int
    probes: bytes  # digest of the probe set that says so
    n: int  # rows behind it
    right: int | None  # of them; None where its outputs are no numbers
    base_right: int | None
    claimed: float | None
    upper: float | None  # bound of its accuracy
    broken: int  # rows without numbers

    @property
    def words(self) -> str:
        """The finding in a line."""
        if self.right is None or self.claimed is None or self.base_right is None:
            return f"unfit: it gives no number on {self.broken} of {self.n} rows"
        measured, base = self.right / self.n, self.base_right / self.n
        return f"unfit: it says accuracy {self.claimed:.3f} and measures {measured:.3f} on {self.n} rows of its world; its base {base:.3f}"


@dataclass(frozen=True, slots=True)
class WorldRows:
    """Rows of a probe set by which a version may be judged."""

    mine: Mask  # what its cards tell of
    left_open: tuple[tuple[Mask, bool], ...]  # of these those of one value that its cards do not tell of; whether the value is a class


def unfit(store: Store, version_ids: Iterable[int], among: Collection[bytes] | None = None) -> dict[int, UnfitVersion]:
    """Return the versions that are unfit, each with why. Those that were not scored are not among them: `unscored` tells which.

    among: digests of the probe sets that count; None: all that there are.
    """
    ids, out = list(dict.fromkeys(version_ids)), dict[int, UnfitVersion]()
    for probes in sorted({row.digest for row in store.probes.all()} if among is None else among) if ids else ():
        whole, own = (store.evaluations.matrix(probes, ids, context) for context in (ALL, OWN))
        odd = [id for id in ids if whole[id] and whole[id][ALL].broken]
        low = [id for id in ids if own[id] and _is_below_base(own[id][OWN])]
        for id in sorted({*odd, *low} - out.keys()):
            version = store.versions.by_id(id)
            if version is None:
                continue
            base = store.evaluations.matrix(probes, [version.base], ALL)[version.base].get(ALL)
            found = judge(whole[id].get(ALL), own[id].get(OWN), base, claim_of(version))
            if found is not None:
                out[id] = found
    return out


def unscored(store: Store, version_ids: Iterable[int]) -> list[int]:
    """Return the versions that were scored on no probe set, or that could not be run on any."""
    ids, done = list(dict.fromkeys(version_ids)), set[int]()
    for probes in {row.digest for row in store.probes.all()} if ids else ():
        held = store.evaluations.matrix(probes, ids, ALL)
        done |= {id for id in ids if held[id] and not held[id][ALL].fault}
    return [id for id in ids if id not in done]


def require_fit(store: Store, lineage: LineageRow, version: VersionRow) -> None:
    """Raise Unfit for a version that is unfit, or that nobody scored; the error says which one to take in its place."""
    name = f"{lineage}@{version.version}"
    found = unfit(store, [version.id]).get(version.id)
    if found is not None:
        near = nearest_fit(store, lineage, version)
        none = f"no version of {lineage} that was scored is fit: edgecloud materialise {lineage}@base"
        fix = f"edgecloud materialise {lineage}@{near.version} --fit-only: the nearest that is fit" if near else none
        raise Unfit(name=name, reason=found.words.removeprefix("unfit: "), fix=fix)
    if unscored(store, [version.id]):
        fits = _scoring(store, lineage, version)
        faults = [row.fault for row in store.evaluations.of(version.id) if row.fault]
        reason = f"it could not be run: {faults[0]}" if faults else "it was scored on no probe set" + (
            "" if fits else ", since none with labels fits it"
        )
        fix = "edgecloud probes add NAME FILE.npz, with labels y"
        if fits:
            fix = f"edgecloud matrix --model {lineage.model} --on {fits[0].name} --versions all --update"
        raise Unfit(name=name, reason=reason, fix=fix)


def _scoring(store: Store, lineage: LineageRow, version: VersionRow) -> list[ProbeRow]:
    """Return the probe sets by which a version can be scored: with labels or targets, and rows that it takes."""
    base, out = LoadedBases(store)[version.base].file, []
    for row in store.probes.all():
        try:
            held = sets.load(store, row) if row.model in ("", lineage.model) else None
            if held is not None and held.y is not None and sets.check_fits(held, [sets.input_of(base, "")], row.name):
                out.append(row)
        except ModelWireError:
            continue
    return out


def judge(
    whole: EvaluationRow | None, own: EvaluationRow | None, base: EvaluationRow | None, claimed: float | None
) -> UnfitVersion | None:
    """Return why a version is unfit by one probe set; None where nothing says so.

    whole, own: it on all rows, and on those of its world. base: its base on all rows. claimed: the accuracy that it says.
    """
    if whole is not None and base is not None and not whole.fault and whole.broken > base.broken:
        return UnfitVersion(int(whole.subject), whole.probes, whole.n, None, None, claimed, None, whole.broken)
    if own is None or own.right is None or own.base_right is None or claimed is None or own.fault:
        return None
    highest = upper(own.right, own.n)
    if highest + MARGIN >= min(claimed, own.base_right / own.n):
        return None
    return UnfitVersion(int(own.subject), own.probes, own.n, own.right, own.base_right, claimed, highest, own.broken)


@lru_cache(maxsize=4096)
def upper(right: int, n: int, alpha: float = ALPHA) -> float:
    """Return the largest accuracy at which so few of n rows are right with a chance of at least alpha: Clopper and Pearson's upper bound.

    Rounded up: by 2^-40 at most.
    """
    if right >= n:
        return 1.0
    k = np.arange(1, right + 1)
    choose = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))])  # log of n over 0, 1, ...
    k = np.arange(right + 1)
    low, high = right / n, 1.0
    for _ in range(40):
        p = (low + high) / 2
        terms = choose + k * np.log(p) + (n - k) * np.log1p(-p)
        most = float(terms.max())
        if most + float(np.log(np.exp(terms - most).sum())) > np.log(alpha):
            low = p
        else:
            high = p
    return high


def claim_of(version: VersionRow) -> float | None:
    """Return the accuracy that a version says of itself; None where it says none, or none that may be."""
    try:
        said = cbor.decode(version.extension, "extension") if version.extension else {}
    except WireError:  # of a row that was changed: `verify` tells which
        return None
    value = said.get(CLAIM) if isinstance(said, dict) else None
    return value if isinstance(value, float) and 0 <= value <= 1 else None


def world_of(store: Store, version: VersionRow) -> Card | None:
    """Return what the cards of a version and of those before it in its epoch tell together; None where none tells anything."""
    seen: Card | None = None
    taken = 0
    for row in reversed(store.versions.of(version.lineage)):
        if row.epoch != version.epoch or row.id > version.id or row.status is Status.REFUSED:
            continue
        try:
            said = cbor.decode(row.extension, "extension") if row.extension else {}
            card = cards.card_in(said if isinstance(said, dict) else {})
            if card is not None:
                seen, taken = card if seen is None else merge(seen, card), taken + 1
        except WireError:  # the ingester has left a note, or two cards have other axes
            continue
        if taken == CARDS:
            break
    return seen


def world(
    card: Card | None, tags: Mapping[str, NDArray[Any]], labels: NDArray[np.integer[Any]] | None, chance: NDArray[np.float64]
) -> WorldRows | None:
    """Return which rows of a probe set a version may be judged by: those of its world, and where its cards leave it open each that may be.

    tags: by name, a value a row; labels: a class a row. chance: a number of 0 to 1 for each row, from `chances`: rows are left out by it
    until what the cards tell of is as frequent as they tell. None where its world has too few rows.
    """
    mine, weight = np.ones(len(chance), bool), np.ones(len(chance))
    left, shared = list[NDArray[Any]](), list[tuple[Mapping[Any, int], NDArray[Any]]]()
    told: list[tuple[Mapping[Any, int] | None, NDArray[Any] | None]] = [
        *((None if card is None else card.tags.get(name), values) for name, values in sorted(tags.items())),
        (None if card is None else card.labels, labels),
    ]  # fmt: skip
    for counts, values in told:
        total = sum(counts.values()) if counts else 0
        if values is not None and counts and total > 0:
            known = {value: count for value, count in counts.items() if count and count >= COVERED * max(counts.values())}
            mine &= np.isin(values, list(known))
            shared.append((known, values))
        elif values is not None:
            left.append(values)
    for counted, values in shared:
        for value, count in counted.items():
            there = mine & (values == value)
            weight[there] *= count / max(1, int(there.sum()))
    mine &= chance * float(weight[mine].max(initial=0.0)) <= weight
    if int(mine.sum()) < ROWS_MIN:
        return None
    each = [(mine & (values == value), values is labels) for values in left for value in np.unique(values[mine]) if str(value)]
    return WorldRows(mine, tuple((cell, of_class) for cell, of_class in each if int(cell.sum()) >= ROWS_MIN))


def chances(digest: bytes, n: int) -> NDArray[np.float64]:
    """Return a number above 0 and up to 1 for each row of a probe set: always the same, and of nothing but its digest."""
    return (np.frombuffer(hashlib.shake_256(digest).digest(4 * n), "<u4").astype(np.float64) + 1) / (1 << 32)


def fairest(rows: WorldRows, right: NDArray[np.bool_], base_right: NDArray[np.bool_], claimed: float) -> tuple[int, int, int]:
    """Return the rows, and how many of them a version and its base have right: of its world, or of the one value that speaks for it."""
    for cell, of_class in rows.left_open:
        n, mine, bases = int(cell.sum()), int(right[cell].sum()), int(base_right[cell].sum())
        if upper(mine, n) + MARGIN >= claimed or (not of_class and mine / n >= bases / n + MARGIN):
            return n, mine, bases
    return int(rows.mine.sum()), int(right[rows.mine].sum()), int(base_right[rows.mine].sum())


def _is_below_base(own: EvaluationRow) -> bool:
    return own.right is not None and own.base_right is not None and own.right / own.n + MARGIN < own.base_right / own.n


def nearest_fit(store: Store, lineage: LineageRow, version: VersionRow) -> VersionRow | None:
    """Return the recoverable version of a model that is nearest to one by number, was scored, and is not unfit; the older of two."""
    left = store.thinnings.of(lineage.id)
    rows = [v for v in store.versions.of(lineage.id) if v.status is Status.VERIFIED and not left.get(v.id, False) and v.id != version.id]
    rows.sort(key=lambda v: (abs(v.version - version.version), v.version))
    for start in range(0, len(rows), CARDS):
        some = [v.id for v in rows[start : start + CARDS]]
        out = {*unfit(store, some), *unscored(store, some)}
        found = next((v for v in rows[start : start + CARDS] if v.id not in out), None)
        if found is not None:
            return found
    return None
