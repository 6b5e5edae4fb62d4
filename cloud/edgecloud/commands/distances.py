"""How far two versions' weights are apart, as `diff` and `compare` say it."""

from __future__ import annotations

from edgecloud.versions import comparing

from .answer import Document


def described(apart: comparing.Distance) -> Document:
    """Return the distance of two versions' weights as JSON holds it."""
    tensors: list[Document] = [
        {"tensor": t.name, "entries": t.entries, "changed": t.changed, "units": t.units, "exponent": t.exponent,
         "max_abs": t.largest, "l2": t.l2, "relative": t.relative, "leaves": t.leaves, "leaves_changed": t.leaves_changed}
        for t in apart.tensors
    ]  # fmt: skip
    return {
        "entries": apart.entries, "changed": apart.changed, "max_abs": apart.largest, "l2": apart.l2, "leaves": apart.leaves,
        "leaves_changed": apart.leaves_changed, "tensors": tensors,
    }  # fmt: skip


def units(t: comparing.TensorDistance) -> str:
    """Return a distance on the lattice, in words."""
    return "" if t.units is None else f"{t.units} * 2^{t.exponent}"


def share(value: float | None) -> str:
    """Return a share of a norm, in words."""
    return "of nothing" if value is None else f"{value:.3g}"
