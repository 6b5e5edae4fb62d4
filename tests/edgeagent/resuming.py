"""Trains one round of the model in a folder and says after each step how far it is, until somebody kills it. test_resuming.py does."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeagent.rounds import round as rounds
from edgeagent.service.opener import opener
from edgeagent.settings import reading
from edgeagent.state.folder import open_folder

from .boards import standing


def main(folder: Path) -> None:
    loaded = reading.load(folder / reading.FILE, environment={}, flags={})
    with open_folder(loaded, alone=True) as opened:
        (lineage,) = opened.lineages.values()
        steps = rounds.run(standing(opened, opener(opened, eager=False), lineage.name))
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
