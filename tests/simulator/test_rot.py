"""One bit that flips anywhere in what the centre keeps: every version is exact, or the centre says by name what is wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.thinning import Thinner
from edgecloud.registry import open_registry
from tests.simulator.rot import flipped, rot
from tests.simulator.small_fleet import NOW, small_fleet
from tests.simulator.works import compact, set_policy


@pytest.mark.slow("looks at a registry after each flip", seconds=6)
@pytest.mark.parametrize("policy", ["all", "last 4"])
def test_no_flip_of_a_bit_goes_unsaid(tmp_path: Path, policy: str) -> None:
    fleet = small_fleet(tmp_path, devices=1, versions=18)
    store = open_registry(fleet.path, synchronous="OFF")
    compact(Compactor(store, clock=lambda: NOW, settle=0, behind=1))
    set_policy(store, policy, NOW)
    Thinner(store, clock=lambda: NOW).run()
    store.close()
    found = rot(fleet.path, tmp_path / "rot", fleet, 60, seed=14)
    assert found.silent == []
    assert sum(found.named.values()) > 20, "it damages something, or this shows nothing"


def test_a_flip_changes_one_bit() -> None:
    data = bytes(range(50))
    changed = flipped(data, Random(1))
    assert sum((a ^ b).bit_count() for a, b in zip(data, changed, strict=True)) == 1
