"""Exact unlearning: the model that a lineage would have come to, had some of its samples never been there. Bit for bit, or an error.

Only what was trained as a recipe can be trained again. The head without a sample is its chain replayed: every recipe that had the
sample without it, every later one on the parent that this gives. What was learned by deltas stays learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecloud.registry import LineageRow, Store, VersionRow
from modelwire import limits
from modelwire.errors import BadArgument, Malformed, ModelWireError, TooLarge
from modelwire.lattice.between import difference
from modelwire.lattice.replay import kind_of, update_of
from modelwire.lattice.state import ModelState
from modelwire.output_head.forgotten import KEY, Forgotten, forgotten_of
from modelwire.output_head.recipe import Recipe
from modelwire.output_head.row_ids import ids_of
from modelwire.update import container
from modelwire.update.header import Header
from modelwire.wire import cbor

from . import materialise
from .naming import Place
from .replaying import RECIPE, parent_of, recipe_of

Progress = Callable[[int, int], None]
Drops = frozenset[Forgotten]
RECORD = 1024  # bytes of a record beside the update: names, signature, CBOR
LIMIT = limits.Limits(container=limits.DEFAULT.record - RECORD)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What one version's recipe lost."""

    version: int
    rows: int
    of: int


@dataclass(frozen=True, slots=True)
class Unlearned:
    """The model without the samples, and what stands beside it."""

    without: Forgotten
    place: Place  # of the version that it is to be compared with: the head, or the one that was asked about
    head: ModelState  # as it is
    state: ModelState  # as it would be
    dropped: tuple[Dropped, ...]
    replayed: int  # recipes that were trained again
    nameless: tuple[int, ...]  # recipes on the way that do not say which samples their rows are of: replayed as they are
    before: tuple[int, ...] = ()  # versions in front of the first such recipe that moved the model and are none: who knows on what


def what_of(store: Store, place: Place, rows: Sequence[int]) -> Forgotten:
    """Return what the rows of a version's recipe stand for: their samples, or the rows alone. Raises BadArgument."""
    version, sent, recipe = recipe_of(store, place)
    n = len(recipe.rows)
    strange = [row for row in rows if not 0 <= row < n]
    if strange or not rows:
        raise BadArgument(reason=f"{place} has no row {strange[0] if strange else ''}".rstrip(), fix=f"its rows are 0 to {n - 1}")
    ids = ids_of(sent.header.extension, n)
    if ids is None:
        return Forgotten(version=version.version, rows=tuple(sorted(set(rows))))
    return Forgotten(tuple(sorted({ids[row] for row in rows})))


def at_version(store: Store, place: Place, rows: Sequence[int], bases: materialise.LoadedBases) -> Unlearned:
    """Return what a version would have been without rows of its own recipe, on the parent that it has: the counterfactual of it alone."""
    without = what_of(store, place, rows)
    version, sent, recipe = recipe_of(store, place)
    materialise.require_served(place.lineage, version)
    state, n = parent_of(store, version, bases), len(recipe.rows)
    gone = _rows_in(version, ids_of(sent.header.extension, n), n, frozenset([without]))
    _train(state, recipe, gone)
    held = materialise.rebuild(store, version, bases)
    return Unlearned(without, place, held, state, (Dropped(version.version, len(gone), n),), 1, ())


def unlearn(
    store: Store, place: Place, rows: Sequence[int], bases: materialise.LoadedBases, progress: Progress | None = None
) -> Unlearned:
    """Return what the head would be, had the samples of these rows of a version's recipe never been seen.

    Raises BadArgument for a version that the head does not stand on, and where a version on the way depends on the samples and can't be
    trained again: a delta, an exact update, or a snapshot that moved the model or went over to another base.
    """
    without = what_of(store, place, rows)
    head = store.lineages.head(place.lineage.id, place.epoch)
    assert head is not None  # granted together with the epoch
    last = store.versions.by_id(head.version_id) if head.version_id is not None else None
    chain = _chain(store, last)
    if last is None or place.version is None or all(v.id != place.version.id for v in chain):
        raise BadArgument(
            reason=f"the head of {place.lineage} does not stand on {place}",
            fix=f"edgecloud log {place.lineage} lists what it stands on; --at-version looks at this one alone",
        )
    walk = _Walk(store, place.lineage, chain, bases, progress)
    state = walk.after(len(chain), frozenset([without]))
    held = materialise.rebuild(store, last, bases)
    at_head = Place(place.lineage, place.epoch, last.base, last)
    first = min((one.version for one in walk.dropped), default=0)
    before = tuple(v.version for i, v in enumerate(chain) if v.version < first and walk.moved_otherwise(i))
    return Unlearned(without, at_head, held, state, tuple(walk.dropped), walk.replayed, tuple(sorted(walk.nameless)), before)


