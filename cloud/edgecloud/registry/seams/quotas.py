"""How much each device may take of the centre, and what it has taken."""

from __future__ import annotations

from typing import Protocol

from edgecloud.registry.quota_rows import QuotaRow, UsedRow

ALL = ""  # in the place of a device: all that have no row of their own


class Quotas(Protocol):
    """Limits that an operator set, and what counts against them. A device that is erased leaves neither."""

    def of(self, device: str) -> QuotaRow:
        """Return what a device may take: no field is None."""

    def own(self, device: str) -> QuotaRow | None:
        """Return what was set for one device, or for `ALL`; None where nothing was."""

    def rows(self) -> dict[str, QuotaRow]:
        """Return what was set, by device."""

    def set(self, device: str, row: QuotaRow, now: int) -> None:
        """Set what a device may take, in the place of what was set before. A row without any value is none."""

    def used(self, device: str, now: int) -> UsedRow: ...

    def count(self, device: str, now: int, *, bytes: int = 0, versions: int = 0, cpu: float = 0.0) -> None:
        """Count what a device has used. cpu: seconds."""

    def users(self) -> list[str]:
        """Return the devices of which anything was ever counted, in order."""

    def admitted(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Return the next keys' numbers and their devices."""
