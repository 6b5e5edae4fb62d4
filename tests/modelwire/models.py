"""Small models with every awkward value, for tests of the lattice and the wire."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwire.lattice.between import exact_sections
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32, Held, Schema, TensorSpec
from modelwire.update.container import seal
from modelwire.update.header import Header
from modelwire.update.manifest import Manifest, manifest_for
from modelwire.update.sections import Kind, Section, Sections
from modelwire.wire import signing
from tests.keys import FLEET_ID, NO_FILE

KEY = signing.PrivateKey(bytes(range(32)))


def awkward(rng: np.random.Generator, n: int, peak: float) -> F32:
    """Return n weights up to `peak` with -0.0, 0.0, subnormals and the least float among them."""
    w = (rng.standard_normal(n) * peak / 4).clip(-peak, peak).astype(np.float32)
    special = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-39, -1.17e-38, 1.1754944e-38], np.float32)
    at = rng.random(n) < 0.2
    w[at] = rng.choice(special, int(at.sum()))
    if n:
        w[0] = peak
    return w


def model(seed: int = 0, peak: float = 1.0) -> tuple[Manifest, list[F32]]:
    """Return a base of four tensors: kernel, bias, all zeros, and a running variance (verbatim)."""
    rng = np.random.default_rng(seed)
    schema = Schema(
        (
            TensorSpec("bn_moving_variance", (12,)),
            TensorSpec("dense_bias", (40,)),
            TensorSpec("dense_kernel", (37, 40)),
            TensorSpec("zeros", (8, 5)),
        )
    )
    base = [
        rng.random(12).astype(np.float32) + np.float32(0.5),
        awkward(rng, 40, peak),
        awkward(rng, 37 * 40, peak),
        np.zeros(40, np.float32),
    ]
    return manifest_for(schema, base, **NO_FILE, exponents={}), base


def exact_update(state: ModelState, weights: Sequence[Held]) -> tuple[Kind, Sections, ModelState]:
    """Return (kind, sections, state) of the update that moves `state` to `weights`, bit for bit; `state` is left as it was."""
    sections = exact_sections(state, weights)
    after = state.copy()
    after.apply(Kind.EXACT, sections)
    return Kind.EXACT, sections, after


def sealed(
    state: ModelState,
    sections: tuple[Section, ...],
    *,
    kind: Kind = Kind.DELTA,
    version: int = 1,
    parent: bytes | None = None,
    device: str = "pi-7",
    **header: object,
) -> bytes:
    """Return the signed container that leads to `state`."""
    manifest = state.manifest
    fields: dict[str, object] = {
        "kind": kind,
        "device": device,
        "model": "digits",
        "epoch": 1,
        "version": version,
        "parent": parent or manifest.commit,
        "schema_id": manifest.schema.id,
        "root": state.root,
        "fingerprint": state.fingerprint,
        "base": manifest.commit if kind is Kind.SNAPSHOT else b"",
    }
    return seal(Header(**{**fields, **header}), sections, manifest.schema, KEY, FLEET_ID).data  # type: ignore[arg-type]


def flat(values: Sequence[float], *, e: int | None = None, name: str = "w") -> ModelState:
    """Return the base of one tensor with these weights, in the unit 2^e or the default one."""
    schema = Schema((TensorSpec(name, (len(values),)),))
    base = [np.array(values, np.float32)]
    exponents = {} if e is None else {name: e}
    return ModelState.of_base(manifest_for(schema, base, **NO_FILE, exponents=exponents), base)


def empty(tensor: int, exponent: int) -> Section:
    return Section(tensor, np.zeros(0, np.uint32), np.zeros(0, np.int32), 1, exponent)


def bits(state: ModelState) -> bytes:
    return b"".join(w.tobytes() for w in state.weights)


def noisy(state: ModelState, seed: int, scale: float) -> list[F32]:
    """Return weights as a training round might leave them."""
    rng = np.random.default_rng(seed)
    out = []
    for t, w in enumerate(state.weights):
        size = scale * float(np.abs(state.base[t]).max(initial=0.0) or 1.0)
        noise = rng.standard_normal(len(w)) * size * (rng.random(len(w)) < 0.5)
        moved = (w.astype(np.float64) + noise).astype(np.float32)
        out.append(np.abs(moved) + np.float32(1e-3) if state.manifest.verbatim(t) else moved)
    return out
