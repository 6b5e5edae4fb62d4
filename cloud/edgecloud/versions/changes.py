"""How far each tensor of a model moved at each of its versions: the norm of the change over the norm of what was there before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.registry import LineageRow, Status, Store, VersionRow
from modelwire.errors import ModelWireError
from modelwire.lattice.state import ModelState

from . import materialise


@dataclass(frozen=True, slots=True)
class Changes:
    """Versions of one model, oldest first."""

    tensors: tuple[str, ...]
    versions: tuple[int, ...]  # numbers
    relative: NDArray[np.float64]  # [tensors, versions]; NaN where a version or the one before it can't be rebuilt


def newest(store: Store, lineage: LineageRow, most: int) -> list[VersionRow]:
    """Return the newest versions of a model that were not refused, oldest first."""
    return [row for row in store.versions.newest(lineage.id, most) if row.status is not Status.REFUSED][::-1]


def changes(store: Store, rows: Sequence[VersionRow], progress: Callable[[int, int], None] = lambda done, total: None) -> Changes | None:
    """Return how far the tensors moved at these versions of one model, oldest first; None where none of them can be rebuilt.

    A tensor that was all zeros before counts by its norm afterwards. Versions with other tensors than the newest are gaps.
    """
    bases = materialise.LoadedBases(store)
    columns, numbers, state, schema = list[NDArray[np.float64]](), list[int](), None, None
    for done, row in enumerate(rows):
        before = state if state is not None and done and rows[done - 1].commit == row.parent else _parent(store, row, bases)
        state = _state(store, row, bases)
        if state is not None:
            schema = state.manifest.schema
        moved = None if before is None or state is None or before.manifest.schema.id != state.manifest.schema.id else _moved(before, state)
        columns.append(np.full(0, np.nan) if moved is None else moved)
        numbers.append(row.version)
        progress(done + 1, len(rows))
    if schema is None:
        return None
    names = tuple(spec.name for spec in schema.tensors)
    fits = [one if len(one) == len(names) else np.full(len(names), np.nan) for one in columns]
    return Changes(names, tuple(numbers), np.stack(fits, 1))


def _parent(store: Store, row: VersionRow, bases: materialise.LoadedBases) -> ModelState | None:
    if row.parent_id is None:
        return bases[row.base].state()
    parent = store.versions.by_id(row.parent_id)
    return None if parent is None else _state(store, parent, bases)


def _state(store: Store, row: VersionRow, bases: materialise.LoadedBases) -> ModelState | None:
    try:
        return materialise.rebuild(store, row, bases)
    except ModelWireError:  # thinned, damaged or not whole yet: a gap
        return None


def _moved(before: ModelState, after: ModelState) -> NDArray[np.float64]:
    out = []
    for a, b in zip(before.weights, after.weights, strict=True):
        norm, far = (float(np.linalg.norm(x)) for x in (a.astype(np.float64), b.astype(np.float64) - a))
        out.append(far / norm if norm else far)
    return np.array(out)
