"""The update between two states of one base, or between a state and weights: what takes a model there, whatever lies between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwire.errors import Malformed, WrongBase
from modelwire.tensors import Held
from modelwire.update.sections import AnySection, Sections, section_of, verbatim_section

from . import exact
from .state import ModelState


def difference(before: ModelState, after: ModelState) -> Sections:
    """Return the delta (the exact update, where all tensors are) from `before` to `after`; empty when they are equal.

    Raises WrongBase for states of two bases, Malformed where a unit differs: only a snapshot changes units.
    """
    manifest = before.manifest
    if after.manifest.commit != manifest.commit:
        raise WrongBase(what="the second state", kind="base", expected=manifest.commit.hex()[:16], got=after.manifest.commit.hex()[:16])
    out: list[AnySection | None] = []
    for t, spec in enumerate(manifest.schema.tensors):
        if manifest.exact(t):
            out.append(exact.section_of(t, spec, before.weights[t], after.weights[t]))
        elif manifest.verbatim(t):
            out.append(verbatim_section(t, (after.integers[t].view(np.uint32) - before.integers[t].view(np.uint32)).view(np.int32)))
        elif before.exponents[t] != after.exponents[t]:
            raise Malformed(what="difference", reason=f"tensor {spec.name} has unit 2^{before.exponents[t]} and 2^{after.exponents[t]}")
        else:
            dq = after.integers[t].astype(np.int64) - before.integers[t]
            out.append(section_of(t, dq, before.exponents[t]))
    return tuple(s for s in out if s is not None)


def exact_sections(state: ModelState, weights: Sequence[Held]) -> Sections:
    """Return the exact update that moves `state` to `weights`, bit for bit.

    weights: flat arrays in schema order, held as their types are. Raises WrongBase unless all tensors of the base are exact,
    NonFinite for a weight that is no number, Malformed for one that its storage type does not have.
    """
    manifest = state.manifest
    if not manifest.all_exact:
        raise WrongBase(what="an exact update", kind="class", expected="a base whose tensors are all exact", got="one on the lattice")
    moved = (exact.section_of(t, spec, state.weights[t], weights[t]) for t, spec in enumerate(manifest.schema.tensors))
    return tuple(s for s in moved if s is not None)
