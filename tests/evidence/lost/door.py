"""What a stranger who may publish can do to memory and logs of a board and of the centre, by size, by number and by content.

    python -m tests.evidence.lost.door               some minutes; FULL=1: 10^6 fuzzed messages, hours

Real processes on a real mosquitto that lets any size through. One message of 200 MB to a board, in both versions of MQTT, and a command
after it that is answered; garbage to a board for a while; then real messages, changed at random, at the doors of the ingester and the
board, a good update behind each 200 of them. `next_good_s` is within what 95 of 100 of those were stored, with all 200 before them;
`good_alone_s` is the same before anything was fuzzed. SEED=7 draws others.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from edgecloud.registry import open_registry
from modelwire.errors import ModelWireError
from modelwire.wire import records
from modelwire.wire.keys import KeyKind, write_key
from modelwire.wire.records import Level, Receipt
from tests import broker
from tests.edgecloud.device import Base, ScriptedDevice, Sent
from tests.evidence.parts import Figures, alone
from tests.system.fleet import Fleet, Process
from tests.worlds import MODELS

from .stranger import Stranger

LARGE = 200_000_000  # bytes
GARBAGE_SECONDS = 20.0
FUZZED, FUZZED_FULL = 20_000, 1_000_000
BOARDS, OWN = 16, 0.95  # good boards, and the share of what is fuzzed that was their own
RESEND = 2.0  # seconds after which a good board says an update again
BATCH = 200  # fuzzed messages before a good update
ALONE = 20  # good updates behind nothing
PATIENCE = 120.0  # seconds; a safety limit
SETTINGS = {
    "link.resend": "1s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.every": "30d", "train.min_new_samples": "0",
    "train.margin": "1000", "train.epochs": "1",
}  # fmt: skip
BOARD = "e1/demo/pi-7/digits"


def measure(full: bool) -> Figures:
    """Return the figures. full: as many fuzzed messages as the promise names."""
    figures: Figures = {}
    seed = int(os.environ.get("SEED", "1"))
    with tempfile.TemporaryDirectory() as name:
        for protocol in ("3.1.1", "5"):
            growth, answered = _large(Path(name) / protocol, protocol)
            figures[f"board_growth_{protocol.replace('.', '')}_mib"], figures[f"answered_{protocol.replace('.', '')}_s"] = growth, answered
        figures["board_growth_mib"] = max(float(figures["board_growth_311_mib"]), float(figures["board_growth_5_mib"]))
        figures |= _doors(Path(name) / "doors", FUZZED_FULL if full else FUZZED, seed)
    return figures


def say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def until(reached: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until it is reached. seconds: a safety limit for a machine that hangs."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def resident(process: Process, what: str = "VmRSS") -> float:
    """Return a process's memory in MiB: VmRSS now, VmHWM at its highest."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) / 1024


@contextmanager
def started(folder: Path, hub: broker.Mosquitto, **settings: str) -> Iterator[tuple[Fleet, Process]]:
    """Run a fleet with an ingester and one board that is welcome for the time of a `with` block."""
    fleet = Fleet(folder / "fleet", hub.url)
    try:
        fleet.add_base("digits")
        fleet.ingester.start()
        board = fleet.add_device("pi-7", {"digits": MODELS / "digits.tflite"}, {**SETTINGS, **settings})
        board.start()
        until(lambda: board.said("welcome: "), board.tail())
        yield fleet, board
    finally:
        fleet.close()


def answered(fleet: Fleet, ear: Stranger) -> float:
    """Return the seconds until the board sends what a command asks it for."""
    ear.listen(0.0)
    began = time.monotonic()
    fleet.cloud("snapshot", "request", "pi-7/digits")
    heard: list[str] = []
    end = time.monotonic() + PATIENCE
    while not any(topic.endswith(("/up/update", "/up/part", "/up/rsp")) for topic in heard):
        assert time.monotonic() < end, heard
        heard += [topic for topic, _ in ear.listen(1.0)]
    return round(time.monotonic() - began, 2)


