"""One fleet for all tests of proofs that change nothing in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .fleets import Fleet, make_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(Path(tmp_path_factory.mktemp("proofs")))
    yield made
    made.store.close()
