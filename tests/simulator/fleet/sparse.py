"""A scripted device that keeps of its model only what differs from its base, so that thousands of them fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np

from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import Snapped, no_residual, snap
from modelwire.lattice.state import ModelState
from modelwire.update.container import size_of
from modelwire.update.manifest import Manifest
from modelwire.update.sections import Kind, Sections, add
from modelwire.wire.records import Level, Receipt, Record
from tests.edgecloud.device import Base, ScriptedDevice, Sent

from .script import NOISE

NEW_BASE = "new base"  # what its snapshot is called among the bytes
SAID = {"loss_before": 1.0, "loss_after": 0.5, "samples": 32, "steps": 4}


class SparseDevice(ScriptedDevice):
    """Its rounds are training noise, snapped with no residual: what is left over is forgotten, as no training follows that would use it."""

    def reset(self) -> None:
        self.moved: Sections = ()  # all that its model is apart from its base
        self.pending: Sections = ()  # what rounds have moved that are not sealed yet
        self.rounds = 0  # of these
        self.kinds: dict[int, str] = {}  # of what waits, by version
        self.epoch, self.head, self.answer = 0, self.base.manifest.commit, b""
        self.waiting.clear()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Have the whole model at hand, for the time of the block."""
        self.state = _first(self.base).at_base()
        self.state.apply(Kind.SNAPSHOT, self.moved)
        self.residual: Residual = _nothing_left(self.base.manifest)
        self._whole: Sections | None = None
        try:
            yield
        finally:
            self.moved = self.whole()
            del self.state

    def whole(self) -> Sections:
        """Return all that its model is apart from its base, while awake: what a snapshot says."""
        if self._whole is None:
            self._whole = self.state.snapshot()
        return self._whole

    def round(self, density: float) -> Snapped:
        """Train once, while awake; what it moved is sealed with the next update."""
        draw = self.rng.standard_normal
        trained = [w + draw(len(w), dtype=np.float32) * np.float32(NOISE) for w in self.state.weights]
        snapped = snap(self.state, trained, self.residual, density=density, max_bytes=1 << 20)
        self.state, self._whole = snapped.state, None
        self.pending = add(self.pending, snapped.sections, self.base.manifest) if self.pending else snapped.sections
        self.rounds += 1
        return snapped

    def size_of_snapshot(self) -> int:
        """Return the bytes of its whole state as a snapshot, while awake, without names and extension."""
        return size_of(self.whole(), self.base.manifest.schema)

    def conclude(self, kind: Kind, note: bytes = b"") -> Sent:
        """Seal all rounds that were not sealed as one update, while awake. Its number is that of the last one; it names the others."""
        first, last = self.version + 1, self.version + max(1, self.rounds)
        said: dict[str, object] = {**SAID, **({"plan": note} if note else {}), **({"skipped": [[first, last - 1]]} if last > first else {})}
        whole = kind is Kind.SNAPSHOT
        sent = self.seal(kind, self.whole() if whole else self.pending, version=last, extension=said)
        self.pending, self.rounds, self.kinds[sent.version] = (), 0, kind.name.lower()
        return sent

    def take_over(self, base: Base) -> Sent:
        """Go over to another base on the same lattice, with all that was learned, and return the snapshot that says so."""
        assert base.manifest.exponents == self.base.manifest.exponents
        self.base = base
        with self.awake():
            sent = self.conclude(Kind.SNAPSHOT)
        self.kinds[sent.version] = NEW_BASE
        return sent

    def hear(self, record: Record) -> Sent | None:
        if not isinstance(record, Receipt) or record.level is not Level.REFUSED or record.version not in self.waiting:
            before = set(self.waiting)
            answer = super().hear(record)
            for version in before - self.waiting.keys():
                self.made[version] = replace(self.made[version], data=b"")  # the centre has it
                self.kinds.pop(version, None)
            return answer
        with self.awake():
            answer = super().hear(record)
        if answer is not None:
            self.pending, self.rounds, self.kinds[answer.version] = (), 0, "snapshot"
        return answer


@lru_cache(8)
def _first(base: Base) -> ModelState:
    return ModelState.of_base(base.manifest, base.weights)


@lru_cache(8)
def _nothing_left(manifest: Manifest) -> Residual:
    return no_residual(manifest)