def _large(folder: Path, protocol: str) -> tuple[float, float]:
    """Return by how many MiB a board grows while 200 MB come to it, at most, and the seconds until the next command is answered."""
    with broker.mosquitto(folder, largest=0) as hub, started(folder, hub, **{"link.protocol": protocol}) as (fleet, board):
        ear, stranger = Stranger(hub.port, "ear", f"{BOARD}/up/#"), Stranger(hub.port, "stranger")
        before = resident(board)
        stranger.say_large(f"{BOARD}/dn/cmd", LARGE)
        if protocol == "3.1.1":  # in MQTT 5 the broker keeps it to itself
            until(lambda: board.said("was let go unread"), board.tail())
        seconds = answered(fleet, ear)
        growth = round(resident(board, "VmHWM") - before, 1)
        say(f"MQTT {protocol}: the board grew by {growth} MiB, the next command was answered after {seconds} s")
        assert board.said("connected to") == 1, "the session was kept"
        return growth, seconds


def _doors(folder: Path, count: int, seed: int) -> Figures:
    """Return what garbage and fuzzed messages do to logs, memory and the next good update."""
    with broker.mosquitto(folder, largest=0) as hub, started(folder, hub) as (fleet, board):
        heard = Stranger(hub.port, "heard", "e1/demo/#")
        # As many as it takes for what each says to stay below the rate of one board: what is above it is let go unread.
        good = [GoodBoard(fleet, hub.port, f"pi-{9 + n}") for n in range(BOARDS)]
        answered(fleet, heard)
        own = [one.corpus() for one in good]
        while heard.listen(1.0):  # until it is quiet
            pass
        overheard = [(topic, data) for topic, data in heard.overheard if topic.split("/")[2] == "pi-7"]
        corpus = [*chain(*own), *overheard]
        say(f"{len(corpus)} real messages, on {len({topic for topic, _ in corpus})} topics")
        before = sum(one.log.stat().st_size for one in (board, fleet.ingester))
        said = _garbage(Stranger(hub.port, "garbage"), seed)
        behind = answered(fleet, heard)  # it has read them all
        grown = sum(one.log.stat().st_size for one in (board, fleet.ingester)) - before
        say(f"{said} garbage messages: the logs grew by {grown} bytes, a command behind them was answered in {behind} s")
        alone = [good[0].behind([]) for _ in range(ALONE)]
        times = _fuzz(good, own, overheard, count, seed)
        answered(fleet, heard)
        peaks = [round(resident(one, "VmHWM"), 1) for one in (fleet.ingester, board)]
        codes = board.stop(), fleet.ingester.stop()  # in peace: their logs end with what was left out
        assert codes == (0, 0), (board.tail(), fleet.ingester.tail())
        logs = board.log.read_bytes() + fleet.ingester.log.read_bytes()
        return {
            "garbage": said, "garbage_log_bytes": grown, "door_log_bytes": len(logs), "fuzzed": count,
            "tracebacks": logs.count(b"Traceback"), "good_alone_s": p95(alone), "next_good_s": p95(times),
            "next_good_longest_s": round(max(times), 3), "next_good_again": sum(one.again for one in good), "door_seed": seed,
            "door_ingester_peak_mib": peaks[0], "door_board_peak_mib": peaks[1],
        }  # fmt: skip


def _garbage(stranger: Stranger, seed: int) -> int:
    """Say what no record is on a board's topics for a while, and return how many messages those were."""
    draw, said, end = random.Random(seed), 0, time.monotonic() + GARBAGE_SECONDS
    leaves = ("cmd", "receipt", "part", "desired", "nonsense")
    while time.monotonic() < end:
        stranger.say((f"{BOARD}/dn/{draw.choice(leaves)}", draw.randbytes(draw.choice((1, 40, 400)))) for _ in range(1000))
        said += 1000
    return said


