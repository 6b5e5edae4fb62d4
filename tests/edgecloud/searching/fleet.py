"""A small fleet of tiny nets whose nearest versions are known: two devices that went together, one far away, one on another base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelwire.tflite.file import parse_trainable, read_weights, write_weights
from modelwire.update.sections import AnySection, Kind, section_of
from tests.edgecloud.centre import Centre, add_base, make_registry
from tests.edgecloud.device import TINY, Base, ScriptedDevice, Sent

DEVICES = ("pi-1", "pi-2", "pi-3", "pi-4")


def other_base() -> Base:
    """Return a base of the same tensors as the tiny one, with other weights."""
    file = TINY.read_bytes()
    weights = {name: w + np.float32(1.0) for name, w in read_weights(parse_trainable(file)).items()}
    return Base(write_weights(file, weights))


def moved(device: ScriptedDevice, units: dict[int, int]) -> Sent:
    """Return the device's next delta: so many units at some of the first entries of its largest tensor."""
    specs = device.base.manifest.schema.tensors
    largest = max(range(len(specs)), key=lambda t: specs[t].size)
    q = np.zeros(specs[largest].size, np.int64)
    q[list(units)] = list(units.values())
    return _sealed(device, [section_of(largest, q, device.state.exponents[largest])])


def drawn(device: ScriptedDevice, seed: int) -> Sent:
    """Return the device's next delta: a unit or two at some entries of each tensor on the lattice, whatever its type."""
    rng, sections = np.random.default_rng(seed), list[AnySection | None]()
    for t, spec in enumerate(device.base.manifest.schema.tensors):
        if device.base.manifest.lattice(t):
            sections.append(section_of(t, rng.integers(-2, 3, spec.size) * (rng.random(spec.size) < 0.3), device.state.exponents[t]))
    return _sealed(device, sections)


def _sealed(device: ScriptedDevice, sections: Sequence[AnySection | None]) -> Sent:
    said = tuple(one for one in sections if one is not None)
    device.state.apply(Kind.DELTA, said)
    return device.seal(Kind.DELTA, said)


def planted(path: Path) -> tuple[Centre, dict[str, ScriptedDevice]]:
    """Return a centre with the fleet, everything verified: pi-1 and pi-2 a unit apart, pi-3 far from both, pi-4 on another base."""
    base, other = Base.of(), other_base()
    centre = Centre(make_registry(path, base))
    add_base(centre.store, other, "tall")
    out = {}
    for n, name in enumerate(DEVICES):
        device = centre.meet(ScriptedDevice(base if n < 3 else other, name))
        far = 60 if name == "pi-3" else 2 * n
        centre.deliver(device, moved(device, {0: 100 + far}), moved(device, {1: 50 - far, 2: 7}), moved(device, {3: 2 + n}))
        out[name] = device
    assert all(one.ok for one in centre.rebuild())
    return centre, out
