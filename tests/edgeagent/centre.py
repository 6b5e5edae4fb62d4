"""A whole centre in memory, and the link to it, on a clock of its own: parses what the agent says and answers with signed records.

It rebuilds every version for real, so `verified` means here what it means in the field. Faults are functions that a test sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Lost, Will, Woken
from modelwire.errors import LinkError, ModelWireError, TooLarge, WireError
from modelwire.lattice.rebuild import rebuild
from modelwire.lattice.state import ModelState
from modelwire.tensors import F32
from modelwire.update import container
from modelwire.update.manifest import Manifest
from modelwire.update.sections import Kind
from modelwire.wire import numbers, parts, records, topics
from modelwire.wire.records import (
    Command,
    Hello,
    Level,
    Presence,
    Receipt,
    Record,
    Report,
    Response,
    Transfer,
    Trust,
    Wanted,
    Welcome,
)
from modelwire.wire.signing import PrivateKey, Role
from tests import keys

SIGNERS = {Role.RECEIPT: keys.RECEIPT, Role.COMMAND: keys.COMMAND, Role.DIRECTOR: keys.DIRECTOR, Role.ROOT: keys.ROOT}
FAR = 1 << 40  # Unix seconds of an expiry that never comes


class FakeClock:
    """Time that moves only when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now


@dataclass
class Held:
    """One version at the centre."""

    version: int
    commit: bytes
    parent: bytes
    kind: Kind
    level: Level
    header: container.Header
    state: ModelState | None
    size: int
    reason: str = ""
    good: bytes = b""
    good_version: int = 0


@dataclass
class Lineage:
    """What the centre knows of one model of one device."""

    base: bytes = b""
    first: dict[int, bytes] = field(default_factory=dict)  # the base with which each epoch began
    epochs: dict[bytes, int] = field(default_factory=dict)
    versions: dict[int, dict[int, Held]] = field(default_factory=dict)  # by epoch and version
    heads: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    last: int = 0


