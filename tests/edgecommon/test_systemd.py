"""What is said to systemd, over the socket that it names; and whether a thread gets on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecommon.systemd import LONGEST, Pulse, Systemd
from tests.notified import NotifySocket


class Hand:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["path", "abstract"])
def notified(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    made = NotifySocket(tmp_path / "notify" if request.param == "path" else None, watchdog=60)
    yield made
    made.close()


def test_it_says_ready_once_what_it_does_when_that_changes_and_that_it_stops(notified: NotifySocket) -> None:
    systemd = Systemd(notified.environment)
    systemd.ready()
    systemd.ready()
    systemd.status("listens")
    systemd.status("listens")
    systemd.status("waits")
    systemd.stopping()
    assert notified.words() == ["READY=1", "STATUS=listens", "STATUS=waits", "STOPPING=1"]


def test_a_sign_of_life_is_given_at_half_of_the_time(notified: NotifySocket) -> None:
    clock = Hand()
    systemd = Systemd(notified.environment, monotonic=clock)
    assert systemd.every == 30.0
    for now in range(0, 100, 10):
        clock.now = float(now)
        systemd.alive()
    assert notified.words() == ["WATCHDOG=1"] * 4, "at 0, 30, 60 and 90 seconds"


def test_a_status_is_one_line_whatever_others_wrote_into_it(notified: NotifySocket) -> None:
    Systemd(notified.environment).status("pi-7\nREADY=1\x1b[2J" + "x" * 5000)
    (word,) = notified.words()
    assert word.startswith("STATUS=pi-7") and "\n" not in word and "\x1b" not in word and len(word) < 1100


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "no/slash"])
def test_nothing_is_said_where_no_socket_is_named(address: str) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})
    assert not systemd.listens and systemd.every == 0.0
    systemd.ready()
    systemd.status("x")
    systemd.alive()


def test_the_watchdog_of_another_process_or_none_wants_no_signs_of_life(tmp_path: Path) -> None:
    here = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "4000000"}
    assert Systemd({**here, "WATCHDOG_PID": str(os.getpid())}).every == 2.0
    assert Systemd({**here, "WATCHDOG_PID": str(os.getpid() + 1)}).every == 0.0
    for odd in ("", "-1", "1e6", "\N{SUPERSCRIPT TWO}"):
        assert Systemd({**here, "WATCHDOG_USEC": odd}).every == 0.0


def test_a_socket_that_is_gone_or_full_holds_nobody_up_and_is_told_again(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    systemd = Systemd({"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1"})
    systemd.ready()
    systemd.status("waits")
    notified = NotifySocket(path)
    systemd.ready()
    systemd.status("waits")
    assert notified.words() == ["READY=1", "STATUS=waits"]
    for n in range(5000):  # more than the socket holds while nobody reads
        systemd.status(str(n))
    notified.close()


def test_a_pulse_beats_while_its_thread_comes_round_or_takes_the_processor(tmp_path: Path) -> None:
    clock, stat = Hand(), tmp_path / "stat"

    def took(ticks: int) -> None:
        stat.write_text(f"7 (a ) b (c) S {' '.join(['0'] * 10)} {ticks} 3 0")

    took(0)
    pulse = Pulse(stat, patience=10, monotonic=clock)
    assert pulse.beats()
    clock.now = 9
    assert pulse.beats()
    clock.now = 10
    assert not pulse.beats(), "neither for as long as there is patience"
    pulse.beat()
    assert pulse.beats(), "it came round"
    clock.now = 25
    took(1)
    assert pulse.beats(), "it works"
    clock.now = 36
    assert not pulse.beats()
    for _ in range(int(LONGEST)):
        clock.now += 1
        took(int(clock.now))
        if not pulse.beats():
            break
    assert clock.now == 10 + LONGEST, "what works for an hour without coming round is an endless loop"


def test_the_pulse_of_a_thread_that_waits_stops_and_of_one_that_computes_does_not() -> None:
    made: dict[str, Pulse] = {}
    over, ready = threading.Event(), threading.Barrier(3)

    def waits() -> None:
        made["waits"] = Pulse.of_this_thread(patience=0.3)
        ready.wait()
        over.wait()

    def computes() -> None:
        made["computes"] = Pulse.of_this_thread(patience=0.3)
        ready.wait()
        while not over.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=work) for work in (waits, computes)]
    for one in threads:
        one.start()
    ready.wait()
    try:
        end = time.monotonic() + 60
        while made["waits"].beats() and time.monotonic() < end:
            time.sleep(0.01)
        assert not made["waits"].beats()
        while not made["computes"].beats() and time.monotonic() < end:  # a busy machine may have kept it waiting
            time.sleep(0.01)
        assert made["computes"].beats()
    finally:
        over.set()
        for one in threads:
            one.join()


def test_a_child_of_a_service_does_not_speak_in_its_name(tmp_path: Path) -> None:
    notified = NotifySocket(tmp_path / "notify", watchdog=60)
    program = "from edgecommon.systemd import Systemd; s = Systemd(); s.alive(); print(s.every)"
    environment = {**os.environ, **notified.environment, "WATCHDOG_PID": str(os.getpid())}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0.0\n" and notified.words() == []
    notified.close()


def test_what_keeps_a_service_from_serving_buys_it_time_until_it_serves_and_is_a_sign_of_life_after(tmp_path: Path) -> None:
    notified = NotifySocket(tmp_path / "notify", watchdog=60)
    systemd = Systemd(notified.environment)
    systemd.starting("waits for room")
    systemd.starting("waits for room")
    systemd.ready()
    systemd.starting("waits for room again")
    assert notified.words() == [
        "EXTEND_TIMEOUT_USEC=120000000", "STATUS=waits for room", "EXTEND_TIMEOUT_USEC=120000000", "READY=1", "WATCHDOG=1",
        "STATUS=waits for room again",
    ]  # fmt: skip
    notified.close()
