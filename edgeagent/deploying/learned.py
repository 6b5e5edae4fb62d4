"""What a board has learned on one base, brought over to another: kept integer for integer, carried by a snapped difference, or begun anew.

A pure function of two models. It computes in float64 with one rounding at each step and nothing else, so that it comes to the same bits on
every build, whichever kernels run.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelwire import limits, storage
from modelwire.errors import ModelWireError
from modelwire.lattice import narrow
from modelwire.lattice.candidates import Residual
from modelwire.lattice.snap import no_residual
from modelwire.lattice.state import ModelState
from modelwire.tensors import I32, Dtype, Held, TensorClass
from modelwire.update.manifest import CODE_MAX, class_of, peak_of, suits

KEPT, CARRIED, ANEW = "kept", "carried", "anew"
_MOST = {Dtype.FLOAT32: float(np.finfo(np.float32).max), Dtype.FLOAT16: 65504.0, Dtype.BFLOAT16: float.fromhex("0x1.fep127")}


class BroughtOver(NamedTuple):
    """One way in which what was learned goes on."""

    word: str  # kept, carried or anew
    state: ModelState
    residual: Residual


def brought_over(state: ModelState, residual: Residual, onto: ModelState) -> list[BroughtOver]:
    """Return the ways in which a model's learning goes on upon another base, the one that keeps most first; `anew` is the last.

    state: the model as it is, with its residual; onto: version 0 of the other base. None of them is changed, and none shares what moves.
    What gives no number, or meets no lattice, is left out. Other tensors than the base has begin anew.
    """
    anew = BroughtOver(ANEW, onto.at_base(), no_residual(onto.manifest))
    if state.manifest.schema.id != onto.manifest.schema.id or _untouched(state, residual):
        return [anew]
    for word, way in ((KEPT, _kept), (CARRIED, _carried)):
        try:
            found = way(state, onto)
        except ModelWireError:  # an entry is no number on this base
            continue
        if found is not None:
            return [BroughtOver(word, found, [r.copy() for r in residual] if word == KEPT else no_residual(onto.manifest)), anew]
    return [anew]


def _untouched(state: ModelState, residual: Residual) -> bool:
    return not any(r.any() for r in residual) and all(w.tobytes() == b.tobytes() for w, b in zip(state.weights, state.base, strict=True))


def _kept(state: ModelState, onto: ModelState) -> ModelState | None:
    """Return the other base with the same integers in the same units; None where it has other classes or units, or no such sums.

    Exact tensors have no units: they are kept where the base has the same bits in them, or nothing was learned in them.
    """
    before, after = state.manifest, onto.manifest
    if before.classes != after.classes:
        return None
    weights, integers = list[Held](), {}
    for t, spec in enumerate(after.schema.tensors):
        base, w, q, e = onto.base[t], state.weights[t], state.integers[t], state.exponents[t]
        if after.lattice(t):
            if after.exponents[t] not in (e, before.exponents[t]) or not suits(peak_of(base), e, spec.dtype):
                return None
            integers[t] = q
            weights.append(narrow.sums(spec.dtype, base, q, e))
        elif base.tobytes() == state.base[t].tobytes():
            weights.append(w.copy())
        elif w.tobytes() == state.base[t].tobytes():
            weights.append(base.copy())
        elif after.verbatim(t):
            moved = (base.view(np.uint32) + q.view(np.uint32)).view(base.dtype)
            if spec.dtype is not Dtype.INT32 and not _sane(moved, base, w):
                return None
            weights.append(moved)
        else:
            return None
    kept = {t: integers[t] for t in after.kept}
    return ModelState.of_weights(after, onto.base, weights, _units(state, onto), kept)


def _units(state: ModelState, onto: ModelState) -> list[int]:
    return [state.exponents[t] if onto.manifest.lattice(t) else 0 for t in range(len(state.exponents))]


def _sane(moved: Held, base: Held, w: Held) -> bool:
    """Return whether a statistic that was moved by its bits is one: a number, and not negative where both that it came of are not."""
    negative = (moved < 0) & (base >= 0) & (w >= 0)
    return bool(np.isfinite(moved).all() and not negative.any())


def _carried(state: ModelState, onto: ModelState) -> ModelState | None:
    """Return the other base moved by what the board's weights are apart from their own, snapped to the other's units.

    Statistics stay the other base's. None where nothing of it moves anything there.
    """
    after = onto.manifest
    weights, integers = list[Held](), {}
    for t, spec in enumerate(after.schema.tensors):
        base = onto.base[t]
        learns = after.lattice(t) or (after.exact(t) and class_of(spec, 0.0) is TensorClass.LATTICE)
        if not learns or state.manifest.verbatim(t):
            weights.append(base.copy())
            integers[t] = np.zeros(len(base), np.int32)
            continue
        apart = state.weights[t].astype(np.float64) - state.base[t].astype(np.float64)
        if after.lattice(t):
            integers[t] = _snapped(spec.dtype, base, apart, after.exponents[t])
            weights.append(narrow.sums(spec.dtype, base, integers[t], after.exponents[t]))
        else:
            weights.append(_added(spec.dtype, base, apart))
    if all(w.tobytes() == b.tobytes() for w, b in zip(weights, onto.base, strict=True)):
        return None
    return ModelState.of_weights(after, onto.base, weights, after.exponents, {t: integers[t] for t in after.kept})


def _snapped(dtype: Dtype, base: Held, apart: NDArray[np.float64], exponent: int) -> I32:
    """Return Q of the nearest points of a lattice, within its range and the type's."""
    start = base.astype(np.float64)
    most = float(CODE_MAX) if dtype is Dtype.INT8 else _MOST[dtype]
    unit = math.ldexp(1.0, exponent)
    lowest, highest = np.ceil((-most - start) / unit), np.floor((most - start) / unit)  # a power of two: exact
    q = np.clip(np.rint(apart / unit), -float(limits.Q_MAX), float(limits.Q_MAX))
    integers: I32 = np.clip(q, lowest, highest).astype(np.int32)
    return integers


def _added(dtype: Dtype, base: Held, apart: NDArray[np.float64]) -> Held:
    """Return base + apart as an exact tensor's type stores it, within its range."""
    least, most = (-128.0, 127.0) if dtype is Dtype.INT8 else (-_MOST[dtype], _MOST[dtype])
    total = np.clip(base.astype(np.float64) + apart, least, most)
    if dtype is Dtype.INT8:
        return np.rint(total).astype(np.int8).astype(np.float32)  # codes have no -0.0
    return total.astype(np.float32) if dtype is Dtype.FLOAT32 else storage.rounded(dtype, total.astype(np.float32))
