"""Builds one version after the other, each proven by its root, and keeps the newest states in memory, bounded."""

from __future__ import annotations

from collections import OrderedDict

from edgecloud.registry import LineageRow, Store, VersionRow
from edgecloud.versions import materialise
from modelwire.lattice.state import ModelState


class Builder:
    """The rebuild of versions of one store, for one thread."""

    def __init__(self, store: Store, kept_bytes: int) -> None:
        """kept_bytes: of states; at least one is kept, whatever its size."""
        self.store = store
        self.kept: OrderedDict[bytes, ModelState] = OrderedDict()
        self._room, self._held = kept_bytes, 0
        self._bases = materialise.LoadedBases(store)

    def build(self, lineage: LineageRow, version: VersionRow) -> ModelState:
        """Return the state of a version, to be read alone. Raises what keeps it from being exact, as `materialise.rebuild` does."""
        state = self.kept.pop(version.parent, None)
        self._held -= _size(state) if state is not None else 0
        if version.kind == "snapshot":
            state = self._bases[version.base].state()
            state.keep_leaves()
        if state is None:
            materialise.require_served(lineage, version)
            state = materialise.rebuild(self.store, version, self._bases)
        else:
            materialise.step(self.store, lineage, version, state)
        state.keep_leaves()  # so that the next root hashes what its update touches alone
        self.kept[version.commit] = state
        self._held += _size(state)
        while len(self.kept) > 1 and self._held > self._room:  # models of all sizes share the room
            self._held -= _size(self.kept.popitem(last=False)[1])
        return state


def _size(state: ModelState) -> int:
    return 12 * state.manifest.schema.size  # weights, integers, and a share of the base
