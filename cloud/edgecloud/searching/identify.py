"""Whose model a file is: by its root, which proves it; else by its weights, bit for bit; else what it is nearest to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgecloud.registry import Base, LineageRow, Store, VersionRow
from edgecloud.versions import materialise
from modelwire.errors import Malformed, ModelWireError, NonFinite, WrongBase
from modelwire.identity import no_integers, root_parts
from modelwire.lattice.state import ModelState
from modelwire.tensors import I32, Dtype, Held
from modelwire.tflite.file import parse_trainable, read_tensors
from modelwire.update.manifest import Manifest, parse_manifest

from .nearest import Neighbour, Search, near_state

_MOST = 1 << 30  # units of a base: more than any version has, in units that were widened as well


@dataclass(frozen=True, slots=True)
class Owner:
    """A version whose model a file is."""

    lineage: LineageRow
    version: VersionRow

    def __str__(self) -> str:
        return f"{self.lineage}@{self.version.version}"


@dataclass(frozen=True, slots=True)
class Identified:
    """What a file is."""

    base: str  # name of the base that it was made on
    same_file: bool  # whether all of it but the weights is that base's file, byte for byte
    is_base: bool  # its weights are the base's own
    owners: tuple[Owner, ...]  # versions with its very weights, oldest first
    off_lattice: int  # weights that lie between two points of the lattice; they were moved to the nearer one for the search
    search: Search | None  # what it is nearest to, where it is nobody's


def identify(
    store: Store, file: bytes, *, name: str, count: int = 3, progress: Callable[[int, int], None] = lambda done, total: None
) -> Identified:
    """Return whose model a file is. name: what it is called in errors.

    Raises NotTrainable or ModelError for a file that is none of ours, Malformed for one that is cut or no .tflite, NonFinite for one with a
    weight that is no number, WrongBase when it has the tensors of no base in the registry.
    """
    try:
        parsed = parse_trainable(file, model=name)
        schema, flat = read_tensors(parsed, model=name)
    except Malformed as error:
        raise Malformed(what=name, reason=f"no whole .tflite: {error.facts.get('reason')}", fix="name the file as it was made") from None
    for spec, w in zip(schema.tensors, flat, strict=True):
        bad = np.flatnonzero(~np.isfinite(w))
        if len(bad):
            fix = "no version here has such a weight: see who made the file"
            raise NonFinite(what=name, tensor=spec.name, index=int(bad[0]), fix=fix)
    bases = materialise.LoadedBases(store)
    alike = [row for row in store.bases.all() if parse_manifest(row.manifest).schema.id == schema.id]
    if not alike:
        known = ", ".join(row.name for row in store.bases.all()) or "none"
        raise WrongBase(
            what=name, kind="base", expected=f"one of this registry: {known}", got=f"tensors of none of them: {schema.counted}",
            fix="edgecloud bases list; the centre whose device made the file knows its base",
        )  # fmt: skip
    same = {row.commit: _file_again(bases[row.commit], flat) == file for row in alike}
    proven = [one for row in alike if (one := _proven(store, row, bases[row.commit], flat, same[row.commit])) is not None]
    if proven:  # a base may be what a version is, too: a merge, or a model that was added as a base
        first = max(proven, key=lambda one: (one.is_base, one.same_file))
        return replace(first, owners=tuple(owner for one in proven for owner in one.owners), same_file=any(one.same_file for one in proven))
    found: list[Identified] = []
    for row in alike:
        one = _near(store, row, bases[row.commit], flat, same[row.commit], bases, count, progress)
        if one.owners:
            return one
        found.append(one)
    return min(found, key=_rank)


def _file_again(base: materialise.LoadedBase, flat: list[Held]) -> bytes:
    """Return the base's file with these weights; nothing where they do not fit into it."""
    try:
        return materialise.file_of(_with(base, flat, base.state().integers), base)
    except ModelWireError:
        return b""


def _proven(store: Store, row: Base, base: materialise.LoadedBase, flat: list[Held], same: bool) -> Identified | None:
    """Return what a file is where its weights are the base's own, or some version's by its root; else None."""
    if _alike(flat, base.weights):
        return Identified(row.name, same, True, (), 0, None)
    owners = _by_root(store, base.manifest, row, flat)
    return Identified(row.name, same, False, owners, 0, None) if owners else None


def _near(
    store: Store, row: Base, base: materialise.LoadedBase, flat: list[Held], same: bool, bases: materialise.LoadedBases, count: int,
    progress: Callable[[int, int], None],
) -> Identified:  # fmt: skip
    manifest = base.manifest
    integers, off = _nearest_points(manifest, base, flat)
    if not any(manifest.lattice(t) for t in range(len(manifest.classes))):
        return Identified(row.name, same, False, (), off, None)
    state = _with(base, flat, integers)
    search = near_state(store, state, row.commit, count=count, every=True, bases=bases, progress=progress)
    # Units that were widened, and Q that a short float has forgotten, are in the root and not in the file: the weights decide.
    same_weights = tuple(Owner(one.lineage, one.version) for one in search.neighbours if _has(store, one, bases, flat))
    return Identified(row.name, same, False, same_weights, 0 if same_weights else off, None if same_weights else search)


def _by_root(store: Store, manifest: Manifest, row: Base, flat: list[Held]) -> tuple[Owner, ...]:
    """Return the versions whose root these weights have in the base's own units; none where a root binds what a file does not hold."""
    if manifest.kept:
        return ()
    try:
        root = root_parts(manifest.schema, flat, manifest.exponents, no_integers({})).root
    except ModelWireError:
        return ()
    rows = [store.versions.by_id(id) for id in store.sketches.with_root(root)]
    return tuple(Owner(store.lineages.by_id(one.lineage), one) for one in rows if one is not None and one.base == row.commit)


def _has(store: Store, one: Neighbour, bases: materialise.LoadedBases, flat: list[Held]) -> bool:
    return _alike(flat, materialise.rebuild(store, one.version, bases).weights)


def _alike(first: list[Held] | tuple[Held, ...], second: list[Held] | tuple[Held, ...]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def _nearest_points(manifest: Manifest, base: materialise.LoadedBase, flat: list[Held]) -> tuple[list[I32], int]:
    """Return the Q nearest to weights in the base's own units, and how many weights lie between two points."""
    out, off = list[I32](), 0
    for t, (spec, w, b) in enumerate(zip(manifest.schema.tensors, flat, base.weights, strict=True)):
        if not manifest.lattice(t):
            out.append(np.zeros(0 if manifest.exact(t) else spec.size, np.int32))
            continue
        apart = np.ldexp(w.astype(np.float64) - b, -manifest.exponents[t])
        q = np.clip(np.rint(apart), -_MOST, _MOST)
        if spec.dtype not in (Dtype.FLOAT16, Dtype.BFLOAT16):
            again = (b.astype(np.float64) + np.ldexp(q, manifest.exponents[t])).astype(np.float32)
            off += int(np.count_nonzero(again != w))
        out.append(q.astype(np.int32))
    return out, off


def _with(base: materialise.LoadedBase, flat: list[Held], integers: list[I32]) -> ModelState:
    """Return a state to be measured and written alone: its weights may lie off the lattice."""
    state = base.state()
    return ModelState(base.manifest, state.base, list(base.manifest.exponents), integers, flat, (0, 0))


def _rank(one: Identified) -> tuple[bool, float]:
    nearest = one.search.neighbours[0].apart.distance if one.search is not None and one.search.neighbours else float("inf")
    return not one.same_file, nearest
