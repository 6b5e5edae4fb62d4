"""The sketches of the versions of one base: what every search begins with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.keeping.sketching import SketchMaker
from edgecloud.registry import Store
from edgecloud.sketches import counting

AT_ONCE = 1 << 13  # versions in memory together, where all are looked at: 8 MiB of sketches
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SketchedVersions:
    """Versions of one base with their sketches."""

    ids: tuple[int, ...]  # of their rows
    sketches: NDArray[np.int32]  # shape (n, 256)
    left_out: tuple[int, ...]  # versions without a sketch, of which none could be made


@dataclass(frozen=True, slots=True)
class EstimatedVersions:
    """Versions of one base with their distances from one sketch, as `counting.distances` estimates them."""

    ids: NDArray[np.int64]  # of their rows
    distances: NDArray[np.float64]
    left_out: tuple[int, ...]  # as above


def gather(store: Store, base: bytes, *, every: bool = False, progress: Progress = lambda done, total: None) -> SketchedVersions:
    """Return the newest version of each model on a base, or every one. What has no sketch gets one here, in memory alone.

    progress: told how many of those were made, and of how many.
    """
    pieces = list(_pieces(store, base, every, progress))
    return SketchedVersions(
        tuple(id for piece in pieces for id in piece.ids), np.concatenate([piece.sketches for piece in pieces]),
        tuple(id for piece in pieces for id in piece.left_out),
    )  # fmt: skip


def estimate(
    store: Store, base: bytes, one: counting.Sketch, *, every: bool = False, progress: Progress = lambda done, total: None
) -> EstimatedVersions:
    """Return the same versions with their distances from `one`, a sketch of the same base. Memory does not grow with 1 KiB a version."""
    ids, distances, left_out = [np.zeros(0, np.int64)], [np.zeros(0)], list[int]()
    for piece in _pieces(store, base, every, progress):
        ids.append(np.array(piece.ids, np.int64))
        distances.append(counting.distances(piece.sketches, one))
        left_out += piece.left_out
    return EstimatedVersions(np.concatenate(ids), np.concatenate(distances), tuple(left_out))


def _pieces(store: Store, base: bytes, every: bool, progress: Progress) -> Iterator[SketchedVersions]:
    """Yield the versions by their rows; one piece at least."""
    made: dict[int, counting.Sketch] = {}
    maker, after, more = SketchMaker(store), 0, True
    while more:
        found = store.sketches.every(base, after, AT_ONCE) if every else store.sketches.heads(base)
        more = every and len(found) == AT_ONCE
        after = found[-1][0] if found else 0
        lacking = [id for id, sketch in found if sketch is None]
        for done, id in enumerate(lacking):
            sketch = maker.make(id, made)
            if sketch is not None:
                made[id] = sketch
            progress(done + 1, len(lacking))
        held = [(id, sketch) for id, sketch in found if sketch is not None or id in made]
        data = b"".join(sketch if sketch is not None else counting.encode(made[id]) for id, sketch in held)
        array = np.frombuffer(data, "<i4").astype(np.int32, copy=False).reshape(len(held), counting.BUCKETS)
        yield SketchedVersions(tuple(id for id, _ in held), array, tuple(id for id in lacking if id not in made))
