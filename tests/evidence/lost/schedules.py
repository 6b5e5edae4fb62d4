"""Schedules: short lives of real boards and a real centre with losses, repeats, delays, partitions, kills and power cuts at any write.

    python -m tests.evidence.lost.schedules            FULL=1 plays 10^5 of them, and looks for each planted bug from five seeds
"""

from __future__ import annotations

import sys

from tests.evidence.parts import Figures, alone
from tests.simulator.schedules.many import everywhere, total
from tests.simulator.schedules.planted import BUGS

COUNT, COUNT_OF_FULL = 500, 100_000
MOST = 1000  # schedules in which a planted bug is to be found
FIRST = (1, 200_001, 400_001, 600_001, 800_001)  # seeds from which each is looked for; the first one alone where it is not FULL


def measure(full: bool) -> Figures:
    """Return the figures. full: the sizes that the promise names, which take hours."""
    found = total(1, COUNT_OF_FULL if full else COUNT, progress=True)
    for one in found.failed[:5]:
        print(f"again: python -m tests.simulator --replay '{one.schedule}': {one.failures[0]}", file=sys.stderr)
    cut = everywhere(every=1 if full else 8)
    until = {bug: [_until(bug, first) for first in (FIRST if full else FIRST[:1])] for bug in BUGS}
    return {
        "schedules": found.schedules, "schedules_lost": found.lost, "schedules_diverged": found.diverged,
        "schedules_versions": found.versions, "schedules_ends": found.ends.total(), "schedules_writes_torn": found.torn,
        "schedules_a_minute": round(found.a_minute), "cut_at_every_write": cut.ends.total(), "cut_at_every_write_lost": len(cut.failed),
        "planted_bugs_found": sum(all(one <= MOST for one in each) for each in until.values()),
        **{f"schedules_until_{bug.replace('-', '_')}": " ".join(map(str, each)) for bug, each in until.items()},
    }  # fmt: skip


def _until(bug: str, first: int) -> int:
    """Return after how many schedules a planted bug is found; one more than may be when it is not."""
    found = total(first, MOST, bug=bug, enough=1)
    return found.schedules if found.failed else MOST + 1


if __name__ == "__main__":
    alone("lost", "schedules", measure)