class GoodBoard:
    """A board by script, on the same connection as what is fuzzed: its update comes behind all that was said before."""

    def __init__(self, fleet: Fleet, port: int, name: str) -> None:
        self.again = 0  # updates that had to be said again, as a board does
        store = open_registry(fleet.db, readonly=True)
        identity = store.identity.id
        store.close()
        self.device = ScriptedDevice(Base.of(MODELS / "digits.tflite"), name=name, fleet="demo", fleet_id=identity)
        fleet.cloud("devices", "add", name, write_key(KeyKind.DEVICE, self.device.key.public))
        self._link = Stranger(port, name, f"e1/demo/{name}/digits/dn/#")
        while not self.device.epoch:
            self._link.say([self.device.hello()])
            self._hear(lambda _: True)

    def corpus(self) -> list[tuple[str, bytes]]:
        """Return messages of every kind that a board says."""
        sent = self.device.train()
        transfer = self.device.transfer(sent, 4096)
        said = [self.device.hello(), self.device.update(sent), transfer[1], *transfer[2], self.device.presence(True, 3)]
        self._link.say([self.device.update(sent)])
        self._hear(lambda record: isinstance(record, Receipt) and record.commit == sent.commit)
        return [*said, self.device.response(77, text="no")]

    def behind(self, messages: list[tuple[str, bytes]]) -> float:
        """Say messages and a good update behind them; return the seconds until that is stored."""
        sent = self.device.train()
        self._link.say(messages)
        began = time.monotonic()
        self._link.say([self.device.update(sent)])
        self._hear(lambda r: isinstance(r, Receipt) and r.commit == sent.commit and r.level in (Level.STORED, Level.VERIFIED), sent)
        return time.monotonic() - began

    def _hear(self, wanted: Callable[[object], bool], sent: Sent | None = None) -> None:
        """Listen for what is wanted. sent: an update that is said again, as a board does, while nothing answers it."""
        end, again = time.monotonic() + PATIENCE, time.monotonic() + RESEND
        while True:
            assert time.monotonic() < end, "no answer"
            if sent is not None and time.monotonic() > again:
                self.again, again = self.again + 1, time.monotonic() + RESEND
                self._link.say([self.device.update(sent)])
            for _, data in self._link.listen(1.0):
                try:
                    record = records.parse(data).record
                except ModelWireError:  # fuzzed ones go to this board, too
                    continue
                self.device.hear(record)
                if wanted(record):
                    return


def changed(draw: random.Random, corpus: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """Return a real message with some of it changed, on its own topic or on another's."""
    topic, data = draw.choice(corpus)
    out = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 8))):
        place = draw.randrange(len(out) + 1)
        what = draw.randrange(6)
        if what == 0 and out:
            out[place % len(out)] ^= 1 << draw.randrange(8)
        elif what == 1:
            del out[place:]
        elif what == 2:
            out[place:place] = draw.randbytes(draw.choice((1, 2, 16, 1000)))
        elif what == 3:
            other = draw.choice(corpus)[1]
            out[place:] = other[draw.randrange(len(other) + 1) :]
        elif what == 4:
            out[place : place + 4] = draw.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x9b\xff\xff\xff"))
        else:
            del out[place : place + draw.choice((1, 4, 64))]
    if draw.random() < 0.2:
        topic = draw.choice(corpus)[0]
    if draw.random() < 0.1:
        levels = topic.split("/")
        levels[draw.randrange(2, len(levels))] = draw.choice(("pi-8", "all", "digits", "x" * 64, "up", "hello", "\u00e9", "part"))
        topic = "/".join(levels)
    return topic, bytes(out[:90_000])


def _fuzz(
    good: list[GoodBoard], own: list[list[tuple[str, bytes]]], overheard: list[tuple[str, bytes]], count: int, seed: int
) -> list[float]:  # fmt: skip
    """Say changed messages, and good updates between; return the seconds that each of those took to be stored.

    own: what each good board has said; overheard: what others have said of the one that is no script.
    """
    draw, times, done, began = random.Random(seed), list[float](), 0, time.monotonic()
    while done < count:
        at = len(times) % len(good)
        batch = [changed(draw, own[at] if draw.random() < OWN else overheard) for _ in range(min(BATCH, count - done))]
        times.append(good[at].behind(batch))
        done += len(batch)
        if done % (50 * BATCH) == 0:
            took = f"{p95(times)} s in 95 of 100, {max(times):.2f} s at most"
            say(f"{done} fuzzed messages in {time.monotonic() - began:.0f} s; a good update took {took}")
    return times


def p95(times: list[float]) -> float:
    return round(sorted(times)[int(0.95 * (len(times) - 1))], 3)


if __name__ == "__main__":
    alone("lost", "door", measure)
