"""A broker in memory: QoS 1, sessions that outlive a connection, and every way in which a real one loses, repeats and reorders.

A link breaks in the middle of a message; a broker that is killed has forgotten what it said PUBACK to; a message comes late, twice,
behind younger ones, or with a bit flipped. How often, its `Weather` says; when exactly, the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from tests.simulator.timeline import Timeline

LARGEST = 96 * 1024  # bytes of a message
QUEUE = 1000  # messages that a session holds for a client that is away; the oldest stay, as mosquitto does


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad the network is. Shares of messages, seconds."""

    delay: float = 0.2  # on the mean, of each way between a client and the broker
    late: float = 0.01  # come up to `lag` behind the others
    lag: float = 60.0
    twice: float = 0.02  # are delivered again
    breaks: float = 0.005  # break their link, half of them on the way back: the broker has them, and the client does not know
    lost: float = 0.002  # are lost by the broker after its PUBACK, as a full queue does
    flipped: float = 0.001  # come with one bit changed
    old: float = 0.001  # are followed by one of the past, as somebody who listened would replay it
    away: float = 20.0  # seconds on the mean that a broken link stays down
    heard: float = 0.05  # are remembered by who listens, to be said again


CALM = Weather(late=0, twice=0, breaks=0, lost=0, flipped=0, old=0)


class Client(Protocol):
    """Who is connected."""

    def up(self) -> None:
        """The link is there, and the session with what waits in it."""

    def down(self, why: str) -> None: ...

    def accepted(self, ticket: int) -> None:
        """The broker has said PUBACK."""

    def arrived(self, topic: str, data: bytes, mid: int) -> None: ...


@dataclass
class Session:
    """What the broker keeps of one client."""

    name: str
    filters: tuple[str, ...]
    client: Client
    online: bool = False
    life: int = 0  # of its connections
    wanted: bool = True  # it connects again by itself
    queue: dict[int, tuple[str, bytes]] = field(default_factory=dict)  # by message id, until it is acknowledged
    will: tuple[str, bytes] | None = None


@dataclass
class Counts:
    """What the broker did to messages."""

    published: int = 0
    delivered: int = 0
    repeated: int = 0
    late: int = 0
    broken: int = 0
    lost: int = 0
    flipped: int = 0
    replayed: int = 0
    restarts: int = 0
    overflowed: int = 0


class Chance:
    """What befalls which message: by its share of them."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def befalls(self, what: str, share: float) -> bool:
        """Return whether this befalls the message at hand. what: a share's name in `Weather`."""
        return self._rng.random() < share

    def lag(self, most: float) -> float:
        """Return how many seconds a late one is late."""
        return self._rng.uniform(0, most)


