"""A board that fetches one file, as a process of its own: python -m tests.edgeagent.fetching.fetching_child FOLDER

FOLDER/task.json says what and from where; with a broker in it the file comes in parts over a link of the product's own, and each part that
arrives is a line of `log` before it is kept. The last line on standard output is how it ended, as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import sys
import time
from pathlib import Path
from typing import Any

from edgeagent.board.sensors import Sensors
from edgeagent.fetching.download import Download
from edgeagent.fetching.sources import over_http as from_addresses
from edgeagent.fetching.tasks import FetchTask
from edgeagent.system.backoff import Backoff
from modelwire.wire import parts, topics
from modelwire.wire.records import Presence, Transfer, Wanted, Welcome, encode, parse
from modelwire.wire.signing import PrivateKey
from tests.keys import FLEET_ID

RESEND = 0.5, 2.0  # seconds, first and longest: the product's are a minute and an hour
FLEET, DEVICE, MODEL = "orchard", "pi-7", "digits"


def main(folder: Path) -> None:
    said = json.loads((folder / "task.json").read_text())
    file, tree = bytes.fromhex(said["file"]), bytes.fromhex(said["tree"])
    task = FetchTask(said["number"], file, said["size"], tree, urls=tuple(said["urls"]), tries=said["tries"])
    before = resident()
    d = over_link(folder, task, said) if said["broker"] else over_http(folder, task)
    took = {"before": before, "peak": Sensors().peak()}
    failure = d.failure.code if d.failure is not None else ""
    p = d.progress
    print(json.dumps({"failure": failure, "spent": p.spent, "failed": p.failed, "here": p.here, **took}), flush=True)


def resident() -> int:
    """Return the bytes that this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def over_http(folder: Path, task: FetchTask) -> Download:
    rang: queue.SimpleQueue[None] = queue.SimpleQueue()
    backoff = Backoff(*RESEND, random.Random())
    d = Download(folder / "in", task, source=from_addresses(None, lambda: rang.put(None)), ask=lambda have: None, backoff=backoff)
    d.connected(0.0)
    while not d.settled:
        with contextlib.suppress(queue.Empty):
            rang.get(timeout=min(1.0, max(0.0, d.due - time.monotonic())))
        if time.monotonic() >= d.due:
            d.tick(time.monotonic())
    return d


def over_link(folder: Path, task: FetchTask, said: dict[str, Any]) -> Download:
    from edgeagent.link.mqtt import MqttLink  # with paho, http and ssl behind it, which the other way is to be measured without
    from edgeagent.link.transport import Arrived, Connected, Lost, Will
    from edgeagent.settings.tree import LinkSettings

    link = MqttLink(LinkSettings(broker=said["broker"], reconnect_min=0.1, reconnect_max=1.0), folder, f"{FLEET}.{DEVICE}")
    key, names = PrivateKey(bytes.fromhex(said["key"])), (FLEET, DEVICE, MODEL)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def ask(have: bytes) -> None:
        link.send(topics.up(*names, "part"), encode(Wanted(*names, int(time.time()), task.file, have), key, FLEET_ID))

    d = Download(folder / "in", task, source=lambda: sys.exit("no address"), ask=ask, backoff=Backoff(*RESEND, random.Random()))
    while d.due == float("-inf"):
        d.tick(0)
    gone = Will(topics.up(*names, "state"), encode(Presence(*names, 1, 1, False), key, FLEET_ID))
    hello = float("inf")  # monotonic seconds of the next one
    link.open(gone, (topics.all_down(FLEET, DEVICE),))
    while not d.settled:
        event, now = link.poll(min(0.5, max(0.0, d.due - time.monotonic()))), time.monotonic()
        if isinstance(event, Connected):
            hello = now
        if now >= hello:
            link.send(topics.up(*names, "hello"), bytes.fromhex(said["hello"]))
            hello = now + 1.0
        if isinstance(event, Lost):
            hello = float("inf")
            d.lost()
        elif isinstance(event, Arrived):
            if event.data.startswith(parts.MAGIC):
                part = parts.parse(event.data)
                os.write(log, b"%d\n" % part.index)
                d.arrived(part, len(event.data), now)
            elif isinstance(record := parse(event.data).record, Transfer):
                d.described(record, now)
            elif isinstance(record, Welcome) and hello < float("inf"):  # behind all that the broker has kept for this board
                hello = float("inf")
                d.connected(now)
            link.acknowledge(event)
        if time.monotonic() >= d.due:
            d.tick(time.monotonic())
    link.close()
    return d


if __name__ == "__main__":
    main(Path(sys.argv[1]))
