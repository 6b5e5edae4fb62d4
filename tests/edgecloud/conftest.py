"""A registry with a fleet, a base and a device, ready for messages, and an operator's desk."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud.registry import SqliteStore

from .centre import Centre, make_registry
from .desk import Desk
from .device import Base, ScriptedDevice


@pytest.fixture(autouse=True)
def _log_of_its_own() -> None:
    """Forget where an ingester of a test before has sent the log: to that test's standard error, and nowhere else."""
    log = logging.getLogger("edgecloud")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


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


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("EDGECLOUD_")]:
        monkeypatch.delenv(name)
    return Desk(tmp_path, capsys)
