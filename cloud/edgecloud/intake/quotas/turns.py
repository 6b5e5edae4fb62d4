"""Which stored version is rebuilt next: a queue for each device, one of each in its turn, every queue in the order of its versions."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable


class VersionTurns:
    """Numbers of versions that wait, by device. For one thread; it forgets nothing that the registry does not know."""

    def __init__(self, most: int = 50_000) -> None:
        """most: numbers kept; who fills it asks again later."""
        self._most, self._count = most, 0
        self._queues: OrderedDict[str, deque[int]] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        return self._count >= self._most

    def add(self, device: str, id: int) -> None:
        self._queues.setdefault(device, deque()).append(id)
        self._count += 1

    def next(self, limit: int) -> list[int]:
        """Return the next numbers, at most so many: one of each device, then the second of each."""
        out: list[int] = []
        while self._queues and len(out) < limit:
            device, queue = next(iter(self._queues.items()))
            out.append(queue.popleft())
            self._count -= 1
            if queue:
                self._queues.move_to_end(device)
            else:
                del self._queues[device]
        return out

    def first_of(self, devices: Iterable[str]) -> int | None:
        """Return the next number of the first of these that has one."""
        for device in devices:
            queue = self._queues.get(device)
            if queue:
                self._count -= 1
                id = queue.popleft()
                if not queue:
                    del self._queues[device]
                return id
        return None

    def holds(self, device: str) -> bool:
        """Return whether a device has a number here."""
        return device in self._queues

    @property
    def devices(self) -> list[str]:
        """The devices that have a number here."""
        return list(self._queues)

    def clear(self) -> None:
        self._queues.clear()
        self._count = 0
