"""Many boards in one process, each with an MQTT link of its own by the product's own code: what a crowd is made of.

    python -m tests.soak.members FOLDER FIRST COUNT         FOLDER: as `crowd.json` in it says

A board's model and signatures are those of a ScriptedDevice; its connection, TLS and back-off are those of the agent. It keeps the delivery
contract: says hello, sends what has no receipt, four updates at a time, again on each new connection and after `RESEND` seconds. Words on
standard input make it do things: `make N` seals N updates of each board, `send` lets them go, `say` prints
how they are and `list` what they made, a line of JSON each, and `end` ends.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeagent.link.mqtt import MqttLink
from edgeagent.link.transport import Arrived, Connected, Event, Lost, Will
from edgeagent.settings.tree import LinkSettings
from edgeagent.system.backoff import Backoff
from modelwire.errors import LinkError
from modelwire.wire import records, topics
from modelwire.wire.records import Level, Receipt, Welcome
from modelwire.wire.signing import Role
from tests.edgecloud.device import Base, ScriptedDevice

WINDOW = 4  # as link.window has it
RESEND, RESEND_MOST = 30.0, 3600.0  # as link.resend has it
MODEL = "tiny"
LOOK = 0.2  # seconds between two looks at what is due
FOUND = 0.02  # seconds that events are gathered before the words on standard input are looked at


class Bell(queue.SimpleQueue[Any]):
    """A link's queue of events that tells a whole process whose turn it is."""

    def ring(self, board: Board, bells: queue.SimpleQueue[Board]) -> None:
        self._board, self._bells = board, bells

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item)
        self._bells.put(self._board)


@dataclass
class Told:
    """When one update was sent first, and when each receipt came; monotonic seconds."""

    sent: float = 0.0
    stored: float = 0.0
    verified: float = 0.0


