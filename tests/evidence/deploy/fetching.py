"""A base of 20 MB comes to a board whose processes are killed at random moments: by HTTP and in parts, what was here is not fetched again.

Keys: refetched_parts (of the worst kill), fetch_kills, fetch_wrong (files that were not the one named), bytes_over_http and
bytes_over_parts (thousandths of the file, headers and all that a kill cost included), tries_at_404 and requests_at_404, fetch_mib (most
memory that a fetch takes). Alone: python -m tests.evidence.deploy.fetching; FULL=1 for ten times the kills.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelwire import merkle
from modelwire.wire.keys import KeyKind, write_key
from tests import broker as brokers
from tests.edgecloud.centre import Centre, make_registry
from tests.edgecloud.device import Base, ScriptedDevice
from tests.edgecloud.intake.test_handing_bases import add_variant, desire
from tests.evidence.parts import Figures, alone
from tests.system.fleet import Process

SIZE = 20_000_000
KILLS = 6
LONG = 120.0  # seconds after which a machine hangs, however busy it is
MIB = 1024 * 1024


def measure(full: bool) -> Figures:
    """Return the figures. full: ten times the kills."""
    kills, rng = KILLS * (10 if full else 1), random.Random(17)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        http, parts = over_http(folder / "http", kills, rng), in_parts(folder / "parts", kills, rng)
        calm, none = over_http(folder / "calm", 0, rng), at_nothing(folder / "none")
    return {
        "refetched_parts": max(http["again"], parts["again"]), "fetch_kills": 2 * kills, "fetch_wrong": http["wrong"] + parts["wrong"],
        "bytes_over_http": _over(http), "bytes_over_parts": _over(parts),
        "tries_at_404": none["failed"], "requests_at_404": none["requests"],
        "fetch_mib": round(max(calm["peak"] - calm["before"], none["peak"] - none["before"], parts["peak"] - parts["before"]) / MIB, 2),
    }  # fmt: skip


def over_http(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Return what a fetch by HTTP came to, with so many kills of the board and of the server."""
    file, served = _file(folder), folder / "served"
    served.mkdir()
    (served / "m.tflite").write_bytes(file)
    (served / "m.leaves").write_bytes(b"".join(merkle.leaves(file, merkle.LEAF_BYTES)))
    port, log = brokers.free_port(), folder / "log"
    serve = [sys.executable, "-m", "tests.edgeagent.fetching.serving_child", str(served), str(port), str(log), "0.005" if kills else "0"]
    server, board = Process("server", serve, folder / "server.log"), _board(folder, file, f"http://127.0.0.1:{port}/m.tflite", kills)
    try:
        server.start()
        return _through_kills(folder, file, board, [server], kills, rng, log)
    finally:
        server.kill()
        board.kill()


def in_parts(folder: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Return what a fetch over the link came to, with so many kills of the board and of the ingester."""
    file, base, key = _file(folder), Base.of(), hashlib.sha256(b"pi-7 0").digest()  # as tests.edgecloud.device.key_of has it
    store = make_registry(folder / "fleet.db", base)
    centre = Centre(store)
    hello = centre.meet(ScriptedDevice(base)).hello()[1]
    desire(centre, add_variant(centre, base, file), expiry=1 << 40)
    store.close()
    (folder / "receipt.key").write_text(write_key(KeyKind.RECEIPT_PRIVATE, bytes([0xF2]) * 32))
    (folder / "receipt.key").chmod(0o600)
    with brokers.mosquitto(folder) as broker:
        ingest = [sys.executable, "-m", "edgecloud", "ingest", "--db", str(folder / "fleet.db"), "--broker", broker.url]
        ingester, board = Process("ingester", ingest, folder / "ingester.log"), _board(folder, file, "", kills, broker.url, key, hello)
        try:
            ingester.start()
            return _through_kills(folder, file, board, [ingester], kills, rng, folder / "log")
        finally:
            ingester.kill()
            board.kill()


def at_nothing(folder: Path) -> dict[str, Any]:
    """Return what a server that has nothing costs, over three starts of the board."""
    file, served, port = _file(folder), folder / "served", brokers.free_port()
    served.mkdir()
    log = folder / "log"
    serve = [sys.executable, "-m", "tests.edgeagent.fetching.serving_child", str(served), str(port), str(log), "0"]
    server, board = Process("server", serve, folder / "server.log"), _board(folder, file, f"http://127.0.0.1:{port}/m.tflite", 0)
    try:
        server.start()
        _wait(lambda: server.said("up") > 0)
        for _ in range(3):
            board.start()
            _wait(lambda: not board.running)
        told = _told(board)
        assert told["failure"] == "gone", board.tail()
        return told | {"requests": len(log.read_text().split())}
    finally:
        server.kill()
        board.kill()


def _over(told: dict[str, Any]) -> int:
    return math.ceil(1000 * (told["spent"] - SIZE) / SIZE)


def _file(folder: Path) -> bytes:
    folder.mkdir()
    return random.Random(3).randbytes(SIZE)


def _board(folder: Path, file: bytes, url: str, kills: int, broker: str = "", key: bytes = b"", hello: bytes = b"") -> Process:
    task = {
        "number": 1, "file": hashlib.sha256(file).hexdigest(), "size": len(file), "tree": merkle.file_tree(file).hex(),
        "urls": [url] if url else [], "tries": 5 + 5 * kills, "broker": broker, "key": key.hex(),
        "hello": hello.hex(),
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task))
    command = [sys.executable, "-m", "tests.edgeagent.fetching.fetching_child", str(folder)]
    return Process("board", command, folder / "board.log")


def _through_kills(
    folder: Path, file: bytes, board: Process, others: list[Process], kills: int, rng: random.Random, log: Path
) -> dict[str, Any]:
    """Let the board fetch, kill one process after another each time some more parts were asked for, and return what it came to."""
    count = -(-len(file) // merkle.LEAF_BYTES)
    board.start()
    for n, at in enumerate(sorted(rng.sample(range(1, count - 8), kills))):
        _wait(lambda at=at: len(set(_lines(log)) - {"kill"}) >= at or not board.running)  # type: ignore[misc]
        victim = board if n % 2 else rng.choice(others)
        victim.kill()
        with log.open("a") as marks:
            marks.write("kill\n")
        victim.start()
    _wait(lambda: not board.running)
    told = _told(board)
    wrong = int(told["failure"] != "" or (folder / "in" / "incoming").read_bytes() != file)
    print(f"{folder.name}: {kills} kills, {told}, log of {len(_lines(log))} lines", file=sys.stderr)
    return told | {"wrong": wrong, "again": _again(_lines(log))}


def _again(lines: list[str]) -> int:
    """Return how many parts were fetched again after the worst kill."""
    seen: set[str] = set()
    worst = now = 0
    for line in lines:
        if line == "kill":
            now = 0
            continue
        now += line in seen
        worst = max(worst, now)
        seen.add(line)
    return worst


def _lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def _told(board: Process) -> dict[str, Any]:
    last = board.tail(1)
    assert board.code == 0, board.tail()
    told: dict[str, Any] = json.loads(last)
    return told


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not until():
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired("the fetch", LONG)
        time.sleep(0.01)


if __name__ == "__main__":
    alone("deploy", "fetching", measure)
