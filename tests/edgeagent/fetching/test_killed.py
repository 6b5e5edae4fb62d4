"""A file on its way through kills of real processes: the board, the file server, the ingester."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import broker
from tests.evidence.deploy.fetching import at_nothing, in_parts, over_http

pytestmark = [
    pytest.mark.slow("starts and kills boards, a file server and an ingester", seconds=15),
    pytest.mark.one_environment("it needs the centre, and fetches a file without a runtime"),
]


def test_by_http_a_kill_costs_one_part_at_most(tmp_path: Path) -> None:
    came = over_http(tmp_path / "http", 4, random.Random(2))
    assert (came["wrong"], came["again"] <= 1, came["here"]) == (0, True, 20_000_000)


@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_in_parts_a_kill_costs_one_part_at_most(tmp_path: Path) -> None:
    came = in_parts(tmp_path / "parts", 4, random.Random(3))
    assert (came["wrong"], came["again"] <= 1, came["here"]) == (0, True, 20_000_000)


def test_a_server_that_has_nothing_is_asked_once_over_all_starts(tmp_path: Path) -> None:
    came = at_nothing(tmp_path / "none")
    assert (came["failure"], came["failed"], came["requests"]) == ("gone", 1, 1)