@dataclass
class Board:
    """One board on its link."""

    device: ScriptedDevice
    link: MqttLink
    keys: dict[Role, bytes]
    up: list[float] = field(default_factory=list)  # monotonic seconds of each connection
    lost: int = 0
    online: bool = False
    welcomed: bool = False
    going: bool = False  # it may send
    told: dict[int, Told] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    again: float = 0.0  # monotonic seconds when what has no receipt goes again

    def __post_init__(self) -> None:
        self._handed: set[int] = set()  # versions that are on their way on this connection
        self._resend = Backoff(RESEND, RESEND_MOST, random.Random())

    def turn(self) -> None:
        """Take all that has happened."""
        while (event := self.link.poll(0.0)) is not None:
            self._take(event)

    def look(self, now: float) -> None:
        """Do what is due: connect again, say hello again, send again."""
        if not self.online:
            self.turn()
        elif now >= self.again:
            if not self.welcomed or any(self.told[v].stored for v in self.device.waiting):
                self._say(*self.device.hello())  # the last word on a version may have been lost: the welcome has it
            self._handed.clear()
            self._put_off(now)
            self.send()

    def send(self) -> None:
        """Hand over what has no receipt, the oldest first, as many as the window takes."""
        if not (self.going and self.welcomed):
            return
        for version in sorted(v for v in self.device.waiting if not self.told[v].stored)[:WINDOW]:
            if version not in self._handed:
                told = self.told[version]
                told.sent = told.sent or time.monotonic()
                self._handed.add(version)
                self._say(*self.device.update(self.device.waiting[version]))

    def make(self, count: int) -> None:
        for _ in range(count):
            self.told[self.device.train().version] = Told()

    def _put_off(self, now: float) -> None:
        self.again = now + self._resend.next()

    def _take(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.up.append(time.monotonic())
            self.online, self.welcomed = True, False
            self._handed.clear()
            self._resend.reset()
            self._put_off(self.up[-1])
            self._say(*self.device.hello())
        elif isinstance(event, Lost):
            self.lost += self.online
            self.online = self.welcomed = False
        elif isinstance(event, Arrived):
            signed = records.parse(event.data)
            signed.verify(self.keys[signed.role], self.device.fleet_id, "the centre", signed.role)
            self._hear(signed.record)
            self.link.acknowledge(event)

    def _hear(self, record: records.Record) -> None:
        device, now = self.device, time.monotonic()
        if isinstance(record, Receipt) and record.version in self.told:
            self._take_receipt(record, now)
        device.hear(record)
        if isinstance(record, Welcome) and record.state == device.state_id:
            if record.status == "challenge":
                self._say(*device.hello())
            self.welcomed = self.welcomed or record.status == "ok"
            head = device.made.get(record.head_version)
            if record.status == "ok" and record.epoch == device.epoch and head is not None and head.commit == record.head:
                self._mark(record.head_version, record.verified, now)  # a receipt may have been lost: a welcome stands in for it
        self.send()

    def _take_receipt(self, r: Receipt, now: float) -> None:
        if r.level is Level.REFUSED:
            self.refused.append(r.reason)
        sent = self.device.made[r.version]
        if sent.commit != r.commit or r.level is Level.REFUSED:
            return
        # One receipt speaks for all that the update rests on.
        self._mark(r.version, r.version if r.level is Level.VERIFIED else 0, now)
        self._resend.reset()
        self._put_off(now)

    def _mark(self, stored: int, verified: int, now: float) -> None:
        """Take the centre's word that it has all up to `stored`, and has proven all up to `verified`."""
        for version, told in self.told.items():
            if version <= stored:
                told.stored = told.stored or now
            if version <= verified:
                told.verified = told.verified or now
                self.device.waiting.pop(version, None)

    def _say(self, topic: str, data: bytes) -> None:
        try:
            self.link.send(topic, data)
        except LinkError:
            self._handed.clear()  # it went down this moment; the next connection sends them


def boards(folder: Path, first: int, count: int, bells: queue.SimpleQueue[Board]) -> Iterator[Board]:
    """Make boards by what `crowd.json` says of the fleet, and open their links."""
    said = json.loads((folder / "crowd.json").read_text())
    keys = {Role[name]: bytes.fromhex(key) for name, key in said["keys"].items()}
    base = Base.of()
    for n in range(first, first + count):
        name = f"pi-{n}"
        device = ScriptedDevice(base, name=name, model=MODEL, fleet=said["fleet"], seed=n, fleet_id=bytes.fromhex(said["fleet_id"]))
        papers = folder / "papers" / name
        settings = LinkSettings(
            broker=said["url"], protocol="5", tls_ca=said["ca"], tls_cert=str(papers / "server.pem"), tls_key=str(papers / "server.key")
        )
        link = MqttLink(settings, folder, f"{said['fleet']}.{name}")
        bell = Bell()
        link._events = bell
        board = Board(device, link, keys)
        bell.ring(board, bells)
        topic, will = device.presence(False, 1)
        link.open(Will(topic, will), (topics.all_down(said["fleet"], name), topics.trust_of_all(said["fleet"])))
        yield board


def report(crowd: list[Board]) -> dict[str, Any]:
    """Return what is known of them now. Times are monotonic seconds, which all processes of a machine share."""
    return {
        "online": sum(b.online for b in crowd), "welcomed": sum(b.welcomed for b in crowd), "lost": sum(b.lost for b in crowd),
        "up": [b.up for b in crowd], "refused": [why for b in crowd for why in b.refused],
        "left": sum(not told.verified for b in crowd for told in b.told.values()),
        "told": [[told.sent, told.stored, told.verified] for b in crowd for told in b.told.values()],
    }  # fmt: skip


def made(crowd: list[Board]) -> dict[str, Any]:
    """Return all that each board has made: version, commit, root and SHA-256 of its file, in hex, and whether it heard the last word."""
    return {
        b.device.name: [
            [s.version, s.commit.hex(), s.root.hex(), s.file_sha256.hex(), "verified" if b.told[s.version].verified else "sent"]
            for s in b.device.made.values()
        ]
        for b in crowd
    }


def main(folder: Path, first: int, count: int) -> None:
    bells = queue.SimpleQueue[Board]()
    crowd = list(boards(folder, first, count, bells))
    looked = 0.0
    while True:
        now = time.monotonic()
        if now - looked >= LOOK:
            looked = now
            for board in crowd:
                board.look(now)
        for board in _rung(bells):
            board.turn()
        if select.select([sys.stdin], [], [], 0.0)[0] and not _obeys(crowd, sys.stdin.readline().split()):
            return


def _rung(bells: queue.SimpleQueue[Board]) -> list[Board]:
    """Return those for whom something came, each once; wait a moment where there are none."""
    rung: dict[int, Board] = {}
    with contextlib.suppress(queue.Empty):
        board = bells.get(timeout=FOUND)
        while True:
            rung[id(board)] = board
            board = bells.get_nowait()
    return list(rung.values())


def _obeys(crowd: list[Board], words: list[str]) -> bool:
    if not words or words[0] == "end":
        return False
    if words[0] == "make":
        for board in crowd:
            board.make(int(words[1]))
    elif words[0] == "send":
        for board in crowd:
            board.going = True
            board.send()
    said = report(crowd) if words[0] == "say" else made(crowd) if words[0] == "list" else {}
    print(json.dumps(said), flush=True)
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
