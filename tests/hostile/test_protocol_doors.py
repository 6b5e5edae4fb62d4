"""Whatever comes in on the protocol, a reader gives a value or a named error, and never proves what was not said."""

from __future__ import annotations

import random

import pytest

from modelwire.errors import ModelWireError
from modelwire.wire import records
from tests.hostile import fuzz_door
from tests.hostile.protocol_doors import DOORS, changed, inputs, record_seeds, resigned
from tests.modelwire.wire.examples import EXAMPLES

RUNS = 1500


@pytest.mark.parametrize("door", DOORS)
def test_nothing_but_named_errors_comes_out_of_a_door(door: str) -> None:
    target = DOORS[door][0]
    for data in inputs(door, RUNS, 1):
        target(data)


def test_the_changes_reach_behind_the_signature() -> None:
    """Of the changed records some are taken, of many kinds, and most are not: else the doors would show nothing."""
    rng, kinds, refused = random.Random(2), set(), 0
    seeds = record_seeds()
    for _ in range(RUNS):
        try:
            kinds.add(records.parse(resigned(changed(rng, seeds)[:-64])).record.KIND)
        except ModelWireError:
            refused += 1
    assert kinds >= {record.KIND for record in EXAMPLES} - {"act"} and refused > RUNS // 3


def test_the_doors_are_fuzzed_with_the_others() -> None:
    assert {name: (door.target, door.seeds) for name, door in fuzz_door.DOORS.items() if name in DOORS} == {
        name: door[:2] for name, door in DOORS.items()
    }
