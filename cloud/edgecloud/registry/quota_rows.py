"""Rows of how much each device may send and what it has used of that: frozen, as all others (rows.py)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """What one device may take of the centre, or all that have no row of their own. None: as the row above it says."""

    bytes_a_day: int | None = None  # of updates and parts whose signature is good
    versions_an_hour: int | None = None
    cpu_an_hour: int | None = None  # seconds of work on what it sent: taking it in, rebuilding it, training it again
    open_transfers: int | None = None  # updates that come in parts, at a time
    disk_bytes: int | None = None  # of its updates, those that wait included

    def over(self, above: QuotaRow) -> QuotaRow:
        """Return this row with what it leaves open from another one."""
        return replace(above, **{name: value for name in NAMES if (value := getattr(self, name)) is not None})


NAMES = tuple(field.name for field in fields(QuotaRow))
# A car that trains each ten minutes sends 144 updates of some 20 KB a day: 3 MB, and in ten years 10 GB.
USUAL = QuotaRow(bytes_a_day=512 * MIB, versions_an_hour=3600, cpu_an_hour=900, open_transfers=4, disk_bytes=16 * GIB)


@dataclass(frozen=True, slots=True)
class UsedRow:
    """What a device has used: of the day and hour that it is, in UTC, and what it holds now."""

    bytes: int = 0  # this day
    versions: int = 0  # this hour
    cpu: float = 0.0  # seconds, this hour
    transfers: int = 0
    disk: int = 0  # bytes; an open transfer counts in full
