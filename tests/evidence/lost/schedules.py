"""Schedules: short lives of real boards and a real centre with losses, repeats, delays, partitions, kills and power cuts at any write.

    python -m tests.evidence.lost.schedules            FULL=1 plays 10^5 of them, and looks for each planted bug from five seeds

At full size they are played in portions, each of other seeds, and each is written down with its date and commit as soon as it is done:
a run that is stopped is gone on with by the next one, on whatever commit that is.
"""

from __future__ import annotations

import json
import sys
import time

from edgecommon.files import write
from tests.evidence.parts import FULL, Figures, alone, commit
from tests.simulator.schedules.many import everywhere, total
from tests.simulator.schedules.planted import BUGS

COUNT, COUNT_OF_FULL, PORTION = 500, 100_000, 2000
MOST = 1000  # schedules in which a planted bug is to be found
FIRST = (1, 200_001, 400_001, 600_001, 800_001)  # seeds from which each is looked for; the first one alone where it is not FULL


def measure(full: bool) -> Figures:
    """Return the figures. full: the sizes that the promise names, which take hours."""
    cut = everywhere(every=1 if full else 8)
    until = {bug: [_until(bug, first) for first in (FIRST if full else FIRST[:1])] for bug in BUGS}
    played = _portions() if full else _played(1, COUNT)  # last: it takes hours
    return {
        **played, "cut_at_every_write": cut.ends.total(), "cut_at_every_write_lost": len(cut.failed),
        "planted_bugs_found": sum(all(one <= MOST for one in each) for each in until.values()),
        **{f"schedules_until_{bug.replace('-', '_')}": " ".join(map(str, each)) for bug, each in until.items()},
    }  # fmt: skip


def _played(first: int, count: int) -> Figures:
    """Play the schedules of so many seeds, and return what came of them."""
    found = total(first, count, progress=True)
    for one in found.failed[:5]:
        print(f"again: python -m tests.simulator --replay '{one.schedule}': {one.failures[0]}", file=sys.stderr)
    return {
        "schedules": found.schedules, "schedules_lost": found.lost, "schedules_diverged": found.diverged,
        "schedules_versions": found.versions, "schedules_ends": found.ends.total(), "schedules_writes_torn": found.torn,
        "schedules_a_minute": round(found.a_minute),
    }  # fmt: skip


def _portions() -> Figures:
    """Play what is missing of all, portion after portion, and return the sums of all that were ever played, with their slowest rate."""
    file = FULL / "schedules.json"
    portions: list[Figures] = json.loads(file.read_text()) if file.exists() else []
    while (done := sum(int(one["schedules"]) for one in portions)) < COUNT_OF_FULL:
        count = min(PORTION, COUNT_OF_FULL - done)
        when = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit()}
        portions.append({**when, "first": done + 1, **_played(done + 1, count)})
        write(file, ("[\n" + ",\n".join(map(json.dumps, portions)) + "\n]\n").encode())
        print(f"{done + count} of {COUNT_OF_FULL} schedules are played", file=sys.stderr)
    sums: Figures = {key: sum(int(one[key]) for one in portions) for key in portions[0] if key.startswith("schedules")}
    slowest = min(int(one["schedules_a_minute"]) for one in portions)
    return {**sums, "schedules_a_minute": slowest, "schedules_commits": len({one["commit"] for one in portions})}


def _until(bug: str, first: int) -> int:
    """Return after how many schedules a planted bug is found; one more than may be when it is not."""
    found = total(first, MOST, bug=bug, enough=1)
    return found.schedules if found.failed else MOST + 1


if __name__ == "__main__":
    alone("lost", "schedules", measure)