def forgotten_in(versions: Sequence[VersionRow]) -> Drops:
    """Return what versions say that they have forgotten."""
    found = set()
    for version in versions:
        if version.kind in ("delta", "exact") and version.extension:
            try:
                known = forgotten_of(_extension(version))
            except ModelWireError:
                continue  # then it is a delta like any other
            found |= set() if known is None else {known}
    return frozenset(found)


def holds(version: VersionRow, rows: int, drops: Drops) -> tuple[bool, bool]:
    """Return whether a recipe of so many rows says which samples they are of, and whether any of them is in `drops`."""
    try:
        ids = ids_of(_extension(version), rows)
    except Malformed:
        ids = None
    return ids is not None, bool(_rows_in(version, ids, rows, drops))


def update_for(unlearned: Unlearned) -> bytes:
    """Return the update that leads from the head to what it is without the samples, up to its commit, as the command `adopt` carries it.

    Raises BadArgument when the two are the same, TooLarge when no record holds it, Malformed where a unit changed on the way.
    """
    head = unlearned.place.version
    assert head is not None  # unlearning starts from a version
    if unlearned.head.root == unlearned.state.root:
        raise BadArgument(reason=f"{unlearned.place} is that model already, bit for bit", fix="nothing is to be sent")
    lineage, state = unlearned.place.lineage, unlearned.state
    header = Header(
        kind_of(state), lineage.device, lineage.model, head.epoch, head.version + 1, head.commit, state.manifest.schema.id, state.root,
        state.fingerprint, b"", {KEY: unlearned.without.encode()},
    )  # fmt: skip
    data = container.unsigned(header, difference(unlearned.head, state), state.manifest.schema)
    if len(data) > LIMIT.container:
        raise TooLarge(what="the update", size=len(data), limit=LIMIT.container)
    return data


