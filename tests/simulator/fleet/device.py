"""A device of a simulated fleet: trains once a day, asks the planner what becomes of it, and speaks over a link that sleeps and fails."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from edgeagent.planning.plans import KeptPlan
from modelwire.update.sections import Kind
from modelwire.wire import topics
from modelwire.wire.records import Desired, Record, Welcome
from tests.edgecloud.device import FLEET, Base, Sent
from tests.simulator.broker import Broker
from tests.simulator.light import MOST_WAITING, WINDOW, Habits, LightDevice
from tests.simulator.timeline import Timeline

from .links import DAY, ScriptedLink, Traffic, size_of
from .planner import FleetPlanner
from .rolling import DeviceRollout
from .script import FleetScript
from .sparse import SparseDevice

AGAIN_MOST = 8  # times the link's patience, between two tries
JITTER = 900.0  # seconds, of the hour at which a device trains
FIRST = 3600.0  # seconds within which all devices are switched on


class FleetDevice(LightDevice):
    """A light device with a link of its own. It makes one round a day, `script.days` of them."""

    DEVICE = SparseDevice
    device: SparseDevice

    def __init__(
        self, time: Timeline, broker: Broker, rng: Random, name: str, bases: Sequence[Base], script: FleetScript, planner: FleetPlanner,
        traffic: Traffic, took: list[float],
    ) -> None:  # fmt: skip
        """took: is given the seconds from each round to the word that its version is verified."""
        super().__init__(time, broker, rng, name, bases, Habits(), script.days)
        self.script, self.planner, self.traffic, self.took = script, planner, traffic, took
        self.link: ScriptedLink = script.scripted_link
        self.rollout = DeviceRollout(self)
        self.there = True  # whether there is any connection to be had
        self._wants = self._waking = False
        self._clear = self._heard = 0.0  # when what was handed over is through; when anything was last said or heard
        self._wait = self.link.patience
        self._asking = 0  # number of the last wait for an answer
        self._last: KeptPlan | None = None
        self._held: list[tuple[int, float]] = []  # bytes of each round that is not sealed, and when it was made
        self._form = Kind.DELTA
        self._note = b""
        self._form_waits = False  # whether what is held waits for further rounds
        self._sealed = 0  # updates
        self._made_at: dict[int, list[float]] = {}  # by version, of what waits
        self._phase = rng.uniform(FIRST, DAY)

    def start(self) -> None:
        self.time.after(self.rng.uniform(0, FIRST), self._begin)

    def settled(self) -> bool:
        return self.made >= self.quota and not self.device.waiting and not self.device.rounds and not self.rollout.under_way

    @property
    def talking(self) -> bool:
        """Whether it is on line, and the centre has welcomed it."""
        return self._session is not None and self._session.online and self._welcomed

    def _begin(self) -> None:
        self.wake()
        self._plan_training()
        self.time.after(self.rng.expovariate(1 / self.link.lasts), self._fail)

    # Its link.

    def wake(self) -> None:
        """Get on line, at once or when there is a connection to be had."""
        if self._waking or (self._session is not None and self._session.online):
            return
        if not self.there:
            self._wants = True
            return
        self._waking = True
        self.traffic.wakeups += self.link.sleeps
        self.time.after(self.link.latency, self._connect)

    def _connect(self) -> None:
        filters = (topics.all_down(FLEET, self.name), topics.trust_of_all(FLEET))
        self._session = self.broker.connect(self.name, filters, self, will=self.device.presence(False, 1))

    def _fail(self) -> None:
        """Lose the connection for a while, whether anything goes over it or not."""
        gap = self.rng.expovariate(1 / self.link.gap)
        self.there = False
        if self._session is not None and (self._session.online or self._waking):
            self._wants = True
            online = self._session.online
            self.broker.leave(self._session, quietly=True)
            if online:
                self.time.note(f"broken {self.name}")
                self.down("no connection")
        self._waking = False
        self.time.after(gap, self._mend)

    def _mend(self) -> None:
        self.there = True
        if self._wants or not self.link.sleeps:
            self._wants = False
            self.wake()
        if self.time.now < 2 * self.script.end + 7 * DAY:
            self.time.after(self.rng.expovariate(1 / self.link.lasts), self._fail)

    def up(self) -> None:
        self._life += 1
        self._waking = self._welcomed = False
        self._clear = self.time.now
        self._wait = self.link.patience
        self._sent.clear()
        self._say_hello()
        self._say(*self.device.presence(True, 1))

    def down(self, why: str) -> None:
        self._life += 1
        self._welcomed = False
        self.rollout.cut()

    def arrived(self, topic: str, data: bytes, mid: int) -> None:
        self._heard = self.time.now
        self.traffic.heard(topic.rpartition("/")[2], size_of(topic, data))
        super().arrived(topic, data, mid)
        self._rest_soon()

    def _say(self, topic: str, data: bytes, what: str = "") -> None:
        """Hand a message to the link, which is as fast as it is."""
        if self._session is None or not self._session.online:
            return
        size, life = size_of(topic, data), self._life
        self._clear = max(self.time.now, self._clear) + size / self.link.rate
        self.time.after(self._clear - self.time.now, lambda: self._published(life, topic, data, what or topic.rpartition("/")[2], size))

    def _published(self, life: int, topic: str, data: bytes, what: str, size: int) -> None:
        if life == self._life and self._session is not None and self._session.online:
            self._heard = self.time.now
            self.traffic.sent(what, size)
            self.broker.publish(self._session, topic, data)
            self._rest_soon()

    def _rest_soon(self) -> None:
        """Let a radio that sleeps do so once nothing was said for a while."""
        if self.link.sleeps and self._session is not None and self._session.online:
            life = self._life
            self.time.after(self.link.linger, lambda: self._rest(life))

    def _rest(self, life: int) -> None:
        if life != self._life or self._session is None or self.time.now < self._heard + self.link.linger:
            return
        if self._welcomed and not self.device.waiting and not self.rollout.fetching:
            self._life += 1
            self._welcomed = False
            self.broker.leave(self._session)

    # What it says again until it is answered.

    def _say_hello(self) -> None:
        self._say(*self.device.hello())
        self._await()

    def _await(self) -> None:
        self._asking += 1
        life, number = self._life, self._asking
        self.time.after(self._wait * (0.75 + 0.5 * self.rng.random()), lambda: self._say_again(life, number))

    def _say_again(self, life: int, number: int) -> None:
        if (life, number) != (self._life, self._asking) or self._session is None or not self._session.online:
            return
        self._wait = min(2 * self._wait, AGAIN_MOST * self.link.patience)
        if not self._welcomed:
            self._say_hello()
        elif self.device.waiting:
            for version in sorted(self.device.waiting)[:WINDOW]:
                self._hand_over(self.device.waiting[version])
            self._await()

    def _hand_over(self, sent: Sent) -> None:
        self._sent[sent.version] = self.time.now
        topic, data = self.device.update(sent)
        self._say(topic, data, self.device.kinds.get(sent.version, "update"))

    def _fill(self) -> None:
        if not self.talking:
            return
        new = [v for v in sorted(self.device.waiting)[:WINDOW] if v not in self._sent]
        for version in new:
            self._hand_over(self.device.waiting[version])
        if new:
            self._await()

    # What it hears.

    def _hear(self, record: Record) -> None:
        if isinstance(record, Desired) and (record.device, record.model) == (self.name, self.device.model):
            self.rollout.take(record)
        before = set(self.device.waiting)
        super()._hear(record)
        for version in sorted(before - self.device.waiting.keys()):
            self._wait = self.link.patience
            since = self._made_at.pop(version, [])
            if version not in self.device.refused:
                self.took += [self.time.now - at for at in since]
        if not self.device.rounds:
            self._held.clear()  # a snapshot after a refusal has taken them along
        if before - self.device.waiting.keys():
            self._go_on()

    def _welcome(self, welcome: Welcome) -> None:
        before = self._welcomed
        super()._welcome(welcome)
        if self._welcomed and not before:
            self._wait = self.link.patience
            self._go_on()
            self.rollout.on_line()

    # What it makes.

    def _plan_training(self) -> None:
        if not self._training and self.made < self.quota:
            self._training = True
            due = self.made * DAY + self._phase + self.rng.gauss(0, JITTER)
            self.time.after(max(1.0, due - self.time.now), self._train)

    def _train(self) -> None:
        if self.rollout.soaking:  # served is what may be taken back: no round stands on it
            self.time.after(600.0, self._train)
            return
        self._training, d = False, self.device
        with d.awake():
            snapped = d.round(self.script.density)
            self.made += 1
            self.time.note(f"trained {self.name} {self.made}")
            self._decide(snapped.size, d.size_of_snapshot())
        self._plan_training()
        if d.waiting:
            self._fill()
            self.wake()

    def _decide(self, delta: int, snapshot: int) -> None:
        """Ask what becomes of the round that was just made, while awake; it is sealed, or waits."""
        d, now = self.device, self.time.now
        fixed = delta_overhead(d)
        count, size, first = len(self._held), sum(s for s, _ in self._held), self._held[0][1] if self._held else now
        sizes = {Kind.DELTA: delta + fixed, Kind.SNAPSHOT: snapshot + fixed}
        decided = self.planner.decide(sizes, fixed, (count, size, now - first), self._last)
        self._held.append((delta, now))
        self._last, self._form, self._note = decided.plan, decided.kind, decided.note
        self._form_waits = decided.choice == "wait"
        if self._form_waits:
            number = self._sealed
            self.time.after(decided.wait, lambda: self._release(number))
        elif d.epoch and len(d.waiting) < MOST_WAITING:  # else it goes with the next ones, when there is a centre to be had
            self._seal()

    def _release(self, number: int) -> None:
        """End the wait of what is held, unless it was sealed meanwhile. number: of updates that were sealed when it began to wait."""
        if number == self._sealed and self.device.rounds:
            self._form_waits = False
            self._go_on()

    def _go_on(self) -> None:
        """Seal what is held and need not wait, once there is an epoch and room among what waits for its receipt."""
        if self.device.rounds and not self._form_waits and self.device.epoch and len(self.device.waiting) < MOST_WAITING:
            self._conclude()

    def _conclude(self) -> None:
        with self.device.awake():
            self._seal()
        self._fill()
        self.wake()

    def _seal(self) -> None:
        self.note_made(self.device.conclude(self._form, self._note))

    def note_made(self, sent: Sent) -> None:
        """Enter an update that was just sealed: when its rounds were made, and that it is there."""
        self._made_at[sent.version] = [at for _, at in self._held] or [self.time.now]
        self._held.clear()
        self._sealed, self._form_waits = self._sealed + 1, False
        self._keep(sent)


def delta_overhead(device: SparseDevice) -> int:
    """Return the bytes of an update's names and extension, about."""
    return len(device.name) + len(device.model) + 64
