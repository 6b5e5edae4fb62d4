"""A small crowd at the shipped broker: through a killed ingester and a killed broker all is receipted, and both lists are equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import broker
from tests.evidence.lost.crowd import Trial

COUNT = 12


@pytest.mark.slow("kills a broker and an ingester under a crowd of links, and waits until those are stable", seconds=30)
@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
@pytest.mark.timeout(900)
def test_a_crowd_is_receipted_to_the_last_update(tmp_path: Path) -> None:
    figures = Trial(tmp_path, COUNT).figures()
    assert (figures["connections"], figures["crowd_updates"]) == (COUNT, 5 * COUNT)
    assert [figures[f"crowd_{what}"] for what in ("lost", "doubled", "diverged")] == [0, 0, 0]
    assert int(figures["storm_connections"]) >= COUNT
