"""Which versions a merge is made of, how much each counts, and what keeps them from being merged. And what a base was made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgecloud.registry import Base, LineageRow, MergeRow, Status, Store, VersionRow
from edgecloud.versions import cards, materialise, naming
from modelwire.errors import BadArgument, WrongBase
from modelwire.lattice.state import ModelState

from .averaging import WEIGHTS_BELOW, LatticeMean

MEAN, WEIGHTED = "mean", "weighted"
RULES = (MEAN, WEIGHTED)


@dataclass(frozen=True, slots=True)
class MergeParent:
    """One of the versions that a merge is made of."""

    lineage: LineageRow
    version: VersionRow
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version}"


def chosen(store: Store, names: Sequence[str], *, model: str | None = None, weights: Sequence[int] | None = None) -> list[MergeParent]:
    """Return the versions that names stand for, by device, model and number: DEVICE[/MODEL][@VERSION], the head where none is said.

    model: taken where a name says none; weights: one a name, 1 each by default. Raises UnknownVersion, AmbiguousName or Malformed for a
    name; BadArgument for one that is given twice, that is a base, for fewer than two, and for weights that can't be counted.
    """
    found: dict[int, MergeParent] = {}
    if weights is not None and len(weights) != len(names):
        fix = "give each version one weight, in the same order"
        raise BadArgument(reason=f"there are {len(names)} versions and {len(weights)} weights", fix=fix)
    for text, weight in zip(names, [1] * len(names) if weights is None else weights, strict=True):
        name = naming.parse(text)
        place = naming.find(store, replace(name, model=name.model or model))
        if place.version is None:
            fix = "leave it out: the base counts for itself in no merge"
            raise BadArgument(reason=f"{place} is the base that the others are averaged around, and no version", fix=fix)
        if place.version.id in found:
            fix = "name each version once; --weights says how much one counts"
            raise BadArgument(reason=f"{place} is there twice", fix=fix)
        found[place.version.id] = MergeParent(place.lineage, place.version, weight)
    if len(found) < 2:
        only = f": {next(iter(found.values()))} alone" if found else ""
        fix = "name two versions of one base or more: edgecloud merge --devices A,B --rule mean -o merged.tflite"
        raise BadArgument(reason=f"a merge is made of two versions or more, and this is a cohort of {len(found)}{only}", fix=fix)
    return _in_range(sorted(found.values(), key=_order))


def require_mergeable(store: Store, parents: Sequence[MergeParent], unfit: Mapping[int, str]) -> Base:
    """Return the base that all are on. unfit: why, by version, of those that are.

    Raises NotServed for a refused version, BadArgument for one that is not verified or is unfit, WrongBase for those of two bases.
    """
    first = parents[0]
    for one in parents:
        materialise.require_served(one.lineage, one.version)
        if one.version.status is not Status.VERIFIED:
            fix = f"edgecloud ingest judges it; edgecloud log {one.lineage} shows when it is"
            raise BadArgument(reason=f"{one} is not verified yet, so nothing is made of it", fix=fix)
        if one.version.base != first.version.base:
            what = f"{one}, which is merged with {first},"
            raise WrongBase(
                what=what, kind="base", expected=_named(store, first.version.base), got=_named(store, one.version.base),
                fix="merge the versions of each base for themselves: edgecloud show DEVICE@VERSION says which base one is on",
            )  # fmt: skip
    bad = [one for one in parents if one.version.id in unfit]
    if bad:
        more = f", and {len(bad) - 1} more: {', '.join(map(str, bad[1:6]))}" if len(bad) > 1 else ""
        reason = f"{bad[0]} is {unfit[bad[0].version.id]}{more}"
        raise BadArgument(reason=reason, fix="leave the unfit ones out: edgecloud matrix shows how each does")
    base = store.bases.get(first.version.base)
    assert base is not None  # versions refer to it
    return base


def weighted_by_samples(store: Store, parents: Sequence[MergeParent]) -> list[MergeParent]:
    """Return the parents, each counting as often as its model has had samples since it left the base, as its cards tell.

    Raises BadArgument where no card of one tells a number, or all together are too many.
    """
    out = []
    for one in parents:
        way = _way(store, one.version)
        samples = sum(card.samples for version, card in cards.each(store, one.lineage) if card is not None and version.id in way)
        if not samples:
            fix = "--rule mean counts each alike; --weights 3,1,2 gives weights"
            raise BadArgument(reason=f"no data card of {one} says how many samples it has learnt from", fix=fix)
        out.append(replace(one, weight=samples))
    return _in_range(out)


def _way(store: Store, version: VersionRow) -> set[int]:
    """Return the versions that led to one from its base: none that was taken back, and none of another base before."""
    out = set[int]()
    at: VersionRow | None = version
    while at is not None and at.base == version.base:
        out.add(at.id)
        at = store.versions.by_id(at.parent_id) if at.parent_id is not None else None
    return out


def _order(one: MergeParent) -> tuple[str, str, int]:
    return one.lineage.device, one.lineage.model, one.version.version


def _in_range(parents: list[MergeParent]) -> list[MergeParent]:
    if min(one.weight for one in parents) < 1 or sum(one.weight for one in parents) >= WEIGHTS_BELOW:
        fix = "give whole numbers from 1 on: only their ratios count"
        raise BadArgument(reason=f"weights of a merge are whole numbers from 1 on that sum to less than {WEIGHTS_BELOW}", fix=fix)
    return parents


def averaged(
    store: Store, parents: Sequence[MergeParent], bases: materialise.LoadedBases,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ModelState:  # fmt: skip
    """Return the weighted mean of versions, each rebuilt and proven. progress: told versions done and all.

    Raises BadArgument where the mean is the base itself, and what keeps a version from being rebuilt.
    """
    average = LatticeMean(bases[parents[0].version.base].state())
    for done, one in enumerate(parents):
        average.add(materialise.rebuild(store, one.version, bases), one.weight)
        progress(done + 1, len(parents))
    state = average.state()
    if all(b.tobytes() == w.tobytes() for b, w in zip(state.base, state.weights, strict=True)):
        fix = "there is nothing to make: edgecloud show DEVICE@base"
        raise BadArgument(reason="the mean of these versions is their base, to the bit", fix=fix)
    return state


def keep(store: Store, file: bytes, base: bytes, rule: str, parents: Sequence[MergeParent], now: int) -> bool:
    """Keep what a file, by its digest, is made of, and return whether that is new: an equal file may have been made of others before."""
    return store.merges.add(MergeRow(file, base, rule, len(parents), now), {one.version.id: one.weight for one in parents})


@dataclass(frozen=True, slots=True)
class BaseOrigin:
    """What a base was made of."""

    merge: MergeRow
    base: str  # name of the base that the versions have in common
    parents: tuple[MergeParent, ...]  # those that are not erased, by device, model and number

    @property
    def erased(self) -> int:
        """How many are not told any more, as their devices were erased."""
        return self.merge.versions - len(self.parents)

    def __str__(self) -> str:
        rule = {MEAN: "the mean", WEIGHTED: "the weighted mean"}[self.merge.rule]
        of = "all" if not self.parents else self.erased
        gone = f", {of} of them of devices that were erased" if self.erased else ""
        return f"{rule} of {self.merge.versions} versions of {self.base}{gone}"


def origin_of(store: Store, file: bytes) -> BaseOrigin | None:
    """Return what a base's file, by its digest, was made of; None where it is no merge of this registry."""
    merge = store.merges.of(file)
    if merge is None:
        return None
    parents = []
    for id, weight in store.merges.parents(file).items():
        version = store.versions.by_id(id)
        if version is not None:
            parents.append(MergeParent(store.lineages.by_id(version.lineage), version, weight))
    parents.sort(key=_order)
    return BaseOrigin(merge, _named(store, merge.base), tuple(parents))


def _named(store: Store, commit: bytes) -> str:
    base = store.bases.recall(commit)
    return f"{base.name} ({commit.hex()[:8]})" if base is not None else commit.hex()[:16]
