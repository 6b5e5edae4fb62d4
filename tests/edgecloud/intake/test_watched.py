"""The ingester under systemd: it says that it serves, also without a broker; and a rebuild that is stuck ends the signs of life."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecloud.intake import service
from edgecloud.intake.rebuilding import Judged
from edgecloud.intake.service import Ingester
from edgecommon.systemd import Systemd
from tests.edgecloud.centre import make_registry
from tests.edgecloud.device import FLEET, Base
from tests.edgecloud.hearing import until
from tests.edgecloud.intake.test_service import QUICK
from tests.edgecloud.memory import MemoryBroker, MemoryTransport
from tests.keys import RECEIPT
from tests.notified import NotifySocket

ALIVE = "WATCHDOG=1"


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify", watchdog=0.2)
    yield made
    made.close()


@pytest.fixture
def ingester(tmp_path: Path, base: Base, notified: NotifySocket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingester]:
    make_registry(tmp_path / "fleet.db", base).close()
    monkeypatch.setattr(service, "TOLD", 0.01)
    transport = MemoryTransport(MemoryBroker(), fleet=FLEET, client_id="centre")
    yield Ingester(tmp_path / "fleet.db", RECEIPT, transport, pace=QUICK, synchronous="OFF", systemd=Systemd(notified.environment))


def run(ingester: Ingester) -> threading.Thread:
    thread = threading.Thread(target=ingester.run, daemon=True)
    thread.start()
    return thread


def test_an_ingester_says_that_it_serves_and_what_it_waits_for(ingester: Ingester, notified: NotifySocket) -> None:
    thread = run(ingester)
    until(lambda: notified.count(ALIVE) >= 3)
    until(lambda: any(word.startswith("STATUS=listens at ") for word in notified.words()))
    ingester.stop()
    thread.join()
    words = notified.words()
    assert words[0] == "READY=1" and words.count("READY=1") == 1 and words[-1] == "STOPPING=1"
    assert "since its start 0 stored, 0 verified, 0 refused on rebuild" in next(w for w in words if w.startswith("STATUS=listens"))


def test_an_ingester_without_a_broker_serves_too_and_says_what_it_waits_for(
    ingester: Ingester, notified: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(MemoryTransport, "connected", property(lambda self: False))
    thread = run(ingester)
    until(lambda: any(word.startswith("STATUS=waits for ") for word in notified.words()))
    ingester.stop()
    thread.join()
    assert notified.words()[0] == "READY=1"


@pytest.mark.parametrize("who", ["rebuild", "commit"])
def test_an_ingester_whose_rebuild_or_loop_is_stuck_gives_no_signs_of_life(
    ingester: Ingester, notified: NotifySocket, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    free, reached = threading.Event(), threading.Event()

    def stuck() -> None:
        reached.set()
        free.wait()

    if who == "rebuild":

        def run_stuck(*_: object, **__: object) -> list[Judged]:
            stuck()
            return []

        monkeypatch.setattr(service.Rebuilder, "run", run_stuck)
    else:
        monkeypatch.setattr(ingester, "_tick", lambda _: stuck())
    thread = run(ingester)
    try:
        assert reached.wait(60)
        until(lambda: silent(notified, 1.0))
    finally:
        free.set()
        ingester.stop()
        thread.join()


def silent(notified: NotifySocket, seconds: float) -> bool:
    """Return whether no sign of life came within so long: five times as long as systemd waits."""
    said = notified.count(ALIVE)
    threading.Event().wait(seconds)
    return notified.count(ALIVE) == said
