"""Real processes over a real broker: a board that has trained goes back to each of its versions, root and served file."""

from __future__ import annotations

import pytest

from tests import broker
from tests.evidence.deploy import rollback

pytestmark = [
    pytest.mark.slow("lets an agent train, and asks it to go back to each of its versions", seconds=25),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]


def test_a_board_goes_back_to_each_of_its_versions() -> None:
    figures = rollback.measure(False)
    assert figures["rollbacks_exact"] == figures["rollbacks"] == rollback.VERSIONS
    assert 0 < float(figures["rollback_bytes_of_the_file_percent"]) < 50, "a delta, not the file"