class _Walk:
    """One chain, base to head, gone along anew."""

    def __init__(
        self, store: Store, lineage: LineageRow, chain: list[VersionRow], bases: materialise.LoadedBases, progress: Progress | None
    ) -> None:
        self.store, self.lineage, self.chain, self.bases = store, lineage, chain, bases
        self.dropped: list[Dropped] = []
        self.nameless: set[int] = set()
        self.replayed = 0
        self._say = progress
        self._proven: set[int] = set()
        self._ids: dict[int, tuple[tuple[int, ...] | None, int]] = {}  # by place in the chain: the samples of its rows, and how many rows

    def after(self, count: int, drops: Drops) -> ModelState:
        """Return the state after the first `count` versions, had what is in `drops` never been seen."""
        parts: list[tuple[int, int, Drops]] = []  # of the chain, last first, with what is left out of each
        while (first := next((i for i in range(count) if self._affected(i, drops)), count)) < count:
            unlearning = [i for i in range(first + 1, count) if self._unlearned_by(i) is not None]
            if not unlearning:
                parts.append((first, count, drops))
                break
            for i in unlearning:  # the oldest first: each rests on those before it
                self._prove(i)
            known = self._unlearned_by(unlearning[-1])
            assert known is not None
            drops |= {known}  # what it had forgotten before, it must not learn again
            parts.append((unlearning[-1] + 1, count, drops))
            count = unlearning[-1]
        state = self._stored(min(first, count))
        for start, end, drops in reversed(parts):
            for i in range(start, end):
                self._go(i, state, drops)
        return state

    def moved_otherwise(self, i: int) -> bool:
        """Return whether version i moved the model, and neither as a recipe nor by forgetting."""
        return self.chain[i].kind != RECIPE and self.chain[i].root != self._root_before(i) and self._unlearned_by(i) is None

    def _go(self, i: int, state: ModelState, drops: Drops) -> None:
        version = self.chain[i]
        if version.kind == RECIPE:
            recipe = self._recipe(i)
            gone = self._gone(i, drops)
            _train(state, recipe, gone)
            self.replayed += 1
            if gone:
                self.dropped.append(Dropped(version.version, len(gone), len(recipe.rows)))
            if self._ids[i][0] is None:
                self.nameless.add(version.version)
        elif version.base != self._base_before(i):
            raise BadArgument(
                reason=f"{self.lineage}@{version.version} went over to another base, and unlearning does not cross that",
                fix="--at-version tells what the version of these rows alone would be",
            )
        elif not self._only_asked_for(i):
            raise BadArgument(
                reason=f"{self.lineage}@{version.version} is a {version.kind} that was made on top of them, so it can't be trained again",
                fix="--at-version tells what the version of these rows alone would be; what was learned by deltas is not unlearned",
            )
        if self._say is not None:
            self._say(i + 1, len(self.chain))

    def _prove(self, i: int) -> None:
        """Raise BadArgument unless version i is what forgetting what it says makes of the versions before it."""
        known = self._unlearned_by(i)
        if i in self._proven or known is None:
            return
        kept = self.dropped, self.replayed
        self.dropped, self.replayed = [], 0
        state = self.after(i, frozenset([known]))
        self.dropped, self.replayed = kept
        if state.root != self.chain[i].root:
            raise BadArgument(
                reason=f"{self.lineage}@{self.chain[i].version} says that it forgot {known}, and is not what that comes to",
                fix="--at-version tells what the version of these rows alone would be",
            )
        self._proven.add(i)

    def _stored(self, count: int) -> ModelState:
        """Return the state after the first `count` versions as they are, to be changed."""
        if not count:
            return self.bases[self._base_before(0)].state()
        return materialise.rebuild(self.store, self.chain[count - 1], self.bases)

    def _affected(self, i: int, drops: Drops) -> bool:
        return self.chain[i].kind == RECIPE and bool(self._gone(i, drops))

    def _gone(self, i: int, drops: Drops) -> list[int]:
        """Return which rows of a recipe are in `drops`."""
        if i not in self._ids:
            rows = len(self._recipe(i).rows)
            try:
                self._ids[i] = ids_of(_extension(self.chain[i]), rows), rows
            except Malformed as error:
                what = f"{self.lineage}@{self.chain[i].version}: {error.facts['what']}"
                raise Malformed(what=what, reason=error.facts["reason"]) from None
        return _rows_in(self.chain[i], *self._ids[i], drops)

    def _recipe(self, i: int) -> Recipe:
        return materialise.open_container(self.store, self.lineage, self.chain[i]).recipe(limits.LARGE)

    def _unlearned_by(self, i: int) -> Forgotten | None:
        version = self.chain[i]
        if version.kind not in ("delta", "exact") or not version.extension:
            return None
        try:
            return forgotten_of(_extension(version))
        except ModelWireError:
            return None  # then it is a delta like any other

    def _only_asked_for(self, i: int) -> bool:
        """Return whether version i is a snapshot that moved nothing; nor a unit, to which later recipes would snap: a root binds both."""
        return self.chain[i].kind == "snapshot" and self.chain[i].root == self._root_before(i)

    def _root_before(self, i: int) -> bytes:
        return self.chain[i - 1].root if i else self.bases[self._base_before(0)].manifest.root

    def _base_before(self, i: int) -> bytes:
        """Return the base that version i was made on: the first one's parent is a base itself."""
        return self.chain[i - 1].base if i else self.chain[0].parent


def _chain(store: Store, last: VersionRow | None) -> list[VersionRow]:
    """Return all versions from the base to `last`."""
    out: list[VersionRow] = []
    while last is not None:
        out.append(last)
        last = store.versions.by_id(last.parent_id) if last.parent_id is not None else None
    return out[::-1]


def _rows_in(version: VersionRow, ids: tuple[int, ...] | None, rows: int, drops: Drops) -> list[int]:
    """Return which of a recipe's rows are in `drops`. ids: of the samples that they are of."""
    samples = {sample for one in drops for sample in one.samples}
    gone = {row for one in drops if one.version == version.version for row in one.rows if row < rows}
    return sorted(gone | {row for row, sample in enumerate(ids or ()) if sample in samples})


def _extension(version: VersionRow) -> dict[str, cbor.Value]:
    extension = cbor.decode(version.extension, "extension") if version.extension else {}
    assert isinstance(extension, dict)  # ingest has parsed it
    return extension


def _train(state: ModelState, recipe: Recipe, gone: Sequence[int]) -> None:
    """Move `state` by a recipe without some of its rows; without all of them there was no training."""
    if len(gone) == len(recipe.rows):
        return
    rest = recipe.without(gone) if gone else recipe
    state.apply(kind_of(state), update_of(state, rest))
