"""A registry with a fleet, a base and a device, ready for messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore

from .centre import Centre, make_registry
from .device import Base, ScriptedDevice


@pytest.fixture(scope="session")
def base() -> Base:
    return Base.of()


@pytest.fixture
def store(tmp_path: Path, base: Base) -> Iterator[SqliteStore]:
    made = make_registry(tmp_path / "fleet.db", base)
    yield made
    made.close()


@pytest.fixture
def centre(store: SqliteStore) -> Centre:
    return Centre(store)


@pytest.fixture
def device(centre: Centre, base: Base) -> ScriptedDevice:
    """pi-7, registered and welcomed in epoch 1."""
    return centre.meet(ScriptedDevice(base))


@pytest.fixture
def grown(centre: Centre, device: ScriptedDevice) -> Centre:
    """Twelve verified versions, a snapshot at 5, and a refused 9."""
    for n in range(1, 13):
        if n == 5:
            sent = device.snapshot()
        elif n == 9:
            sent = device.train(fingerprint=(1, 2))
        else:
            sent = device.train()
        centre.deliver(device, sent)
        if n == 9:
            centre.rebuild()
            good = centre.said()[-1].good
            centre.deliver(device, device.snapshot(good))
    centre.rebuild()
    return centre
