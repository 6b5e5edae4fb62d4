"""The harness that boots an image: what it waits for, what it puts on a card, what it calls lost. The boots themselves: make boot-test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.boot import card, chain, relay
from hw.boot.__main__ import remembered
from hw.boot.console import Console, Silent
from hw.boot.emulator import BROKER, Board, Images
from hw.image import disk


def test_what_was_said_before_is_not_heard(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("up 1\n")
    console = Console(log)
    with log.open("a") as file:
        file.write("\x1b[0;32mactive\x1b[0m 7\r\nup")  # a line that is not whole yet
    assert console.find("^up") is None
    assert console.wait(r"^active (\d+)$", 0)[1] == "7"


def test_a_board_that_stopped_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("")
    console = Console(tmp_path / "console.log")
    (tmp_path / "console.log").write_text("Kernel panic\n")
    with pytest.raises(Silent, match=r"the board stopped(?s:.*)Kernel panic"):
        console.wait("never", 1e9, lambda: False)


def test_a_relay_carries_both_ways_and_ends_with_its_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = subprocess.Popen([sys.executable, str(relay.__file__), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        with server.accept()[0] as here:
            large = bytes(range(256)) * 2000
            sender = threading.Thread(target=here.sendall, args=(large,))
            sender.start()
            assert child.stdout.read(len(large)) == large
            sender.join()
            child.stdin.write(b"hello")
            child.stdin.flush()
            assert here.recv(5) == b"hello"
        assert child.wait(60) == 0
        child.stdin.close()
        child.stdout.close()


def test_an_emulated_board_reaches_the_broker_and_nothing_else(tmp_path: Path) -> None:
    words = Board(Images(tmp_path / "card", tmp_path / "vmlinuz", tmp_path / "initrd", "panic=10"), tmp_path).words(4711, tmp_path / "disc")
    net = words[words.index("-netdev") + 1]
    assert "restrict=on" in net
    assert net.count("guestfwd=") == 1
    assert f"guestfwd=tcp:{BROKER}-cmd:" in net
    assert net.endswith("relay.py 4711")


@pytest.mark.skipif(not shutil.which("mcopy") or not shutil.which("mkfs.vfat"), reason="apt-get install mtools dosfstools")
def test_files_are_put_on_a_card_and_read_back(tmp_path: Path) -> None:
    own = tmp_path / "card.img"
    with own.open("wb") as file:
        file.truncate(disk.BEGIN + disk.BOOT)
    sectors = str(disk.BOOT // disk.SECTOR // 2)
    words = ["mkfs.vfat", "-F", "32", "--offset", str(disk.BEGIN // disk.SECTOR), str(own), sectors]
    subprocess.run(words, check=True, capture_output=True)
    files = card.settings_of(b"edge-fleet-pub:00\n", b"edge-claim:00\n", b"\0model")
    card.put(own, files)
    card.put(own, {"board.claim": b"another"})
    assert card.get(own, "board.claim") == b"another"
    assert card.get(own, "digits.tflite") == b"\0model"
    assert card.get(own, "nothing") is None


def test_what_the_board_finds_on_its_card_are_settings() -> None:
    tomllib = pytest.importorskip("tomllib")
    said = tomllib.loads(card.SETTINGS)
    assert said["device"]["name"] == "board-1"
    assert said["link"]["broker"] == f"mqtt://{BROKER}"
    assert said["model"] == [{"name": "digits"}]


def test_each_batch_of_samples_is_another_one_and_the_same_each_time() -> None:
    (x, y), (again, _), (other, _) = card.samples(3), card.samples(3), card.samples(4)
    assert x.shape == (card.BATCH, 8, 8, 1)
    assert x.dtype == np.float32
    assert set(y) <= set(range(10))
    assert np.array_equal(x, again)
    assert not np.array_equal(x, other)


def test_memory_is_read_from_what_a_board_tells() -> None:
    lines = ["rss 50.1 auto 51200 90000 80000 2", "rss 60.0 idle 61440 70000 60000 1", *["rss 70.0 idle 46080 46080 40000 1"] * 5]
    lines += ["rss 80.0 features 56320 112640 90000 3", "rss 81.0 features 1", "noise", "phase 82 features"]
    figures = remembered("\n".join(lines))
    assert figures == {"rss_idle_mib": 45.0, "rss_features_mib": 55.0, "rss_all_mib": 110.0, "pss_all_mib": 87.9}
    assert remembered("up 3\n") == {}


def row(version: int, commit: str, **more: Any) -> dict[str, Any]:
    return {"version": version, "commit": commit, "epoch": 1, "status": "verified", **more}


HEARD = [(1, "aa"), (2, "bb")]


@pytest.mark.parametrize(
    ("heard", "board", "centre", "found"),
    [
        (HEARD, [row(1, "aa"), row(2, "bb")], [row(1, "aa"), row(2, "bb")], ""),
        (HEARD, [row(2, "bb"), row(3, "cc")], [row(1, "aa"), row(2, "bb")], ""),  # on its way, or let go on the board
        (HEARD, [{"version": None, "commit": None}, row(2, "bb")], [row(1, "aa"), row(2, "bb")], ""),  # a rejected round
        (HEARD, [row(1, "aa"), row(2, "bb")], [row(1, "aa")], "lost: @2"),
        (HEARD, [row(1, "aa"), row(2, "xx")], [row(1, "aa"), row(2, "bb")], "overwritten: @2"),
        (HEARD, [row(1, "aa")], [row(1, "aa"), row(2, "bb")], "lost: the board is at @1"),
        (HEARD, [row(2, "bb")], [row(1, "aa"), row(2, "bb"), row(2, "bb")], "doubled: the centre"),
        (HEARD, [row(2, "bb"), row(2, "bb")], [row(1, "aa"), row(2, "bb")], "doubled: the board"),
        ([*HEARD, (2, "zz")], [row(2, "bb")], [row(1, "aa"), row(2, "bb")], "overwritten: @2 was verified as bb and as zz"),
        (HEARD, [row(2, "bb")], [row(1, "aa"), row(2, "bb"), row(3, "cc", epoch=2)], "epoch 2"),
        (HEARD, [row(3, "cc")], [row(1, "aa"), row(2, "bb"), row(3, "dd")], "apart: @3"),
        (HEARD, [row(2, "bb")], [row(1, "aa"), row(2, "bb"), row(3, "cc", status="refused")], "@3 is refused"),
    ],
)
def test_what_a_cut_cost_is_said(
    heard: list[tuple[int, str]], board: list[dict[str, Any]], centre: list[dict[str, Any]], found: str
) -> None:
    said = chain.wrong(heard, board, centre)
    assert (found in "; ".join(said)) if found else said == []


@pytest.mark.skipif(not shutil.which("dash"), reason="no dash here")
def test_the_boards_script_is_a_shell_script() -> None:
    script = Path(card.__file__).with_name("probe.sh")
    assert subprocess.run(["dash", "-n", str(script)], capture_output=True, check=False).stderr == b""
