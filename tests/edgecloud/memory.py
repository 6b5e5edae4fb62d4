"""A Transport in memory, for tests of the ingester without a broker: persistent sessions, redelivery of what was not acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from edgecloud.intake.transport import Delivery
from modelwire.wire import topics


@dataclass
class Session:
    """What a broker keeps for one client id, whether it is there or not."""

    filter: str
    waiting: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)  # on the present connection


class MemoryBroker:
    """At least once to every session whose filter matches. `published` holds all that ever went through."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.sessions: dict[str, Session] = {}
        self.published: list[tuple[str, bytes]] = []
        self._next = 0

    def publish(self, topic: str, data: bytes) -> None:
        with self.lock:
            self.published.append((topic, data))
            for session in self.sessions.values():
                if _matches(session.filter, topic):
                    self._next += 1
                    session.waiting[self._next] = (topic, data)
            self.lock.notify_all()

    def down(self) -> list[tuple[str, bytes]]:
        """Return what went down to devices so far."""
        with self.lock:
            return [(t, d) for t, d in self.published if topics.parse(t).way == "dn"]


class MemoryTransport:
    """Implements edgecloud.intake.transport.IntakeTransport over a MemoryBroker."""

    name = "memory"

    def __init__(self, broker: MemoryBroker, *, fleet: str, client_id: str) -> None:
        self._broker, self._filter, self._id = broker, topics.all_up(fleet), client_id
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._connection = 0

    @property
    def connected(self) -> bool:
        return self._thread is not None

    @property
    def trouble(self) -> None:
        return None

    def start(self, receive: Callable[[Delivery], None]) -> None:
        with self._broker.lock:
            session = self._broker.sessions.setdefault(self._id, Session(self._filter))
            session.sent.clear()
        self._stopping = False
        self._connection += 1
        self._thread = threading.Thread(target=self._deliver, args=(session, receive), daemon=True)
        self._thread.start()

    def publish(self, topic: str, data: bytes) -> None:
        self._broker.publish(topic, data)

    def acknowledge(self, delivery: Delivery) -> None:
        connection, id = delivery.token  # type: ignore[misc]
        if connection == self._connection and self._thread is not None:
            with self._broker.lock:
                self._broker.sessions[self._id].waiting.pop(id, None)

    @property
    def client_id(self) -> str:
        return self._id

    @property
    def takeovers(self) -> int:
        return 0  # who starts with a name that is in use is an error of the test

    @property
    def ousted(self) -> str:
        return ""

    def drain(self, seconds: float) -> bool:
        return True

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        with self._broker.lock:
            self._stopping = True
            self._broker.lock.notify_all()
        if thread is not None:
            thread.join(10)

    def _deliver(self, session: Session, receive: Callable[[Delivery], None]) -> None:
        while True:
            with self._broker.lock:
                fresh = [i for i in session.waiting if i not in session.sent]
                if self._stopping:
                    return
                if not fresh:
                    self._broker.lock.wait(0.2)
                    continue
                id = fresh[0]
                session.sent.add(id)
                topic, data = session.waiting[id]
            receive(Delivery(topic, data, (self._connection, id)))


def _matches(filter: str, topic: str) -> bool:
    wanted, given = filter.split("/"), topic.split("/")
    for i, part in enumerate(wanted):
        if part == "#":
            return True
        if i >= len(given) or part not in ("+", given[i]):
            return False
    return len(wanted) == len(given)
