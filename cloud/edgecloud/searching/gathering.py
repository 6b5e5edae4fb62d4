"""The sketches of the versions of one base, as one array: what every search begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecloud.keeping.sketching import SketchMaker
from edgecloud.registry import Store
from edgecloud.sketches import counting


@dataclass(frozen=True, slots=True)
class SketchedVersions:
    """Versions of one base with their sketches."""

    ids: tuple[int, ...]  # of their rows
    sketches: NDArray[np.int32]  # shape (n, 256)
    left_out: tuple[int, ...]  # versions without a sketch, of which none could be made


def gather(
    store: Store, base: bytes, *, every: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> SketchedVersions:
    """Return the newest version of each model on a base, or every one. What has no sketch gets one here, in memory alone.

    progress: told how many of those were made, and of how many.
    """
    found = store.sketches.every(base) if every else store.sketches.heads(base)
    lacking = [id for id, sketch in found if sketch is None]
    made: dict[int, counting.Sketch] = {}
    if lacking:
        maker = SketchMaker(store)
        for done, id in enumerate(lacking):
            sketch = maker.make(id, made)
            if sketch is not None:
                made[id] = sketch
            progress(done + 1, len(lacking))
    held = [(id, sketch) for id, sketch in found if sketch is not None or id in made]
    data = b"".join(sketch if sketch is not None else counting.encode(made[id]) for id, sketch in held)
    array = np.frombuffer(data, "<i4").astype(np.int32, copy=False).reshape(len(held), counting.BUCKETS)
    return SketchedVersions(tuple(id for id, _ in held), array, tuple(id for id in lacking if id not in made))
