"""Rebuilding a version from its container and what it stands on (container page, Applying)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from . import coder, planes
from .container import CODER, DELTA, EXACT, PLANES, RECIPE, SNAPSHOT, Container, Row
from .errors import IndexOutOfRange, Malformed, ReplayMismatch, RootMismatch, WrongBase
from .manifest import EXACT as EXACT_CLASS
from .manifest import INT8, LATTICE, VERBATIM, Array, Tensor
from .replay import replay
from .state import State, least_exponent, weights_of


def _start(update: Container, parent: State, bases: Iterable[State]) -> State:
    """Find the state that an update's differences count from (C86 to C88)."""
    start = parent
    if update.header.kind == SNAPSHOT:
        held = [base for base in bases if base.manifest.commit == update.header.base]
        if not held:
            raise WrongBase("C86: a base that is not held")
        start = held[0].at_base()
    if start.manifest.schema_id != update.header.schema_id:
        raise WrongBase("C87: another schema")
    exact = start.manifest.all_exact
    if (update.header.kind == DELTA and exact) or (update.header.kind == EXACT and not exact):
        raise Malformed("C88: a kind that the base does not take")
    return start


def _snapshot_units(rows: Iterable[Row], start: State) -> list[int]:
    """Give the units after a snapshot (pass 1: C75 to C77); rows of exact tensors, and of none, are passed over."""
    units = list(start.units)
    for row in rows:
        if row.tensor >= len(units) or start.manifest.tensors[row.tensor].klass == EXACT_CLASS:
            continue
        t = start.manifest.tensors[row.tensor]
        if t.klass == LATTICE and t.is_float and row.exponent < least_exponent(t, start.base[row.tensor]):
            raise Malformed("C75: exponent too small for the peak")
        if t.klass == LATTICE and t.type == INT8 and row.exponent != 0:
            raise Malformed("C76: exponent of int8")
        if row.count == 0 and row.exponent == t.e:
            raise Malformed("C77: a row that says nothing")
        units[row.tensor] = row.exponent
    return units


def _tensor(row: Row, start: State) -> Tensor:
    """Find a row's tensor (C69)."""
    if row.tensor >= len(start.manifest.tensors):
        raise IndexOutOfRange("C69: tensor number")
    return start.manifest.tensors[row.tensor]


def _check_classes(update: Container, start: State) -> None:
    """Check codecs against classes (pass 3: C71, C72); rows of tensors that there are not wait for pass 5."""
    for row in update.rows:
        if row.tensor >= len(start.manifest.tensors):
            continue
        exact = start.manifest.tensors[row.tensor].klass == EXACT_CLASS
        if row.codec == CODER and exact:
            raise Malformed("C71: range coder for an exact tensor")
        if row.codec == PLANES and not exact:
            raise Malformed("C72: planes for a tensor that is not exact")


def _check_coded(update: Container, start: State) -> None:
    """Check the rows of the range coder (pass 5: C69, C70, C73, C74)."""
    for row in update.rows:
        if row.codec != CODER:
            continue
        t = _tensor(row, start)
        if row.count > t.size:
            raise IndexOutOfRange("C70: count")
        if t.klass == VERBATIM and (row.m, row.j, row.exponent) != (1, 0, 0):
            raise Malformed("C73: step of a verbatim tensor")
        lattice_delta = update.header.kind != SNAPSHOT and t.klass == LATTICE
        if lattice_delta and row.exponent != start.units[row.tensor]:
            raise Malformed("C74: another exponent than the parent's")


def _filled(split: list[planes.Block], n: int, start: State) -> Array:
    """Give d of an exact tensor, each block looked at before the next one is unpacked (pass 4: C95 to C100)."""
    t = start.manifest.tensors[n]
    parts: list[Array] = []
    at = 0
    for d in planes.fill(split, t):
        end = at + d.size
        weights_of(t, start.base[n][at:end], (start.q[n][at:end] + d) % t.modulus, 0)
        parts.append(d)
        at = end
    return np.concatenate(parts)


def _content(update: Container, start: State) -> dict[int, Array]:
    """Read planes and stream into dQ of each tensor (passes 2 to 6)."""
    tensors = start.manifest.tensors
    out: dict[int, Array] = {}
    at = len(update.body) - sum(row.count for row in update.rows if row.codec == PLANES)
    stream = update.body[:at]
    blocks: dict[int, list[planes.Block]] = {}
    for row in update.rows:
        if row.codec == PLANES:
            blocks[row.tensor] = planes.split(update.body[at : at + row.count], _tensor(row, start))
            at += row.count
    _check_classes(update, start)
    for n, split in blocks.items():
        out[n] = _filled(split, n, start)
    _check_coded(update, start)
    coded = [row for row in update.rows if row.codec == CODER]
    shapes = [(*tensors[row.tensor].matrix, row.count) for row in coded]
    for row, section in zip(coded, coder.decode(stream, shapes), strict=True):
        dq = np.zeros(tensors[row.tensor].size, np.int64)
        dq[section.index] = np.array(section.value, np.int64) * row.step
        out[row.tensor] = dq
    return out


def rebuild(update: Container, parent: State, bases: Iterable[State], prove_checkpoints: bool = False) -> State:
    """Give the version that an update makes of its parent (reading order: the passes of step 8, then step 9)."""
    start = _start(update, parent, bases)
    mismatch: type[RootMismatch] = RootMismatch
    if update.header.kind == RECIPE:
        mismatch = ReplayMismatch
        state = replay(update.body, start, prove_checkpoints)
    else:
        units = _snapshot_units(update.rows, start) if update.header.kind == SNAPSHOT else None
        state = start.moved(_content(update, start), units)
    state.prove()
    if state.fingerprint != update.header.fingerprint:
        raise mismatch("C105, of a recipe C106: another fingerprint")
    if state.root != update.header.root:
        raise mismatch("C106: another root")
    return state
