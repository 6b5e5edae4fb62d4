"""Cuts a failing schedule down to what makes it fail: delta debugging on the list of its troubles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .schedule import Schedule


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool], tries: int = 120) -> Schedule:
    """Return the shortest schedule that was found to fail, too: no single trouble of it can go, unless the tries came to an end.

    tries: schedules that may be played. Source: Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002.
    """
    pieces = 2
    while len(schedule.troubles) and tries > 0:
        size, found = max(1, len(schedule.troubles) // pieces), False
        for start in range(0, len(schedule.troubles), size):
            less = replace(schedule, troubles=schedule.troubles[:start] + schedule.troubles[start + size :])
            tries -= 1
            if fails(less):
                schedule, pieces, found = less, max(2, pieces - 1), True
                break
            if tries <= 0:
                return schedule
        if not found:
            if size == 1:
                break
            pieces *= 2
    return _fewer(schedule, fails)


def _fewer(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Return it with fewer rounds, and with one board where the other is in no trouble."""
    for rounds in range(1, schedule.rounds):
        if fails(less := replace(schedule, rounds=rounds)):
            schedule = less
            break
    boards = 1 + max((t.who for t in schedule.troubles), default=0)
    if 1 <= boards < schedule.boards and fails(less := replace(schedule, boards=boards)):
        schedule = less
    return schedule