class Broker:
    """The broker and the network around it."""

    def __init__(self, time: Timeline, rng: Random, weather: Weather, chance: Chance | None = None) -> None:
        """chance: what strikes which message, where that is not drawn by the weather's shares."""
        self.time, self.rng, self.weather, self.counts = time, rng, weather, Counts()
        self.chance = chance if chance is not None else Chance(rng)
        self.sessions: dict[str, Session] = {}
        self._exact: dict[str, list[Session]] = {}  # sessions that listen to what is about one device, by the device's name
        self._wide: list[Session] = []  # those that listen to all devices
        self._mid = self._ticket = 0
        self._past: list[tuple[str, bytes]] = []
        self.up = True

    def connect(self, name: str, filters: Sequence[str], client: Client, will: tuple[str, bytes] | None = None) -> Session:
        """Take a client in; its link comes up a moment later, and again whenever it broke."""
        session = self.sessions.get(name)
        if session is None:
            session = self.sessions[name] = Session(name, tuple(filters), client)
            for one in filters:
                place = one.split("/")[2]
                (self._wide if place == "+" else self._exact.setdefault(place, [])).append(session)
        session.client, session.wanted, session.will = client, True, will
        self.time.after(self._delay(), lambda: self._link(session))
        return session

    def leave(self, session: Session, *, quietly: bool = False) -> None:
        """End a client's connection; it comes back by `connect` alone. quietly: as a kill does it, so its will is said."""
        session.wanted = False
        if session.online:
            self._unlink(session)
        if quietly and session.will is not None:
            self._route(*session.will)

    def cut(self, session: Session, seconds: float, why: str = "cut") -> None:
        """Break a link for so long."""
        if session.online:
            self._unlink(session)
            self.counts.broken += 1
            self.time.note(f"broken {session.name}")
            if session.will is not None:
                self._route(*session.will)
            session.client.down(why)
        self.time.after(seconds, lambda: self._link(session))

    def restart(self, seconds: float) -> None:
        """Kill the broker: every link breaks, and what waits in the sessions is forgotten, whoever was told PUBACK."""
        self.counts.restarts += 1
        self.time.note("broker killed")
        self.up = False
        for session in self.sessions.values():
            self.counts.lost += len(session.queue)
            session.queue.clear()
            if session.online:
                self._unlink(session)
                session.client.down("the broker is gone")

        def back() -> None:
            self.up = True
            for session in self.sessions.values():
                self._link(session)

        self.time.after(seconds, back)

    def publish(self, session: Session, topic: str, data: bytes) -> int:
        """Take a message from a client that is connected and return its ticket."""
        assert session.online
        assert len(data) <= LARGEST, f"{session.name} sends {len(data)} bytes, and hears nothing but that its link broke"
        self._ticket += 1
        self.counts.published += 1
        ticket, life, rng = self._ticket, session.life, self.rng
        breaks = self.chance.befalls("breaks", self.weather.breaks)
        if breaks and rng.random() < 0.5:  # on its way: nobody has it
            self.time.after(self._delay(), lambda: self._break(session, life))
            return ticket

        def there() -> None:
            if not self.up:
                return
            if breaks:
                self._break(session, life)
            elif session.online and session.life == life:
                session.client.accepted(ticket)
            self._route(topic, data)

        self.time.after(self._delay(), there)
        return ticket

    def acknowledge(self, session: Session, mid: int) -> None:
        """A client has dealt with a message."""
        session.queue.pop(mid, None)

    def inject(self, topic: str, data: bytes) -> None:
        """Let a message come that no client of ours has said."""
        self._route(topic, data)

    # Within.

    def _delay(self) -> float:
        return self.rng.expovariate(1 / self.weather.delay)

    def _link(self, session: Session) -> None:
        if session.online or not session.wanted or not self.up:
            return
        session.online, session.life = True, session.life + 1
        self.time.note(f"up {session.name}")
        session.client.up()
        for mid in list(session.queue):
            self._deliver(session, mid)

    def _unlink(self, session: Session) -> None:
        session.online = False

    def _break(self, session: Session, life: int) -> None:
        if session.online and session.life == life:
            self.cut(session, self.rng.expovariate(1 / self.weather.away), "a message broke it")

    def _route(self, topic: str, data: bytes) -> None:
        weather, rng, chance = self.weather, self.rng, self.chance
        if chance.befalls("lost", weather.lost):
            self.counts.lost += 1
            self.time.note(f"lost {topic}")
            return
        if chance.befalls("flipped", weather.flipped) and data:
            self.counts.flipped += 1
            at = rng.randrange(8 * len(data))
            data = data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
        elif rng.random() < weather.heard:
            self._past.append((topic, data))
            if len(self._past) > 500:
                del self._past[rng.randrange(len(self._past))]
        for session in self._listening(topic):
            self._enqueue(session, topic, data)
        if self._past and chance.befalls("old", weather.old):
            self.counts.replayed += 1
            topic, data = self._past[rng.randrange(len(self._past))]
            for session in self._listening(topic):
                self._enqueue(session, topic, data)

    def _listening(self, topic: str) -> list[Session]:
        levels = topic.split("/")
        near = self._exact.get(levels[2], []) if len(levels) > 2 else []
        return [s for s in (*near, *self._wide) if any(matches(f.split("/"), levels) for f in s.filters)]

    def _enqueue(self, session: Session, topic: str, data: bytes) -> None:
        if len(session.queue) >= QUEUE and not session.online:
            self.counts.overflowed += 1
            return
        self._mid += 1
        session.queue[self._mid] = topic, data
        if session.online:
            self._deliver(session, self._mid)

    def _deliver(self, session: Session, mid: int) -> None:
        life, chance, weather = session.life, self.chance, self.weather
        delay = self._delay()
        if chance.befalls("late", weather.late):
            self.counts.late += 1
            delay += chance.lag(weather.lag)

        def there() -> None:
            message = session.queue.get(mid)
            if message is not None and session.online and session.life == life:
                self.counts.delivered += 1
                self.time.note(f"to {session.name} {message[0]}", message[1])
                session.client.arrived(*message, mid)

        self.time.after(delay, there)
        if chance.befalls("twice", weather.twice):
            self.counts.repeated += 1
            message = session.queue[mid]

            def again() -> None:
                if session.online and session.life == life:
                    self.time.note(f"again to {session.name} {message[0]}", message[1])
                    session.client.arrived(*message, mid)

            self.time.after(delay + self._delay(), again)


def matches(filter: Sequence[str], topic: Sequence[str]) -> bool:
    """Return whether a topic filter of MQTT covers a topic, both cut at their slashes."""
    for i, level in enumerate(filter):
        if level == "#":
            return True
        if i >= len(topic) or level not in ("+", topic[i]):
            return False
    return len(filter) == len(topic)
