"""Sections have one form: steps are the largest common ones, and an empty section says something."""

from __future__ import annotations

import numpy as np
import pytest

from modelwire.errors import Malformed, RootMismatch
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.update.container import parse
from modelwire.update.sections import Kind, section_of, split_step
from tests.modelwire.models import bits, empty, model, sealed


def test_a_snapshots_empty_section_says_another_unit_or_is_refused() -> None:
    manifest, base = model(0)
    state = ModelState.of_base(manifest, base)
    for section in (empty(0, 0), empty(1, manifest.exponents[1])):
        container = parse(sealed(state, (section,), kind=Kind.SNAPSHOT))
        with pytest.raises(Malformed, match="says nothing"):
            rebuild(state, container)
    other = state.copy()
    other.exponents[1] = -3
    assert other.root != state.root  # the root binds the units
    with pytest.raises(RootMismatch):
        rebuild(state, parse(sealed(state, (empty(1, -3),), kind=Kind.SNAPSHOT)))
    after = rebuild(state, parse(sealed(other, (empty(1, -3),), kind=Kind.SNAPSHOT)))
    assert after.exponents[1] == -3 and bits(after) == bits(state)


@pytest.mark.parametrize(("common", "step"), [(1, 1), (2, 2), (255, 255), (257, 1), (771, 3), (257 * 5 << 4, 5 << 4), (1 << 22, 1 << 22)])
def test_a_section_carries_the_largest_common_step_that_the_wire_can_say(common: int, step: int) -> None:
    section = section_of(0, np.array([common, 0, -2 * common], np.int64), 0)
    assert section is not None and section.step == step
    assert section.dq.tolist() == [common, -2 * common]


def test_a_step_has_one_form() -> None:
    assert split_step(255) == (255, 0)
    assert split_step(96) == (3, 5)
    assert split_step(1 << 22) == (1, 22)
    for bad in (0, -1, 257, 511, 1 << 23):
        with pytest.raises(Malformed):
            split_step(bad)
