"""What the tests of whole systems stand on: a real broker, and a fleet of processes with its ingester."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import broker
from tests.broker import Mosquitto
from tests.system.fleet import Fleet


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Mosquitto]:
    """A mosquitto of the test's own; skipped where there is none."""
    if broker.program() is None:
        pytest.skip(broker.MISSING)
    with broker.mosquitto(tmp_path) as b:
        yield b


@pytest.fixture
def fleet(tmp_path: Path, hub: Mosquitto) -> Iterator[Fleet]:
    """A fleet without bases or devices, its ingester running."""
    made = Fleet(tmp_path / "fleet", hub.url)
    made.ingester.start()
    yield made
    made.close()
