"""Trains one round of the model in a folder and says after each step how far it is, until somebody kills it. test_resuming.py does."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeagent.commands.reports import opener
from edgeagent.rounds import round as rounds
from edgeagent.settings import reading
from edgeagent.state import folder as device


def main(folder: Path) -> None:
    loaded = reading.load(folder / reading.FILE, environment={}, flags={})
    with device.opened(loaded, alone=True) as opened:
        (lineage,) = opened.lineages.values()
        steps = rounds.run(lineage, opened.spool, opened.settings.model(lineage.name), opener(opened, eager=False), now=lambda: 0.0)
        print("started", flush=True)
        while True:
            try:
                at = next(steps)
            except StopIteration as end:
                print("done", end.value.version, flush=True)
                return
            sys.stdout.write(f"{at.done} {at.seconds!r}\n")  # one write: a kill leaves a line or none
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
