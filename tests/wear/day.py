"""A day of a board that trains four times and publishes twenty-four times, and what its disk is written by that.

    python -m tests.wear.day digits|last3 [--days 1] [--set SECTION.KEY=VALUE]

The agent is the real one, and so are its files and its disk; the centre is one in memory, and the clock jumps over what nobody waits for.
The kernel writes back what lies in its cache after some 30 s: so does this, each 30 s of that clock and at the end. Once an hour the agent
says hello and hears a welcome, and is asked to publish; the operator asks for a snapshot in each hour without a round where that is said.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.service.goal import Goal
from edgeagent.spending.flash import noted
from edgeagent.training.batches import Trainable
from edgecommon import runtime
from tests.edgeagent.boards import Rig, centre, command, rig
from tests.edgeagent.boards import make_with as make_board
from tests.edgeagent.centre import FakeClock
from tests.wear import loop
from tests.wear.loop import Disk
from tests.wear.net import INPUTS, wide_net
from tests.worlds import model_file

HOUR, DAY = 3600.0, 86_400.0
WRITE_BACK = 30.0  # seconds after which Linux writes what lies in its cache (vm.dirty_expire_centisecs)
ROUNDS, PUBLISHES = 4, 24


@dataclass(frozen=True)
class Board:
    """What a board trains. samples: of a spool that is full; seconds: that a step takes on it, as assumed."""

    file: Callable[[], bytes]
    samples: Callable[[int], tuple[Any, Any]]
    seconds: float
    settings: Mapping[str, str]


def _digits(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 10, n)
    return (rng.normal(0.2, 0.2, (n, 64)) + np.eye(64)[labels * 6]).astype(np.float32), labels


def _wide(n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, 20, n)
    return (rng.normal(0, 1, (n, INPUTS)) + 2 * np.eye(INPUTS)[labels * 3]).astype(np.float32), labels


# Steps: the digits head in milliseconds anywhere; eight pictures of 224 x 224 through 3.5 M weights on a Cortex-A53, some seconds.
BOARDS = {
    "digits": Board(lambda: model_file("digits"), _digits, 0.02, {"train.learning_rate": "0.05"}),
    "last3": Board(wide_net, _wide, 3.0, {"train.learning_rate": "0.02"}),
}


class Clock(FakeClock):
    """Lets the disk have what is written, each time that 30 s have passed."""

    def __init__(self, disk: Disk) -> None:
        super().__setattr__("disk", disk)
        super().__setattr__("flushed", 0.0)
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "now" and value - self.flushed >= WRITE_BACK:
            super().__setattr__("flushed", value)
            self.disk.flush()


class Timed:
    """An opened model whose steps take the time that they would take on a board."""

    def __init__(self, model: Any, clock: FakeClock, seconds: float) -> None:
        self._model, self._clock, self._seconds = model, clock, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def train(self, x: Any, y: Any, lr: float) -> float:
        self._clock.now += self._seconds
        return float(self._model.train(x, y, lr))


def lived(name: str, disk: Disk, *, days: int = 1, settings: Mapping[str, str] | None = None, snapshots: bool = False) -> dict[str, Any]:
    """Return what the disk was written in each day, in bytes; parts: of a day, as the agent counts them; and what came of it.

    The first hours, with the first round, go before.
    """
    board, clock, folder, package = BOARDS[name], Clock(disk), disk.path / "board", runtime.load()
    file = board.file()

    def open_model(data: bytes, model: str) -> Trainable:
        return Timed(package.open(data, model=model), clock, board.seconds)  # type: ignore[return-value]

    given = {
        "train.every": "350m", "train.epochs": "5", "train.min_new_samples": "0", "link.hello_every": "1h", "update.density": "0.0075",
        "store.history": "0", "link.profile": "wifi", **board.settings, **(settings or {}),
    }  # fmt: skip
    make_board(folder, given, {name: file})
    said = centre(clock, file=file)
    with rig(folder, said, open_model) as r:
        x, labels = board.samples(300)
        r.device.spool.extend(name, x, labels)
        disk.flush()
        r.run(Goal(rounds=1, timeout=HOUR))
        disk.flush()
        r.device.database.run("DELETE FROM meta WHERE key='written'")
        out = [_day(r, said, disk, snapshots) for _ in range(days)]
        states = list(r.states().values())
        parts = noted(r.device.database).days
        newest = {name: sum(one.get(name, 0) for one in parts.values()) / len(out) for name in {n for one in parts.values() for n in one}}
    return {"bytes": out, "parts": newest, "versions": len(states), "states": states, "updates": len(said.updates())}


def _day(r: Rig, said: Any, disk: Disk, snapshots: bool) -> int:
    began = disk.written()
    for hour in range(PUBLISHES):

        def asks(hour: int = hour) -> None:
            r.device.nudge()
            if snapshots and hour % (PUBLISHES // ROUNDS):
                said.push(command(r, 1_000_000 + int(said.clock.now)))

        said.after(HOUR / 2, asks)
        r.serve(HOUR)
    disk.flush()
    return disk.written() - began


def measured(name: str, *words: str) -> dict[str, Any]:
    """Return what a day writes, measured in a process of its own, which alone sees the disk."""
    command = [sys.executable, "-m", "tests.wear.day", name, "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.wear.day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("board", choices=sorted(BOARDS))
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--snapshots", action="store_true", help="the operator asks for one in each hour without a round")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL if args.json else logging.NOTSET)
    if args.json is False:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = dict(one.split("=", 1) for one in args.set)
    with loop.mounted() as disk:
        print(json.dumps(lived(args.board, disk, days=args.days, settings=settings, snapshots=args.snapshots)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
