"""The distance of two versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecloud.versions import comparing, materialise
from modelwire.errors import WrongBase
from modelwire.lattice.between import exact_sections
from modelwire.lattice.state import ModelState
from modelwire.tflite.file import read_weights
from modelwire.update.manifest import manifest_of
from modelwire.update.sections import Kind
from tests.edgecloud.centre import Centre, fleet_of
from tests.edgecloud.device import TINY, Base, ScriptedDevice

MOTION = TINY.parent / "motion.tflite"


def test_the_distance_of_two_versions_is_exact_in_lattice_units(grown: Centre, device: ScriptedDevice, base: Base) -> None:
    with fleet_of(grown.store) as fleet:
        pi = fleet.device("pi-7")
        a, b = pi.version(3), pi.version(8)
        found = a.diff(b)
        for t, tensor in enumerate(found.tensors):
            qa, qb = a.state().integers[t].astype(np.int64), b.state().integers[t].astype(np.int64)
            assert tensor.units == int(np.abs(qa - qb).sum())
            assert tensor.changed == np.count_nonzero(a.state().weights[t] != b.state().weights[t])
            w = a.state().weights[t].astype(np.float64) - b.state().weights[t]
            assert tensor.largest == np.abs(w).max() and tensor.l2 == np.linalg.norm(w)
        assert found.changed > 0 and found.same_base
        same = a.diff(a)
        assert (same.changed, same.largest, same.l2) == (0, 0.0, 0.0)
        assert [t.units for t in b.diff(a).tensors] == [t.units for t in found.tensors]


def test_units_that_were_widened_are_measured_on_the_finer_lattice(base: Base) -> None:
    one, other = materialise.ModelState.of_base(base.manifest, base.weights), materialise.ModelState.of_base(base.manifest, base.weights)
    one.integers[0][:] = [1, 2, -3]
    other.integers[0][:] = [1, 0, 4_000_000]
    other.exponents[0] += 60
    (first, *_) = comparing.distance(one, other).tensors
    assert first.units == abs(1 - 2**60) + 2 + 3 + 4_000_000 * 2**60


def test_versions_of_another_schema_can_not_be_compared(grown: Centre, base: Base, tmp_path: Path) -> None:
    motion = Base.of(MOTION)
    one, other = (materialise.LoadedBase(b.manifest, b.weights, b.parsed).state() for b in (base, motion))
    with pytest.raises(WrongBase):
        comparing.distance(one, other)


def test_exact_tensors_differ_in_entries_and_not_in_units() -> None:
    manifest = manifest_of(TINY.read_bytes(), exact=True)
    flat = manifest.schema.flat(read_weights(TINY.read_bytes()))
    one, other = ModelState.of_base(manifest, flat), ModelState.of_base(manifest, flat)
    other.apply(Kind.EXACT, exact_sections(other, [w * np.float32(1.5) for w in flat]))
    found = comparing.distance(one, other)
    assert found.changed == sum(np.count_nonzero(w) for w in flat) and found.largest > 0
    assert [(t.units, t.exponent) for t in found.tensors] == [(None, None)] * len(flat)
