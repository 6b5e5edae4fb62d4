"""A board that lost its disk gets its last models back to the bit, however often it and the centre are killed on the way."""

from __future__ import annotations

import pytest

from tests import broker
from tests.system.fleet import Fleet
from tests.system.last_model import bring_back

pytestmark = [
    pytest.mark.slow("starts and kills a fleet of processes", seconds=30),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]


@pytest.mark.parametrize("exact", [False, True], ids=["on the lattice", "exact"])
def test_a_board_set_up_anew_with_a_new_key_gets_both_its_models_back(fleet: Fleet, exact: bool) -> None:
    came = bring_back(fleet, exact=exact)
    assert came.to_the_bit and came.exact and came.in_parts, came
