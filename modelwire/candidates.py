"""The entries of a trained model that stand out: one pass over the arrays, from which every step that a round tries is served.

Memory: 8 bytes an entry that stands out, which is about half as many again as are sent, and the residual that the round will leave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from . import _core
from .errors import NonFinite
from .state import ModelState, naming
from .tensors import F32, I32, U16, U32, Held

Residual = list[U16]  # bf16 bits a tensor, flat; empty arrays for tensors that are not on the lattice
SAMPLE = 1 << 14  # entries from which the bar is guessed
BLOCK = 16  # neighbours taken together: one cache line of float32
WIDER = (1, 4)  # when the guess was too high: this many times the rank, and everything after that


class Candidates:
    """All d = (trained - w) + residual of the tensors that move by steps whose magnitude reaches a bar, and what is left when none is sent.

    Raises NonFinite when a trained weight or a difference is no number. The arrays must not change while this lives.
    """

    count: int  # entries of all tensors that move by steps
    left: Residual  # every d as bf16; `adopted` takes it over
    huge: set[int]  # tensors whose `left` is of no use: a difference there is too large for a bf16

    def __init__(self, state: ModelState, trained: Sequence[Held], residual: Residual, *, density: float) -> None:
        self._state, self._trained, self._residual = state, trained, residual
        manifest = state.manifest
        self._tensors = [t for t in range(len(trained)) if manifest.stepped(t)]
        self.count = sum(len(state.weights[t]) for t in self._tensors)
        self.left = [np.empty_like(r) for r in residual]
        self.huge = set()
        self._magnitudes = self._sample()
        self._collect(max(1, int(density * self.count)), WIDER[0])

    def edge(self, k: int) -> float:
        """Return the k-th largest magnitude of all entries, 1 <= k <= count: exact, whatever the bar was guessed to be."""
        for wider in (*WIDER[1:], 0):
            if k <= len(self._d) or self._bar == 0.0:
                break
            self._collect(k, wider)
        return _core.kth_magnitude(self._d, k) if k <= len(self._d) else 0.0

    def least(self) -> float:
        """Return the smallest magnitude above 0, or 1 when that is smaller."""
        if self._bar > 0.0:
            self._collect(self.count, 0)
        return float(np.abs(self._d).min(initial=1.0))

    def snapped(self, t: int, *, step: int, threshold: float) -> tuple[U32, I32, int]:
        """Return what `_core.snap` gives for tensor t: index, value, and how many entries the lattice's range cut."""
        state, e = self._state, self._state.exponents[t]
        with naming(state.manifest.schema.tensors[t].name):
            if threshold < self._bar:  # a tensor of coarse units, where the step rounds down
                return _core.snap(
                    state.weights[t], self._trained[t], self._residual[t], state.integers[t], exponent=e, step=step, threshold=threshold
                )
            part = self._parts[t]
            return _core.quantise(state.integers[t], self._index[part], self._d[part], exponent=e, step=step, threshold=threshold)

    def _collect(self, k: int, wider: int) -> None:
        """Collect at a bar that k entries should reach; wider: 1, 4 for a bar lower than that, 0 for all entries but zeros."""
        self._bar = bar_of(self._magnitudes, wider * k / max(1, self.count)) if wider else 0.0
        room = min(self.count, 2 * wider * k + SAMPLE) if self._bar > 0.0 else self.count
        if not self._fill(room):
            self._fill(self.count)

    def _fill(self, room: int) -> bool:
        index, d = np.empty(room, np.uint32), np.empty(room, np.float32)
        self._parts, self.huge, end = {}, set(), 0
        schema = self._state.manifest.schema
        for t, new in enumerate(self._trained):
            if not self._state.manifest.stepped(t):
                bad = np.flatnonzero(~np.isfinite(new))
                if len(bad):
                    raise NonFinite(what="the trained model", tensor=schema.tensors[t].name, index=int(bad[0]))
                continue
            with naming(schema.tensors[t].name):
                kept = _core.collect(
                    self._state.weights[t], new, self._residual[t], self.left[t], index[end:], d[end:], least=self._bar
                )
            if kept is None:
                return False
            found, huge = kept
            self._parts[t] = slice(end, end + found)
            end += found
            if huge:
                self.huge.add(t)
        self._index, self._d = index[:end], d[:end]
        return True

    def _sample(self) -> F32:
        """Return the magnitudes of about SAMPLE entries, evenly spread: a fixed choice, so that nothing here hangs on chance."""
        stride = max(1, self.count // SAMPLE)
        parts = []
        for t in self._tensors:
            whole = len(self._trained[t]) // BLOCK * BLOCK
            w, new, r = (a[:whole].reshape(-1, BLOCK)[::stride] for a in (self._state.weights[t], self._trained[t], self._residual[t]))
            with np.errstate(all="ignore"):  # what is no number is refused by the pass itself
                parts.append(np.abs((new - w) + (r.astype(np.uint32) << 16).view(np.float32)).ravel())
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def bar_of(magnitudes: F32, density: float) -> float:
    """Return a magnitude that somewhat more than `density` of all entries reach, judged by a sample; 0 when it can't tell."""
    n = len(magnitudes)
    expected = density * n
    # Four deviations of a count, and a quarter on top because neighbours are alike: too low costs a little, too high a second pass.
    rank = math.ceil(1.25 * expected + 4 * math.sqrt(expected) + 1)
    if rank >= n:
        return 0.0
    bar = float(np.partition(magnitudes, n - rank)[n - rank])
    return bar if math.isfinite(bar) else 0.0
