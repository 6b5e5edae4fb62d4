"""Holds what a device sends against its quota, and asks it to wait where that is used up: nothing is lost, it comes later.

Only what a device has signed counts, and only a device that has signed is told: nobody is silenced by what others send in its name.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence

from edgecloud.registry import QuotaRow, Store, UsedRow
from modelwire.wire.records import Wait

from ..decision import Context, Decision, Reply, Result

HOUR, DAY = 3600, 24 * 3600
LONGEST = HOUR  # seconds: an operator may have given it more meanwhile
SIGNED = (Result.STORED, Result.REPEATED, Result.PARKED, Result.REFUSED, Result.WAITS, Result.WELCOMED)
SPREAD = 120  # seconds over which devices come back that were all told to wait until the same hour


def told_to_wait(
    context: Context, device: str, model: str, *, size: int, versions: int = 0, disk: int = 0, transfers: int = 0
) -> Decision | None:
    """Return the word that asks a device to wait, None while what it sends is within its quota.

    size, disk: bytes that it would send and hold more; versions, transfers: how many more of those.
    """
    quota, used = context.store.quotas.of(device), context.store.quotas.used(device, context.now)
    found = _exceeded(quota, used, size, versions, disk, transfers)
    if found is None:
        return None
    reason, window = found
    left = window - context.now % window if window else LONGEST
    seconds = min(left, LONGEST) + zlib.crc32(device.encode()) % SPREAD
    said = Wait(context.store.fleet, device, model, context.now, seconds, reason)
    return Decision(Result.WAITS, device, model, reason=f"{reason} (edgecloud limits show {device})", replies=(Reply("cmd", said),))


def count_work(store: Store, outcomes: Sequence[Decision], took: Sequence[float], now: int) -> None:
    """Count the seconds that were worked on messages, for those devices that have signed them. Within the transaction of these."""
    work: defaultdict[str, float] = defaultdict(float)
    for outcome, seconds in zip(outcomes, took, strict=True):
        if outcome.result in SIGNED:
            work[outcome.device] += seconds
    for device, seconds in work.items():
        store.quotas.count(device, now, cpu=seconds)


def _exceeded(quota: QuotaRow, used: UsedRow, size: int, versions: int, disk: int, transfers: int) -> tuple[str, int] | None:
    """Return what is said of a quota that is used up, and the length of its window in seconds, 0 for what has none."""
    for what, most in (("bytes a day", quota.bytes_a_day), ("bytes on disk", quota.disk_bytes)):
        if most is not None and size > most:
            return f"its {most} {what} are too few for this update of {size}: it waits until an operator allows more", 0
    rows = (
        ("bytes a day", quota.bytes_a_day, used.bytes + size, DAY),
        ("versions an hour", quota.versions_an_hour, used.versions + versions, HOUR),
        ("seconds of work an hour", quota.cpu_an_hour, int(used.cpu) + 1, HOUR),  # what it will take is not known
        ("bytes on disk", quota.disk_bytes, used.disk + disk, 0),
        ("open transfers", quota.open_transfers, transfers, 0),  # of more than one the one longest untouched makes room
    )
    for what, most, then, window in rows:
        if most is not None and then > most:
            return f"its {most} {what} are used up; it goes on {'by itself' if window else 'when it may have more'}", window
    return None
