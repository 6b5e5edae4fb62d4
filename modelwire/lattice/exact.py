"""Exact tensors of a model: what a device sends that trains freely and adopts nothing, and what a reader makes of it.

Q of an exact entry is ordered(w) - ordered(base) mod 2^width. It always follows from the two, so no state keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from modelwire import _core, storage
from modelwire.errors import Malformed, WrongBase
from modelwire.tensors import Dtype, Held, Schema, Stored, TensorSpec
from modelwire.update import planes
from modelwire.update.sections import Kind, PlaneSection, Sections

if TYPE_CHECKING:
    from .state import ModelState

Lanes = tuple[int, int]
_LANE = 0xFFFFFFFFFFFFFFFF


def exact_update(state: ModelState, weights: Sequence[Held]) -> tuple[Kind, Sections, ModelState]:
    """Return (kind, sections, state) of the update that moves `state` to `weights`, bit for bit; `state` is left as it was.

    weights: flat arrays in schema order, held as their types are. Raises WrongBase unless all tensors of the base are exact,
    NonFinite for a weight that is no number, Malformed for one that its storage type does not have.
    """
    sections = exact_sections(state, weights)
    after = state.copy()
    after.apply(Kind.EXACT, sections)
    return Kind.EXACT, sections, after


def exact_sections(state: ModelState, weights: Sequence[Held]) -> Sections:
    """Return what moves `state` to `weights`. Raises as `exact_update`."""
    manifest = state.manifest
    if not manifest.all_exact:
        raise WrongBase(what="an exact update", kind="class", expected="a base whose tensors are all exact", got="one on the lattice")
    return tuple(
        s for t, spec in enumerate(manifest.schema.tensors) if (s := section_of(t, spec, state.weights[t], weights[t])) is not None
    )


def section_of(tensor: int, spec: TensorSpec, before: Held, after: Held) -> PlaneSection | None:
    """Return what moves one tensor from `before` to `after`, None where they are the same to the bit. Raises as `exact_update`."""
    data = planes.encode(storage.bits(spec.dtype, after), storage.bits(spec.dtype, before), spec.dtype.infinity)
    return PlaneSection(tensor, spec.dtype, spec.size, data) if data else None


def raw_section(tensor: int, spec: TensorSpec, held: Held) -> PlaneSection:
    """Return one tensor whole, readable without its base. Raises as `exact_update`."""
    data = planes.encode(storage.bits(spec.dtype, held), None, spec.dtype.infinity, always=True)
    return PlaneSection(tensor, spec.dtype, spec.size, data, raw=True)


def raw_weights(sections: Sections, schema: Schema) -> list[Held]:
    """Return the weights of a snapshot whose tensors are all there as raw planes: no base is needed. Raises Malformed, NonFinite."""
    found = {s.tensor: s for s in sections if isinstance(s, PlaneSection) and s.raw}
    flat: list[Held] = []
    for t, spec in enumerate(schema.tensors):
        if t not in found:
            raise Malformed(what="snapshot", reason=f"tensor {spec.name} can't be read without the base")
        flat.append(np.zeros(spec.size, spec.dtype.held))
        put(spec, found[t], flat[t])
    return flat


def look(spec: TensorSpec, section: PlaneSection, held: Held, start: int) -> Lanes:
    """Return what `put` would add to the fingerprint, having checked all that it could refuse. start: global index of entry 0.

    Of raw planes: what they are more than `held`, which is the base then. Raises Malformed or NonFinite.
    """
    lanes = (0, 0)
    for block in planes.blocks(section.planes, spec.size, spec.dtype.width):
        before = storage.bits(spec.dtype, held[block.start : block.start + block.entries])
        after = np.empty_like(before)
        planes.join_block(block, None if section.raw else before, after, spec.dtype.infinity)
        lanes = plus(lanes, _lanes(spec.dtype, after, before, start + block.start))
    return lanes


def put(spec: TensorSpec, section: PlaneSection, held: Held) -> None:
    """Move a tensor by planes that `look` has taken. Raises what `look` does; the tensor then means nothing."""
    for block in planes.blocks(section.planes, spec.size, spec.dtype.width):
        part = held[block.start : block.start + block.entries]
        stored = storage.bits(spec.dtype, part)
        planes.join_block(block, None if section.raw else stored, stored, spec.dtype.infinity)
        storage.put_bits(spec.dtype, stored, part)


def lanes_between(spec: TensorSpec, base: Held, held: Held, start: int) -> Lanes:
    """Return the fingerprint of one tensor, from base and weights."""
    lanes = (0, 0)
    for part in _parts(spec.size):
        now, before = storage.bits(spec.dtype, held[part]), storage.bits(spec.dtype, base[part])
        lanes = plus(lanes, _lanes(spec.dtype, now, before, start + part.start))
    return lanes


def lanes_of(section: PlaneSection, start: int) -> Lanes:
    """Return what differences add to a fingerprint. Raises Malformed, for raw planes too: theirs hangs on the base."""
    if section.raw:
        raise Malformed(what="planes", reason=f"tensor {section.tensor} has raw planes, whose fingerprint hangs on the base")
    stored = planes.differences(section.planes, section.entries, section.dtype)
    return _lanes(section.dtype, stored, np.zeros_like(stored), start, infinity=0)


def plus(a: Lanes, b: Lanes) -> Lanes:
    return (a[0] + b[0]) & _LANE, (a[1] + b[1]) & _LANE


def minus(a: Lanes, b: Lanes) -> Lanes:
    return (a[0] - b[0]) & _LANE, (a[1] - b[1]) & _LANE


def _lanes(dtype: Dtype, after: Stored, before: Stored, start: int, *, infinity: int | None = None) -> Lanes:
    d = np.empty(len(after), np.int32)
    _core.ordered_differences(after, before, d, infinity=dtype.infinity if infinity is None else infinity)
    # Aligned to the left, differences of 8 and 16 bits count mod 2^8 and 2^16 in what counts mod 2^32 anyway.
    return _core.fingerprint(d, start=start, verbatim=True)


def _parts(size: int) -> Iterator[slice]:
    for at in range(0, size, planes.BLOCK):
        yield slice(at, min(size, at + planes.BLOCK))