class Centre:
    """The centre and the transport to it. `up` and `down` list all that was said, in order."""

    def __init__(self, clock: FakeClock, fleet: str = "home") -> None:
        self.clock, self.fleet = clock, fleet
        self.trust: Trust | None = keys.trust(fleet)
        self.signers: dict[Role, PrivateKey] = dict(SIGNERS)
        self.trainers: tuple[int, ...] = (1,)
        self.challenges = False  # whether an epoch is opened only for a hello that answers
        self.wait = 0  # seconds that a welcome asks for
        self.log = b""
        self.last_model = (b"", 0)  # commit and version that a welcome offers to whoever asks
        self.answers_hellos = True  # with their nonce, and of each number that they ask about
        self.lost: set[int] = set()  # numbers that the device gave up, and that nothing is held of
        self.listens: Sequence[str] = ()
        self.reports: list[Report] = []
        self.keys: dict[str, bytes] = {}
        self.bases: dict[bytes, tuple[Manifest, list[F32]]] = {}
        self.lineages: dict[tuple[str, str], Lineage] = {}
        self.commands: list[Command] = []
        self.answers: list[Response] = []
        self.presence: list[Presence] = []
        self.up: list[tuple[str, object]] = []
        self.down: list[Record] = []
        self.pieces: dict[bytes, tuple[Transfer, dict[int, bytes]]] = {}
        self.drop_up: Callable[[str, object], bool] = lambda leaf, said: False
        self.drop_down: Callable[[Record], bool] = lambda record: False
        self.refuse: Callable[[container.Header], str] = lambda header: ""
        self.most = 96 * 1024
        self.online = True
        self._at: list[tuple[float, Callable[[], None]]] = []
        self._queue: list[Event] = []
        self.stood_aside: list[str] = []
        self._unacknowledged: dict[int, Arrived] = {}
        self._up = False
        self._will: Will | None = None
        self._tickets = 0

    # For tests.

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        self._at.append((self.clock.now + seconds, do))

    def cut(self) -> None:
        """Take the link down; messages that were not acknowledged come again later."""
        self.online = False
        if self._up:
            self._up = False
            self._queue = [Lost("cut"), *(e for e in self._queue if isinstance(e, Woken))]

    def mend(self) -> None:
        self.online = True

    def said(self, leaf: str) -> list[object]:
        """Return what came on up/`leaf`, in order."""
        return [s for at, s in self.up if at == leaf]

    def updates(self) -> list[container.Container]:
        return [s for s in self.said("update") if isinstance(s, container.Container)]

    def held(self, device: str, model: str, epoch: int | None = None) -> dict[int, Held]:
        lineage = self.lineages[device, model]
        return lineage.versions[epoch or max(lineage.versions)]

    def push(self, record: Record, leaf: str = "cmd") -> None:
        """Say something to the device unasked."""
        self._say(record, leaf)

    def deliver(self, topic: str, data: bytes) -> None:
        """Let bytes arrive at the device as they are, whoever made them."""
        self._queue.append(Arrived(topic, data, 0))

    # As a transport.

    @property
    def largest(self) -> int:
        return self.most

    def open(self, will: Will, listen: Sequence[str]) -> None:
        self._will, self.listens = will, listen

    def poll(self, timeout: float) -> Event | None:
        end = self.clock.now + timeout
        while True:
            for at, do in sorted(self._at, key=lambda a: a[0]):
                if at <= self.clock.now:
                    self._at.remove((at, do))
                    do()
            if self.online and not self._up and self._will is not None:
                self._up = True
                self._queue = [Connected(), *self._unacknowledged.values(), *self._queue]
            if self._queue:
                return self._queue.pop(0)
            soonest = min([end, *(at for at, _ in self._at)])
            if self.clock.now >= end:
                return None
            self.clock.now = max(self.clock.now, soonest)

    def send(self, topic: str, data: bytes, *, retain: bool = False) -> int:
        if not self._up:
            raise LinkError(broker="memory", reason="the link is down")
        if len(data) > self.most:
            raise TooLarge(what="a message", size=len(data), limit=self.most)
        self._tickets += 1
        self._queue.append(Accepted(self._tickets))
        place = topics.parse(topic)
        said = _read(data)
        if not self.drop_up(place.leaf, said):
            self.up.append((place.leaf, said))
            self._take(place, said, data)
        return self._tickets

    def acknowledge(self, message: Arrived) -> None:
        assert isinstance(message.token, int)
        self._unacknowledged.pop(message.token, None)

    def stand_aside(self, why: str) -> None:
        self.stood_aside.append(why)

    def wake(self) -> None:
        self._queue.append(Woken())

    def close(self, farewell: Will | None = None) -> None:
        if self._up and farewell is not None:
            self.send(farewell.topic, farewell.data, retain=True)
        self._up = False
        self._will = None
        self._queue.clear()

    # As a centre.

    def _take(self, place: topics.Topic, said: object, data: bytes) -> None:
        if isinstance(said, container.Container):
            said.verify(self.keys.get(said.header.device, bytes(32)), keys.FLEET_ID)
            self._ingest(place, said)
        elif isinstance(said, parts.Part):
            transfer, have = self.pieces[said.id]
            parts.check(transfer, said)
            have[said.index] = said.data
            if len(have) == parts.count(transfer):
                whole = parts.join(transfer, have)
                self.up.append(("update", container.parse(whole)))
                self._ingest(place, container.parse(whole))
        elif isinstance(said, Hello):
            self._welcome(said)
        elif isinstance(said, Response):
            self.answers.append(said)
            self.commands = [c for c in self.commands if c.number != said.number]
        elif isinstance(said, Report):
            self.reports.append(said)
        elif isinstance(said, Presence):
            self.presence.append(said)
        elif isinstance(said, Transfer):
            transfer, have = self.pieces.setdefault(said.id, (said, {}))
            if len(have) == parts.count(transfer):
                self._ingest(place, container.parse(parts.join(transfer, have)))
            else:
                self._say(Wanted(*_names(said), self._now(), said.id, parts.bitmap(set(have), parts.count(transfer))), "part")

    def _welcome(self, h: Hello) -> None:
        lineage = self.lineages.setdefault((h.device, h.model), Lineage())
        if self.trust is not None and h.trust < self.trust.number:
            self._say(self.trust, "trust")
        if self.keys.get(h.device) != h.key:
            self._say(self.welcome(h, "quarantine"), "cmd")
            return
        if h.base not in self.bases:
            self._say(self.welcome(h, "unknown-base"), "cmd")
            return
        if self.challenges and h.state not in lineage.epochs and h.answer != self.challenge(h):
            self._say(self.welcome(h, "challenge", challenge=self.challenge(h)), "cmd")
            return
        lineage.base = h.base
        if h.state not in lineage.epochs:
            epoch = max(lineage.epochs.values(), default=0) + 1
            lineage.epochs[h.state] = epoch
            lineage.versions[epoch] = {}
            lineage.heads[epoch], lineage.first[epoch] = (0, h.base), h.base
        epoch = lineage.epochs[h.state]
        version, commit = lineage.heads[epoch]
        verified = 0
        for n, v in sorted(lineage.versions[epoch].items()):
            if v.level is Level.STORED:
                break
            verified = n if v.level is Level.VERIFIED else verified
        offer = self.last_model if h.resume and not version else (b"", 0)
        missing = self._answer_about_numbers(h, lineage.versions[epoch], epoch) if self.answers_hellos else {}
        w = self.welcome(h, "ok", epoch, lineage.last, commit, version, verified, resume=offer[0], resume_version=offer[1])
        self._say(replace(w, more={**w.more, **missing}), "cmd")
        for c in self.commands:
            if (c.device, c.model) == (h.device, h.model):
                self._say(c, "cmd")

    def _answer_about_numbers(self, h: Hello, held: dict[int, Held], epoch: int) -> dict[str, Any]:
        """Say again what is held of the numbers that a hello asks about, and return what the welcome says of the others."""
        nothing = []
        for key in (numbers.LOST, numbers.DROPPED, numbers.UNSURE):
            for at, n in (pair for span in numbers.read(h.more, key) for pair in span):
                if at == epoch and n in held and held[n].level is not Level.STORED:
                    self._repeat(held[n], {numbers.NONCE: numbers.nonce_in(h.more)})
                elif key != numbers.UNSURE and not (at == epoch and n in held):
                    nothing.append((at, n))
        self.lost |= {n for _, n in nothing}
        return numbers.said(numbers.MISSING, numbers.spans(nothing))

    def welcome(self, h: Hello, status: str, *places: int | bytes, **others: object) -> Welcome:
        """Return the answer to a hello. places: epoch, last version, head, its version, verified; the base alone when not given."""
        nonce = numbers.nonce_in(h.more)
        said: dict[str, Any] = {"more": {numbers.NONCE: nonce} if nonce and self.answers_hellos else {}, **others}
        return welcome_of(
            *_names(h), h.state, status, *(places or (0, 0, h.base, 0, 0)), at=self._now(), time=self._now(), wait=self.wait, log=self.log,
            trainers=self.trainers, **said,
        )  # fmt: skip

    def challenge(self, h: Hello) -> bytes:
        slot = self._now() // 600
        return hashlib.sha256(b"|".join([h.device.encode(), h.model.encode(), h.key, h.state, str(slot).encode()])).digest()

    def _ingest(self, place: topics.Topic, c: container.Container) -> None:
        h = c.header
        assert (h.device, h.model) == (place.device, place.model)
        lineage = self.lineages.get((h.device, h.model))
        if lineage is None or not lineage.base:
            return
        if h.epoch != max(lineage.epochs.values()):
            self._receipt(h, c.commit, Level.REFUSED, f"epoch {h.epoch} is closed")
            return
        versions = lineage.versions[h.epoch]
        known = versions.get(h.version)
        if known is not None:
            if known.commit == c.commit:
                self._repeat(known)
            else:
                self._receipt(h, c.commit, Level.REFUSED, "conflict", lineage.heads[h.epoch])
            return
        head_version, head = lineage.heads[h.epoch]
        if h.parent != head:
            if h.parent in {v.commit for v in versions.values()} | {lineage.first[h.epoch]}:
                self._receipt(h, c.commit, Level.REFUSED, "stale parent", (head_version, head))
            return  # an orphan
        made = Held(h.version, c.commit, h.parent, h.kind, Level.STORED, h, None, c.size)
        versions[h.version] = made
        lineage.heads[h.epoch] = (h.version, c.commit)
        lineage.last = max(lineage.last, h.version)
        self._repeat(made)
        self._verify(lineage, made, c, head_version, head)

    def _verify(self, lineage: Lineage, made: Held, c: container.Container, good_version: int, good: bytes) -> None:
        parent = next((v.state for v in lineage.versions[made.header.epoch].values() if v.commit == made.parent), None)
        reason = self.refuse(made.header)
        if not reason:
            try:
                start = parent or ModelState.of_base(*self.bases[lineage.first[made.header.epoch]])
                if c.header.base and c.header.base != start.manifest.commit and c.header.base in self.bases:  # it goes over to another one
                    start = ModelState.of_base(*self.bases[c.header.base])
                made.state = rebuild(start, c)
            except ModelWireError as e:
                reason = e.message
        if reason:
            made.level, made.reason, made.good, made.good_version = Level.REFUSED, reason, good, good_version
            lineage.heads[made.header.epoch] = (good_version, good)
        else:
            made.level = Level.VERIFIED
        self._repeat(made)

    def _repeat(self, v: Held, more: dict[str, Any] | None = None) -> None:
        self._receipt(v.header, v.commit, v.level, v.reason, (v.good_version, v.good), more)

    def _receipt(
        self, h: container.Header, commit: bytes, level: Level, reason: str = "", good: tuple[int, bytes] = (0, b""),
        more: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        refused = level is Level.REFUSED
        self._say(
            Receipt(
                self.fleet, h.device, h.model, self._now(), h.epoch, h.version, commit, level, reason, good[1] if refused else b"",
                good[0] if refused else 0, 0, more=more or {},
            ),
            "receipt",
        )  # fmt: skip

    def _say(self, record: Record, leaf: str) -> None:
        if self.drop_down(record):
            return
        self.down.append(record)
        self._tickets += 1
        data = records.encode(record, self.signers[role_of(record)], keys.FLEET_ID, role=role_of(record))
        message = Arrived(topics.down(record.fleet, record.device, record.model, leaf), data, self._tickets)
        self._unacknowledged[self._tickets] = message
        if self._up:
            self._queue.append(message)

    def _now(self) -> int:
        return int(self.clock.wall())


def role_of(record: Record) -> Role:
    """Return the role in which a centre says a record."""
    return next(role for role in record.ROLES if role in SIGNERS)


def welcome_of(
    fleet: str, device: str, model: str, state: bytes, status: str, *numbers: int | bytes, at: int = 0, **others: object
) -> Welcome:
    """Return a welcome that says no more than is given. numbers: epoch, last version, head, its version, verified."""
    said: dict[str, Any] = {
        "time": 0, "challenge": b"", "wait": 0, "log": b"", "resume": b"", "resume_version": 0, "trainers": (1,), **others
    }  # fmt: skip
    given: Sequence[Any] = numbers
    return Welcome(fleet, device, model, at, state, status, *given, **said)


def _names(record: Record) -> tuple[str, str, str]:
    return record.fleet, record.device, record.model


def _read(data: bytes) -> object:
    for parse in (container.parse, parts.parse):
        try:
            return parse(data)
        except WireError:
            continue
    return records.parse(data).record
