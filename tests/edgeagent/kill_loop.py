"""A device that trains, joins, sends snapshots and starts over as fast as it can, until somebody kills it. test_kill.py does.

Its centre lives in this process and so forgets everything with each kill: as if the registry had been restored from nothing.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from edgeagent.rounds.round import RoundReport
from edgeagent.service.goal import Goal

from .boards import Rig, centre, command, rig
from .centre import FakeClock


def main(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    c = centre(FakeClock())
    with rig(folder, c) as r:
        trouble(r, rng)

        class Told(list[RoundReport]):
            def append(self, report: RoundReport) -> None:
                super().append(report)
                print(report.round, flush=True)  # after the commit: whoever reads this may rely on it

        r.agent.reports = Told()
        print("started", flush=True)
        r.run(Goal(rounds=10**9))


def trouble(r: Rig, rng: random.Random) -> None:
    """Let the link come and go, and let the centre ask for snapshots and refuse versions, for ever."""
    c = r.centre

    def next_one() -> None:
        kind = rng.randrange(4)
        if kind == 0:
            c.cut()
            c.after(rng.uniform(0, 20), c.mend)
        elif kind == 1:
            c.push(command(r, r.lineage.answers.last() + 1))
        elif kind == 2:
            c.refuse = lambda h: "no" if rng.random() < 0.5 else ""
        else:
            c.refuse = lambda h: ""
        c.after(rng.uniform(0, 2), next_one)

    c.after(rng.uniform(0, 5), next_one)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
