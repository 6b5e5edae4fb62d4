"""Who speaks, what operators decided, and the log that proves both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edgecloud.registry.rows import ActRow, DeviceKey, LogEntry, Rejection, SignedEnd, TrustRow
from modelwire.wire import cbor
from modelwire.wire.log import Link


class Trusts(Protocol):
    """The fleet's trust records; write-once."""

    def add(self, trust: TrustRow) -> None:
        """Keep a record. Raises LineageError when its number is held already."""

    def all(self) -> list[TrustRow]:
        """Return all of them, oldest first."""

    def newest(self) -> TrustRow: ...


class Acts(Protocol):
    """What the operator decided about devices; write-once."""

    def add(self, act: ActRow) -> None:
        """Keep an act. Raises LineageError when its number is held already."""

    def last(self) -> int:
        """Return the highest number, 0 when there is none."""

    def of(self, device: str) -> list[ActRow]:
        """Return what was decided about a device, oldest first."""


class Devices(Protocol):
    """Devices and their keys. A key belongs to one device; a revoked key stays listed, and so does a rejected one."""

    def add(self, device: str, key: bytes, now: int) -> None:
        """Let `key` speak for `device`. Raises LineageError when the key speaks for a device already."""

    def keys(self, device: str) -> list[DeviceKey]:
        """Return all keys of a device, oldest first; empty when the device is unknown."""

    def revoke(self, device: str, now: int, key: bytes | None = None) -> int:
        """Revoke every key of a device, or one, and return how many that were."""

    def owner(self, key: bytes) -> str | None:
        """Return the device that `key` speaks for now."""

    def reject(self, device: str, key: bytes, now: int) -> None:
        """Hear no more of a key in this device's name; one that is rejected already stays so. What it waits with is forgotten."""

    def rejections(self, device: str | None = None) -> list[Rejection]:
        """Return the rejected keys of a device or of all, in the order of names and times."""

    def is_rejected(self, device: str, key: bytes) -> bool: ...

    def names(self) -> list[str]: ...

    def all_keys(self) -> dict[str, list[DeviceKey]]:
        """Return the keys of every device by its name, oldest first."""


@dataclass(frozen=True, slots=True)
class OwnEntry:
    """What an entry of the log says, as this program entered it."""

    kind: str
    at: int  # Unix seconds
    subject: bytes
    entry: bytes


class RecentEntries:
    """The last entries that this process made, by their links: whoever meets them again has no need to read them.

    What stands under the link of an erased entry is another: so it is held against the one that was made. Threads with a log each may
    share one memory.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._made: dict[bytes, OwnEntry] = {}
        self._most = most

    def keep(self, link: bytes, made: OwnEntry) -> None:
        self._made[link] = made
        while len(self._made) > self._most:
            self._made.pop(next(iter(self._made)), None)

    def get(self, row: LogEntry) -> OwnEntry | None:
        """Return what an entry says that this process made as it stands; None for any other."""
        made = self._made.get(row.link)
        return made if made is not None and made.entry == row.entry and made.subject == row.subject else None


class Log(Protocol):
    """What was decided, in order; write-once, each entry linked to all before it.

    Trust records, acts, commands and their answers, epochs, heads and verdicts are entered by the store as they are kept.
    """

    appended: set[bytes]  # links of entries that were made through this store since the end was signed
    remembered: RecentEntries

    def append(self, kind: str, subject: bytes = b"", **content: cbor.Value) -> int:
        """Enter what was decided, and return the number of the entry. subject: commit of the version that it is about."""

    def end(self) -> Link | None: ...

    def link(self, number: int) -> bytes | None:
        """Return the link of an entry, None where there is none."""

    def after(self, number: int) -> Iterator[LogEntry]:
        """Yield the entries with a higher number, in order."""

    def about_none(self) -> Iterator[LogEntry]:
        """Yield the entries that are about no version, in order: what operators sealed, and epochs."""

    def has_claims(self) -> bool:
        """Return whether any entry gives a claim; an entry that only reads so may count, too."""

    def about(self, subject: bytes) -> Iterator[LogEntry]:
        """Yield the entries about a version, in order."""

    def place(self, subject: bytes) -> int:
        """Return the number of the newest entry about a version, 0 when there is none."""

    def signed(self) -> SignedEnd | None: ...

    def sign(self, end: SignedEnd) -> None:
        """Keep up to where the log is signed now."""
