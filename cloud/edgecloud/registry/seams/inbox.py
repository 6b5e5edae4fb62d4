"""What waits, what is lost or refused, what was asked for, and notes."""

from __future__ import annotations

from typing import Protocol

from edgecloud.registry.rows import AlarmRow, Annotation, LostRow, OpenTransfer, Parked, Refusal, Request, WaitingMessage, WitnessRow


class Inbox(Protocol):
    """What can't be linked yet: orphans, and messages that wait for the operator."""

    def park(self, orphan: Parked) -> None:
        """Keep an orphan; one with the same commit is left as it is."""

    def parked(self, commit: bytes) -> Parked | None: ...

    def orphans(self, device: str) -> list[Parked]:
        """Return a device's orphans, the lowest version first."""

    def children(self, parent: bytes) -> list[Parked]:
        """Return the orphans that wait for this commit, the lowest version first."""

    def outrun(self, lineage: int, version: int) -> list[Parked]:
        """Return a lineage's orphans with a number up to this one, the lowest first."""

    def unpark(self, commit: bytes) -> None: ...

    def parked_sizes(self, device: str) -> list[tuple[bytes, int, int]]:
        """Return commit, version and bytes of a device's orphans, the lowest version first."""

    def is_parked(self, digest: bytes) -> bool:
        """Return whether the container with this digest is an orphan."""

    def hold(self, message: WaitingMessage) -> None:
        """Keep a message; one with the same device, model, kind and mark is replaced, and counted: it keeps its first time.

        `id`, `first_at` and `times` of the message are ignored.
        """

    def held(self, device: str | None = None, kind: str | None = None) -> list[WaitingMessage]:
        """Return what waits, of one device or of all, and of one kind or of all; updates are large."""

    def holds(self, device: str, model: str, kind: str, mark: bytes) -> bool: ...

    def held_size(self, device: str, kind: str) -> tuple[int, int]:
        """Return how many messages of this kind a device has waiting and their bytes."""

    def held_total(self, kind: str) -> tuple[int, int]:
        """Return how many messages of this kind wait in all and their bytes."""

    def expire(self, before: int) -> int:
        """Forget messages that came before this time, and return how many that were."""

    def make_room(self, kind: str, device: str | None = None) -> None:
        """Forget one message of a kind, of one device or of all: of those that came least often, the one not heard of for longest.

        The first that waits in a device's name, for a key or for a base, goes only when nothing else is left.
        """

    def release(self, message: int) -> None: ...

    def released(self, limit: int) -> list[WaitingMessage]:
        """Return messages whose device has a key that was not tried on them yet, or whose base has come.

        Other than a hello, they wait for the model to have said hello, too.
        """


class Losses(Protocol):
    """What boards say against this registry: versions and links of the log that it does not hold."""

    def note(self, lost: LostRow) -> None:
        """Keep that a number is lost; one that is noted stays as it is."""

    def of(self, lineage: int) -> list[LostRow]:
        """Return the lost numbers of a lineage, the lowest first."""

    def holds(self, lineage: int, epoch: int, version: int) -> bool:
        """Return whether a number is noted as lost."""

    def count(self, lineage: int) -> int: ...

    def testify(self, witness: WitnessRow, keep: int) -> bool:
        """Keep what a board has seen, at most so many of one board, and return whether it is new."""

    def witnesses(self, device: str | None = None) -> list[WitnessRow]:
        """Return what one board has seen, or all of them, the oldest first."""

    def raise_alarm(self, alarm: AlarmRow) -> bool:
        """Keep an alarm, or count it with the one of its kind; return whether it is news: new, or acknowledged before."""

    def alarms(self, device: str | None = None, *, only_open: bool = False) -> list[AlarmRow]:
        """Return the alarms about one device, or all, the oldest first."""

    def acknowledge(self, device: str, now: int) -> int:
        """Mark the open alarms about a device as seen, and return how many those were. device: empty for the centre's own."""


class Refusals(Protocol):
    """The last refusals; one message has one row."""

    def add(self, refusal: Refusal, keep: int) -> None:
        """Keep a refusal, or count a repeat, and forget all but the last `keep`."""

    def by_commit(self, commit: bytes) -> Refusal | None:
        """Return the refusal of an update whose signature was good."""

    def numbered(self, device: str, model: str, epoch: int, version: int) -> list[Refusal]:
        """Return the refusals of updates under one number, oldest first."""

    def by_digest(self, digest: bytes) -> Refusal | None: ...

    def drop(self, digest: bytes) -> None:
        """Forget a refusal: the same message is looked at anew when it comes again."""

    def last(self, limit: int, device: str | None = None, model: str | None = None) -> list[Refusal]:
        """Return the newest refusals first."""

    def count(self) -> int: ...


class Requests(Protocol):
    """What the operator asks devices for."""

    def add(self, request: Request) -> None: ...

    def last(self, lineage: int) -> int:
        """Return the highest number that a request of this lineage has, 0 when there is none."""

    def open(self, now: int, lineage: int | None = None) -> list[Request]:
        """Return requests without an answer that have not expired, oldest first."""

    def of(self, lineage: int) -> list[Request]: ...

    def answer(self, number: int, lineage: int, ok: bool, text: str, now: int, body: bytes = b"") -> bool:
        """Keep the answer to a request of this lineage that has none, and return whether there was one."""


class Transfers(Protocol):
    """Containers that come in parts."""

    def open(self, transfer: OpenTransfer) -> None:
        """Keep a transfer; one with the same id keeps its parts."""

    def get(self, transfer: bytes) -> OpenTransfer | None: ...

    def find(self, transfer: bytes, index: int) -> tuple[OpenTransfer, bool] | None:
        """Return a transfer and whether this part of it is held, by one look."""

    def of(self, device: str) -> list[OpenTransfer]:
        """Return a device's transfers, the one longest untouched first."""

    def all(self) -> list[OpenTransfer]:
        """Return all transfers, the one longest untouched first."""

    def put(self, transfer: bytes, index: int, data: bytes, now: int) -> None:
        """Keep a part that is not held yet."""

    def tried(self, transfer: bytes, on: bytes, now: int) -> None:
        """Remember that it was whole, joined, and not taken."""

    def held(self, transfer: bytes) -> set[int]: ...

    def pieces(self, transfer: bytes) -> dict[int, bytes]: ...

    def close(self, transfer: bytes) -> None:
        """Forget a transfer and its parts."""


class Annotations(Protocol):
    """Free notes."""

    def add(self, kind: str, object: str, text: str, now: int) -> Annotation: ...

    def of(self, kind: str, object: str) -> list[Annotation]: ...
