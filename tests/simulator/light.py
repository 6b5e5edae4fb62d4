"""A light device: a script that seals real containers and keeps the delivery contract, cheap enough for tens of thousands of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from modelwire.errors import ModelWireError
from modelwire.wire import parts, records, topics
from modelwire.wire.records import Command, Record, Wanted, Welcome
from modelwire.wire.signing import Role
from tests.edgecloud.device import BULK, FLEET, PART, Base, ScriptedDevice, Sent
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, RECEIPT, ROOT
from tests.simulator.broker import Broker, Session
from tests.simulator.made import GIVEN_UP, VERIFIED, WAITING, Made
from tests.simulator.timeline import Timeline

WINDOW = 4  # updates on their way without a receipt
MOST_WAITING = 8  # a device that waits for so many trains no more
HELLO, HELLO_MOST, HELLO_AGAIN = 10.0, 100.0, 3600.0  # seconds
RESEND, RESEND_MOST = 15.0, 240.0
SPEAKS = {Role.RECEIPT: RECEIPT.public, Role.COMMAND: COMMAND.public, Role.DIRECTOR: DIRECTOR.public, Role.ROOT: ROOT.public}


@dataclass(frozen=True, slots=True)
class Habits:
    """What a light device does. Shares of its updates; seconds."""

    every: float = 60.0  # on the mean, between two updates
    snapshots: float = 0.03
    recipes: float = 0.02
    bulky: float = 0.02  # go in parts
    rebased: float = 0.005  # go over to another base
    lies: float = 0.003


class LightDevice:
    """A ScriptedDevice on a link. It makes `quota` updates and sends each until there is a last word on it."""

    DEVICE: type[ScriptedDevice] = ScriptedDevice

    def __init__(self, time: Timeline, broker: Broker, rng: Random, name: str, bases: Sequence[Base], habits: Habits, quota: int) -> None:
        self.time, self.broker, self.rng, self.name, self.bases, self.habits = time, broker, rng, name, bases, habits
        self.device = self.DEVICE(bases[0], name=name, seed=rng.randrange(1 << 30))
        self.quota, self.made, self.unheard = quota, 0, 0
        self.lies: set[bytes] = set()
        self.answered: set[int] = set()  # numbers of the commands that it has followed
        self._verified: set[bytes] = set()  # commits
        self.left = False
        self._session: Session | None = None
        self._life = 0  # of its connections
        self._welcomed = False
        self._hello_wait, self._hellos = HELLO, 0
        self._sent: dict[int, float] = {}  # version: when it was last handed over on this connection
        self._resend = RESEND
        self._training = False

    @property
    def key(self) -> bytes:
        return self.device.key.public

    def start(self) -> None:
        d = self.device
        filters = (topics.all_down(FLEET, self.name), topics.trust_of_all(FLEET))
        self._session = self.broker.connect(self.name, filters, self, will=d.presence(False, 1))
        self._plan_training()

    def settled(self) -> bool:
        """Return whether there is nothing that it still has to make or to send."""
        return self.left or (self.made >= self.quota and not self.device.waiting)

    def past(self) -> Iterator[Made]:
        """Yield all that it ever made."""
        d = self.device
        for version, sent in d.made.items():
            fate = WAITING if version in d.waiting else GIVEN_UP if version in d.refused or sent.commit not in self._verified else VERIFIED
            yield Made(version, sent.commit, sent.root, sent.file_sha256, fate, sent.commit in self.lies)

    # What befalls it.

    def reflash(self) -> None:
        """Lose the state, keep the key: what waited is lost with it."""
        self.device.reflash()
        self.time.note(f"reflashed {self.name}")
        self._sent.clear()
        self._welcomed, self._hello_wait = False, HELLO
        self._say_hello()

    def leave(self) -> int:
        """Go for good: its operator has it erased. Return how many updates it has not made yet."""
        left, self.left, self.quota = self.quota - self.made, True, self.made
        self._life += 1
        if self._session is not None:
            self.broker.leave(self._session)
        return left

    def take_over(self, more: int) -> None:
        """Make so many updates more."""
        self.quota += more
        self._plan_training()

    def cut(self, seconds: float) -> None:
        if self._session is not None:
            self.broker.cut(self._session, seconds)

    # As a client of the broker.

    def up(self) -> None:
        self._life += 1
        self._welcomed, self._hello_wait, self._resend = False, HELLO, RESEND
        self._sent.clear()
        self._say_hello()
        self._say(*self.device.presence(True, 1))
        self._send_again(self._life)

    def down(self, why: str) -> None:
        self._life += 1

    def accepted(self, ticket: int) -> None:
        pass

    def arrived(self, topic: str, data: bytes, mid: int) -> None:
        assert self._session is not None
        try:
            signed = records.parse(data)
            signed.verify(SPEAKS.get(signed.role, b"\0" * 32), FLEET_ID, "the centre", signed.role)
        except ModelWireError:  # a bit of it was changed on the way
            self.unheard += 1
        else:
            self._hear(signed.record)
        self.broker.acknowledge(self._session, mid)

    def _hear(self, record: Record) -> None:
        d = self.device
        if (record.device, record.model) != (d.name, d.model) and not isinstance(record, records.Trust):
            return
        before = dict(d.waiting)
        answer = d.hear(record)
        for version in before.keys() - d.waiting.keys():
            if version not in d.refused:
                self._verified.add(before[version].commit)
            self._resend = RESEND
        if answer is not None:
            self.time.note(f"mends {d.name}@{answer.version}")
        if isinstance(record, Welcome):
            self._welcome(record)
        elif isinstance(record, Wanted):
            self._send_parts(record)
        elif isinstance(record, Command) and record.state == d.state_id and record.epoch == d.epoch:
            self._follow(record)
        self._fill()

    def _welcome(self, welcome: Welcome) -> None:
        if welcome.state != self.device.state_id:
            return
        if welcome.status == "challenge":
            self._say_hello()
        elif welcome.status == "ok" and not self._welcomed:
            self._welcomed = True
            self._plan_training()

    def _follow(self, command: Command) -> None:
        if command.number not in self.answered:
            self.answered.add(command.number)
            self._keep(self.device.snapshot())
        self._say(*self.device.response(command.number))

    # What it does by itself.

    def _plan_training(self) -> None:
        if not self._training and self.made < self.quota:
            self._training = True
            self.time.after(self.rng.expovariate(1 / self.habits.every), self._train)

    def _train(self) -> None:
        self._training = False
        d = self.device
        if d.epoch and len(d.waiting) < MOST_WAITING and self.made < self.quota:
            self._keep(self._one())
            self.made += 1
            self._fill()
        if d.epoch:  # else the welcome plans it
            self._plan_training()

    def _one(self) -> Sent:
        d, habits, x = self.device, self.habits, self.rng.random()
        for share, make in (
            (habits.snapshots, d.snapshot),
            (habits.recipes, lambda: d.learn(range(d.version, d.version + 12))),
            (habits.bulky, partial(d.train, extension=BULK)),
            (habits.rebased, lambda: d.rebase(self.bases[(self.bases.index(d.base) + 1) % len(self.bases)])),
            (habits.lies, self._lie),
        ):
            if x < share:
                return make()
            x -= share
        return d.train(density=0.3 if x < 0.2 else 0.02)

    def _lie(self) -> Sent:
        sent = self.device.train(**({"fingerprint": (1, 2)} if self.rng.random() < 0.5 else {"root": bytes(32)}))
        self.lies.add(sent.commit)
        return sent

    def _keep(self, sent: Sent) -> None:
        self.time.note(f"made {self.name}@{sent.version}", sent.commit)

    def _fill(self) -> None:
        if self._session is None or not self._session.online or not self.device.epoch:
            return
        for version in sorted(self.device.waiting)[:WINDOW]:
            if version not in self._sent:
                self._hand_over(self.device.waiting[version])

    def _hand_over(self, sent: Sent) -> None:
        self._sent[sent.version] = self.time.now
        if len(sent.data) <= PART * 4:
            self._say(*self.device.update(sent))
        else:
            self._say(*self.device.transfer(sent, PART)[1])

    def _send_parts(self, wanted: Wanted) -> None:
        for sent in list(self.device.waiting.values()):
            if len(sent.data) > PART * 4:
                transfer, _, pieces = self.device.transfer(sent, PART)
                if transfer.id == wanted.id:
                    for i in parts.missing(wanted.have, len(pieces)):
                        self._say(*pieces[i])

    def _send_again(self, life: int) -> None:
        if life != self._life:
            return
        late = self.time.now - self._resend
        for version in sorted(self.device.waiting)[:WINDOW]:
            if self.device.epoch and self._sent.get(version, -1.0) <= late:
                self._hand_over(self.device.waiting[version])
        self._resend = min(2 * self._resend, RESEND_MOST)
        self.time.after(self._resend * (0.75 + 0.5 * self.rng.random()), lambda: self._send_again(life))

    def _say_hello(self) -> None:
        """Say hello now, and again after a while: soon until it is welcomed, then once in an hour."""
        if self._session is None or not self._session.online:
            return  # it is said when the link is there
        self._say(*self.device.hello())
        wait = HELLO_AGAIN if self._welcomed else self._hello_wait
        self._hello_wait = min(2 * self._hello_wait, HELLO_MOST)
        self._hellos += 1
        life, number = self._life, self._hellos
        self.time.after(wait * (0.75 + 0.5 * self.rng.random()), lambda: self._again_hello(life, number))

    def _again_hello(self, life: int, number: int) -> None:
        if (life, number) == (self._life, self._hellos):  # else one was said meanwhile
            self._say_hello()

    def _say(self, topic: str, data: bytes) -> None:
        if self._session is not None and self._session.online:
            self.broker.publish(self._session, topic, data)
