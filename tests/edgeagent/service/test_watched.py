"""The agent under systemd's watchdog: what it says, that a long step is life, and that a loop that is stuck is none."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from edgeagent.service.watched import WatchedLoop
from edgeagent.system.clock import Clock
from edgecommon.systemd import Systemd
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.centre import FakeClock
from tests.notified import NotifySocket

ALIVE = "WATCHDOG=1"
LIMIT = 60.0  # seconds; a safety limit


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify", watchdog=0.2)
    yield made
    made.close()


def until(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + LIMIT
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def test_an_agent_says_that_it_serves_and_what_it_does(tmp_path: Path, clock: FakeClock, notified: NotifySocket) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.agent.systemd = Systemd(notified.environment)
        r.agent.__post_init__()
        r.serve(30)
        fill(r.device)
        r.agent.__post_init__()
        r.run(Goal(rounds=1, timeout=60))
    words = notified.words()
    assert words[0] == "READY=1"
    assert words.count("READY=1") == 1 and ALIVE in words
    said = [word.removeprefix("STATUS=") for word in words if word.startswith("STATUS=")]
    assert any(line.startswith("connected to ") and "tiny@0" in line for line in said), said
    assert any(line.startswith("waits for ") for line in said), said


def test_an_agent_without_systemd_starts_no_thread_and_says_nothing(tmp_path: Path, clock: FakeClock) -> None:
    threads = threading.active_count()
    loop = WatchedLoop(Systemd({}), Clock())
    loop.turn(lambda: pytest.fail("nobody asks"))
    with loop.training():
        assert threading.active_count() == threads
    loop.close()


def test_a_long_step_of_training_is_a_sign_of_life(notified: NotifySocket) -> None:
    loop = WatchedLoop(Systemd(notified.environment), Clock())
    loop.turn(lambda: "trains")
    before = notified.count(ALIVE)
    with loop.training():
        end = time.monotonic() + LIMIT
        while notified.count(ALIVE) < before + 5 and time.monotonic() < end:
            sum(range(1000))
    loop.close()
    assert notified.count(ALIVE) >= before + 5


def test_a_step_that_is_stuck_is_no_sign_of_life(notified: NotifySocket) -> None:
    systemd = Systemd(notified.environment)
    loop = WatchedLoop(systemd, Clock())
    stuck, free = threading.Event(), threading.Event()

    def work() -> None:
        loop.turn(lambda: "trains")
        with loop.training():
            stuck.set()
            free.wait()

    thread = threading.Thread(target=work)
    thread.start()
    stuck.wait()
    try:
        assert until(lambda: silent(notified, 10 * systemd.every)), "it goes on saying that it lives"
    finally:
        free.set()
        thread.join()
        loop.close()


def test_a_loop_that_is_stuck_outside_of_training_is_no_sign_of_life(notified: NotifySocket) -> None:
    systemd = Systemd(notified.environment)
    loop = WatchedLoop(systemd, Clock())
    with loop.training():
        pass
    loop.turn(lambda: "serves")
    said = notified.count(ALIVE)
    assert silent(notified, 10 * systemd.every) and notified.count(ALIVE) == said
    loop.close()


def test_a_child_that_is_stuck_ends_the_signs_of_life_and_its_end_brings_them_back(notified: NotifySocket) -> None:
    systemd = Systemd(notified.environment)
    loop = WatchedLoop(systemd, Clock(), patience=0.4)

    def lives() -> bool:
        said = notified.count(ALIVE)
        end = time.monotonic() + 3 * systemd.every
        while time.monotonic() < end:
            loop.turn(lambda: "serves")
            time.sleep(0.01)
        return notified.count(ALIVE) > said

    assert lives()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    try:
        assert until(lambda: not lives()), "a process that neither computes nor ends goes unnoticed"
    finally:
        child.kill()
        child.wait()
    assert until(lives)
    loop.close()


def silent(notified: NotifySocket, seconds: float) -> bool:
    """Return whether no sign of life came within so long."""
    said, end = notified.count(ALIVE), time.monotonic() + seconds
    while time.monotonic() < end:
        if notified.count(ALIVE) != said:
            return False
        time.sleep(0.01)
    return True
