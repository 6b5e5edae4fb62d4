"""Makes sketches that are missing: of a registry from before there were any, and where they were dropped. Each is made of its version."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from edgecloud.registry import Store, VersionRow
from edgecloud.sketches import counting
from edgecloud.versions import materialise
from modelwire.errors import DiskUnwritable, ModelWireError, StateBusy
from modelwire.update.manifest import Manifest

log = logging.getLogger("edgecloud.compactor")
AT_ONCE = 64  # versions in one transaction
_BY_SECTIONS = ("snapshot", "delta")  # whose own update says what they add


@dataclass(slots=True)
class SketchMaker:
    """Makes the sketches that one registry lacks, for one thread with a store of its own. `run` does a bounded piece of work."""

    store: Store
    stopping: Callable[[], bool] = lambda: False
    _bases: materialise.LoadedBases = field(init=False)
    _after: int = field(init=False, default=0)  # row of the last version that was looked at: what lies before is done, or can't be

    def __post_init__(self) -> None:
        self._bases = materialise.LoadedBases(self.store)

    def waiting(self) -> bool:
        """Return whether there may be work. What was found whole once is not looked at again."""
        judged = self.store.sketches.judged()
        if self.store.sketches.missing(self._after, 1):
            return True
        self._after = max(self._after, judged)
        return False

    def run(self) -> int | None:
        """Make the next sketches and return how many versions were looked at; None when there is nothing to do.

        Raises StateBusy and DiskUnwritable, after which nothing is lost but the work.
        """
        if self.stopping():
            return None
        ids = self.store.sketches.missing(self._after, AT_ONCE)
        if not ids:
            return None
        made: dict[int, counting.Sketch] = {}
        for done, id in enumerate(ids):
            if self.stopping():
                ids = ids[:done]
                break
            sketch = self.make(id, made)
            if sketch is not None:
                made[id] = sketch
        with self.store.transaction():
            for id, sketch in made.items():
                if self.store.versions.by_id(id) is not None:  # else its device was erased meanwhile
                    self.store.sketches.put(id, counting.encode(sketch))
        if ids:
            self._after = ids[-1]
        return len(ids)

    def make(self, version_id: int, known: dict[int, counting.Sketch] | None = None) -> counting.Sketch | None:
        """Return the sketch of a version, made of its update where that says it; None where the version can't be had, which is logged.

        known: sketches by version, besides those that are stored.
        """
        version = self.store.versions.by_id(version_id)
        if version is None:
            return None
        try:
            manifest = self._bases[version.base].manifest
            if not counting.on_lattice(manifest):
                return None
            sketch = self._by_sections(version, manifest, known or {})
            return sketch if sketch is not None else counting.of_state(materialise.rebuild(self.store, version, self._bases))
        except (StateBusy, DiskUnwritable):
            raise
        except ModelWireError as error:
            log.warning("no sketch of version row %d: %s", version_id, error)
            return None

    def _by_sections(self, version: VersionRow, manifest: Manifest, known: dict[int, counting.Sketch]) -> counting.Sketch | None:
        """Return the sketch by the version's own update, on its parent's where it needs one; None where that does not say it."""
        if version.kind not in _BY_SECTIONS or self.store.thinnings.get(version.id) is not None:
            return None
        before: counting.Sketch | None = None
        if version.kind == "delta":
            before = self._before(version, known)
            if before is None:
                return None
        lineage = self.store.lineages.by_id(version.lineage)
        sent = materialise.open_container(self.store, lineage, version)
        own = counting.of_sections(manifest, sent.sections(manifest.schema))
        return own if before is None else counting.add(before, own)

    def _before(self, version: VersionRow, known: dict[int, counting.Sketch]) -> counting.Sketch | None:
        if version.parent_id is None:
            return counting.add()  # the base
        if version.parent_id in known:
            return known[version.parent_id]
        kept = self.store.sketches.get(version.parent_id)
        return None if kept is None else counting.decode(kept)
