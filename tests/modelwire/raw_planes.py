"""Raw planes: what every reader takes and no device writes. Here are a writer, for golden vectors and attacks, and their whole weights."""

from __future__ import annotations

import numpy as np

from modelwire import storage
from modelwire.errors import Malformed
from modelwire.lattice.exact import put
from modelwire.lattice.state import ModelState
from modelwire.tensors import Held, Schema, TensorSpec
from modelwire.update import planes
from modelwire.update.sections import PlaneSection, Sections


def raw_snapshot(state: ModelState) -> Sections:
    """Return the whole state as sections that need no base to be read."""
    return tuple(raw_section(t, spec, state.weights[t]) for t, spec in enumerate(state.manifest.schema.tensors))


def raw_section(tensor: int, spec: TensorSpec, held: Held) -> PlaneSection:
    """Return one tensor whole, readable without its base. Raises as `planes.encode` and `storage.bits`."""
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
