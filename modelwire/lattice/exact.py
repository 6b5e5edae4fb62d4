"""Exact tensors of a model: what a device sends that trains freely and adopts nothing, and what a reader makes of it.

Q of an exact entry is ordered(w) - ordered(base) mod 2^width. It always follows from the two, so no state keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from modelwire import _core, storage
from modelwire.tensors import Dtype, Held, Stored, TensorSpec
from modelwire.update import planes
from modelwire.update.sections import PlaneSection

from .lanes import Fingerprint, plus


def section_of(tensor: int, spec: TensorSpec, before: Held, after: Held) -> PlaneSection | None:
    """Return what moves one tensor from `before` to `after`, None where they are the same to the bit. Raises as `bits` of storage.py."""
    data = planes.encode(storage.bits(spec.dtype, after), storage.bits(spec.dtype, before), spec.dtype.infinity)
    return PlaneSection(tensor, spec.dtype, spec.size, data) if data else None


def look(spec: TensorSpec, section: PlaneSection, held: Held, start: int) -> Fingerprint:
    """Return what `put` would add to the fingerprint, having checked all that it could refuse. start: global index of entry 0.

    Raises Malformed or NonFinite.
    """
    lanes = (0, 0)
    for block in planes.blocks(section.planes, spec.size, spec.dtype.width):
        before = storage.bits(spec.dtype, held[block.start : block.start + block.entries])
        after = np.empty_like(before)
        planes.join_block(block, before, after, spec.dtype.infinity)
        lanes = plus(lanes, _lanes(spec.dtype, after, before, start + block.start))
    return lanes


def put(spec: TensorSpec, section: PlaneSection, held: Held) -> None:
    """Move a tensor by planes that `look` has taken. Raises what `look` does; the tensor then means nothing."""
    for block in planes.blocks(section.planes, spec.size, spec.dtype.width):
        part = held[block.start : block.start + block.entries]
        stored = storage.bits(spec.dtype, part)
        planes.join_block(block, stored, stored, spec.dtype.infinity)
        storage.put_bits(spec.dtype, stored, part)


def lanes_between(spec: TensorSpec, base: Held, held: Held, start: int) -> Fingerprint:
    """Return the fingerprint of one tensor, from base and weights."""
    lanes = (0, 0)
    for part in _parts(spec.size):
        now, before = storage.bits(spec.dtype, held[part]), storage.bits(spec.dtype, base[part])
        lanes = plus(lanes, _lanes(spec.dtype, now, before, start + part.start))
    return lanes


def lanes_of(section: PlaneSection, start: int) -> Fingerprint:
    """Return what differences add to a fingerprint. Raises Malformed."""
    stored = planes.differences(section.planes, section.entries, section.dtype)
    return _lanes(section.dtype, stored, np.zeros_like(stored), start, infinity=0)


def _lanes(dtype: Dtype, after: Stored, before: Stored, start: int, *, infinity: int | None = None) -> Fingerprint:
    d = np.empty(len(after), np.int32)
    _core.ordered_differences(after, before, d, infinity=dtype.infinity if infinity is None else infinity)
    # Aligned to the left, differences of 8 and 16 bits count mod 2^8 and 2^16 in what counts mod 2^32 anyway.
    return _core.fingerprint(d, start=start, verbatim=True)


def _parts(size: int) -> Iterator[slice]:
    for start in range(0, size, planes.BLOCK):
        yield slice(start, min(size, start + planes.BLOCK))
