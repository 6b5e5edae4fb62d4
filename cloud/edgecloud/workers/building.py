"""Builds one version after the other, each proven by its root, and keeps the newest states in memory, bounded."""

from __future__ import annotations

from collections import OrderedDict

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.sketches import counting
from edgecloud.versions import materialise
from modelwire.lattice.state import ModelState


class Builder:
    """The rebuild of versions of one store, for one thread."""

    def __init__(self, store: Store, kept_bytes: int) -> None:
        """kept_bytes: of states; at least one is kept, whatever its size."""
        self.store = store
        self.kept: OrderedDict[bytes, ModelState] = OrderedDict()
        self._sketches: dict[bytes, counting.Sketch] = {}  # of those that are kept
        self._room, self._held = kept_bytes, 0
        self._bases = materialise.LoadedBases(store)

    def build(self, lineage: LineageRow, version: VersionRow) -> ModelState:
        """Return the state of a version, to be read alone. Raises what keeps it from being exact, as `materialise.rebuild` does."""
        state = self.kept.pop(version.parent, None)
        self._held -= _size(state) if state is not None else 0
        before, sketch = self._sketches.pop(version.parent, None), None
        if version.kind == "snapshot":
            state = self._bases[version.base].state()
            state.keep_leaves()
        if state is None:
            materialise.require_served(lineage, version)
            state = materialise.rebuild(self.store, version, self._bases)
        else:
            counted = counting.counted(state, before) if before is not None and version.kind == "delta" else None
            materialise.step(self.store, lineage, version, state, counted=counted)
            sketch = before if counted is not None else None
        self._sketches[version.commit] = sketch if sketch is not None else counting.of_state(state)
        state.keep_leaves()  # so that the next root hashes what its update touches alone
        self.kept[version.commit] = state
        self._held += _size(state)
        while len(self.kept) > 1 and self._held > self._room:  # models of all sizes share the room
            commit, gone = self.kept.popitem(last=False)
            self._held -= _size(gone)
            del self._sketches[commit]
        return state

    def sketch(self, version: VersionRow) -> bytes:
        """Return the sketch of a version that was just built, as it is stored; nothing where its base has no lattice."""
        sketch = self._sketches.get(version.commit)
        return counting.encode(sketch) if sketch is not None and counting.on_lattice(self._bases[version.base].manifest) else b""


def _size(state: ModelState) -> int:
    return 12 * state.manifest.schema.size  # weights, integers, and a share of the base
