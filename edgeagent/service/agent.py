"""The agent's one loop: it owns time, the link and the order of things; trains a few steps at a time between messages."""

from __future__ import annotations

import logging
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial

from edgeagent.board.sensors import Memory, Sensors
from edgeagent.deploying.board_means import MakeMachine, deploy_machine
from edgeagent.features.gathering import Extractors
from edgeagent.link.certificate import OwnCertificate
from edgeagent.link.device_side import DeviceSide
from edgeagent.link.enrolling import Enrolling
from edgeagent.link.link_state import LinkState, connected_again, note
from edgeagent.link.metered import MeteredLink
from edgeagent.link.transport import Accepted, Arrived, Connected, Event, Lost, Transport, Will
from edgeagent.rounds import drift, opening
from edgeagent.rounds.journal import Interrupted, to_disk
from edgeagent.rounds.opening import Progress
from edgeagent.rounds.resuming import interrupted, start_of, sweep
from edgeagent.rounds.round import RoundReport, check_due, run
from edgeagent.rounds.standing import OpenModel, Standing
from edgeagent.rounds.starts import PAYS, Start
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.lineage import FORKED, Lineage
from edgeagent.system.clock import Clock
from edgecommon.mqtt_packets import Oversize
from edgecommon.systemd import Systemd
from modelwire.errors import DiskUnwritable, LinkError, NotEnoughSamples, NotWelcome, OutboxFull, WireError
from modelwire.names import ALL
from modelwire.wire import records, routes, topics

from .allowance import ENDED, Allowance
from .counting import BoardCounts
from .disk_wait import DiskWait
from .goal import Goal, all_forked, out_of_time, session_taken, settled
from .running import Running
from .talks import talks
from .told_rounds import tell_round
from .watched import WatchedLoop, told

_log = logging.getLogger("edgeagent")
IDLE = 1.0  # seconds between two looks at the spool and at commands from outside
PROGRESS = 10.0  # seconds between two lines about a round that takes longer
SLICE = 0.05  # seconds of training between two looks at the link
MESSAGES = 64  # handled before the next step of training
LONG = 60.0  # seconds of waiting after which a round lets go of the model and its memory; its journal stays
REPORTS = 1000  # of rounds, kept for the end of the run


@dataclass
class Agent:
    """One run over an opened state folder."""

    device: DeviceFolder
    transport: Transport
    open_model: OpenModel
    release: str  # of the agent, said in hello
    clock: Clock = field(default_factory=Clock)
    rng: random.Random = field(default_factory=random.Random)
    sensors: Sensors = field(default_factory=Sensors)
    extractors: Extractors | None = None  # what mode features needs
    certificate: OwnCertificate | None = None  # for the broker, where this device has one
    systemd: Systemd = field(default_factory=partial(Systemd, {}))  # by default it is told nothing
    deploys: MakeMachine = deploy_machine  # what becomes of what is desired

    def __post_init__(self) -> None:
        self.reports: list[RoundReport] = []
        self.stopping, self._goal = "", Goal()
        self._round: Running | None = None
        self._memory = Memory(self.sensors)
        self._last = self._ousted = ""  # the model that trained last; why another client has the name
        self._done_once, self._told = set[str](), dict[str, str]()
        self._link: LinkState | None = None  # in this run
        self._watched, self._began = WatchedLoop(self.systemd, self.clock), self.clock.monotonic()
        self._nudges = self.device.nudges()
        self._disk = DiskWait(self.clock, in_order=self.device.make_good, make_room=self.device.make_room)
        d, self._counts = self.device, BoardCounts(self.device, self.clock)
        self.transport = MeteredLink(self.transport, self._counts.month, d.settings.link, self.clock.monotonic)
        enrolling = Enrolling(d.board, d.claim, self.transport, d.settings.link, self.release, self.rng, self.clock.wall, d.database)
        side = DeviceSide(
            self.transport, d.settings.link, d.spool, d.trust, enrolling, self.release, self.rng, self.clock.wall,
            self.certificate, self._counts.month,
        )  # fmt: skip
        self.sessions = talks(
            d, side, self.clock, self.deploys, may_wait=self._may_wait, interrupt=self._interrupt_of, idle=self._idle
        )
        held = {name: self._counts.held(name, session.deploying.holds_training) for name, session in self.sessions.items()}
        self._allowance = Allowance(d, self.sensors, self.clock, held)

    def stop(self, why: str) -> None:
        """End `run` soon; a round under way is taken up by the next one. May be called from a signal handler."""
        self.stopping = why
        self.transport.wake()

    def run(self, goal: Goal) -> None:
        """Work until the goal is reached or `stop` is called. Raises what keeps the goal from being reached.

        A disk that takes nothing more is waited for; it is an error for who only publishes, and when the time is over.
        """
        self._disk.patient, self._goal, boot = not goal.publish, goal, self.device.count_boot()
        self._counts.begin()
        self._began = self.clock.monotonic()
        if self.device.swept:
            _log.debug("tidied the state folder: %s", ", ".join(self.device.swept))
        board = self.device.board
        listen = (topics.all_down(board.fleet, board.device), topics.trust_of_all(board.fleet))
        self.transport.open(self._presence(boot, False), listen)
        try:
            while not self.stopping and not self._reached(goal):
                self._watched.turn(lambda: told(self.device, self._link, self._disk.trouble, self._told, self._round))
                self._check_time(goal)
                with self._disk.minded():
                    self._counts.turn(self.sessions.values(), self._disk.trouble)
                    self._listen(boot)
                    self._yield(goal)
                now = self.clock.monotonic()
                for session in self.sessions.values():
                    with self._disk.minded():
                        if not (goal.publish or goal.once or self._disk.waits):
                            session.deploying.tick(now)
                    with self._disk.minded():  # hello goes all the same
                        session.tick(now)
                with self._disk.minded():
                    if not self._disk.waits:
                        self._look_outside(now)
                        with self._watched.training():
                            self._train(goal)
        finally:
            self._watched.close()
            self._interrupt()
            self._allowance.close()
            self.transport.close(self._presence(boot, False))
            for name, session in self.sessions.items():
                session.lost()
                session.deploying.close()
                to_disk(self.device.lineages[name].journal)
            self._counts.close()
        if self.stopping:
            _log.info("stopped: %s", self.stopping)

    # The link.

    def _listen(self, boot: int) -> None:
        now = self.clock.monotonic()
        self._disk.retake(lambda message: self._read(message, now))
        if self._disk.holds_enough:
            self.clock.sleep(IDLE)
            return
        due = min([min(s.next_due(), s.deploying.due) for s in self.sessions.values()], default=float("inf"))
        wait = max(0.0, min(IDLE if self._round is None or self._round.pauses is not None else self._round.rests - now, IDLE, due - now))
        event = self.transport.poll(IDLE if self._disk.waits else wait)
        for _ in range(MESSAGES):
            if event is None:
                return
            self._take(event, boot)
            event = self.transport.poll(0.0)
        if event is not None:
            self._take(event, boot)

    def _take(self, event: Event, boot: int) -> None:
        now = self.clock.monotonic()
        if isinstance(event, Connected):
            _log.info("connected to %s", self.device.settings.link.broker)
            self._note(Connected())
            self._watched.news()
            self.device.note_ousted("")
            for session in self.sessions.values():
                session.connected(now)
                session.tick(now)  # hello goes first: the centre notes the presence only of those whom it knows
            here = self._presence(boot, True)
            try:
                self.transport.send(here.topic, here.data, retain=True)
            except LinkError as e:
                _log.debug("%s", e.message)
        elif isinstance(event, Lost):
            if self._link is None or event.reason != self._link.reason:  # said once, not at every attempt, and again when it changes
                _log.warning("%s: %s; trying again", self.device.settings.link.broker, event.reason)
                self._note(event)
            self._ousted = event.ousted
            self._watched.news()
            self._disk.held.clear()  # none was acknowledged, so they come again
            if event.ousted:
                _log.error("two clients use this device's name: %s; this one waits for a while", event.ousted)
                self.device.note_ousted(event.ousted)
            for session in self.sessions.values():
                session.lost()
        elif isinstance(event, Accepted):
            for session in self.sessions.values():
                session.accepted(event.ticket)
        elif isinstance(event, Arrived):
            self._read(event, now)
        elif isinstance(event, Oversize):
            self._counts.unread.add(event, now)

    def _note(self, said: Connected | Lost) -> None:
        broker, now = self.device.settings.link.broker, int(self.clock.wall())
        if isinstance(said, Lost):
            self._link = LinkState(False, broker, now, said.reason, said.step, said.refused)
        else:
            self._link = connected_again(self._link, broker, now)
        note(self.device.database, self._link)

    def hear(self, name: str, data: bytes, now: float) -> bool:
        """Take a message that came on a topic, and return whether it is for this device. All that follows from it is durable then.

        Raises WireError for what the fleet's centre did not say about this device; nothing was changed.
        """
        topic = topics.parse(name)
        session, board = self.sessions.get(topic.model), self.device.board
        ours = topic.way == "dn" and topic.fleet == board.fleet and topic.device in (board.device, ALL)
        if ours and topic.leaf == "trust":
            self._take_trust(topic, data)
        elif session is None or not ours:
            return False
        else:
            session.arrived(topic, data, now)
        return True

    def _read(self, message: Arrived, now: float) -> None:
        if self._disk.waits:
            self._disk.held.append(message)
            return
        try:
            if not self.hear(message.topic, message.data, now):
                _log.warning("ignored a message on %s", message.topic[:200])
        except WireError as e:  # it would be refused again each time it came, so it is taken off the broker
            if foreign := self.device.trust.hear_foreign(e):
                _log.error("%s", foreign)
            _log.warning("refused a message on %s: %s", message.topic[:200], e.message, extra={"kind": type(e).__name__})
        except (DiskUnwritable, OSError):
            self._disk.held.appendleft(message)
            raise
        self.transport.acknowledge(message)  # after all that follows from it is durable

    def _take_trust(self, topic: topics.Topic, data: bytes) -> None:
        """Take the record of who speaks for the centre. Raises WireError for one that the fleet's root key did not sign."""
        signed = records.parse(data)
        routes.check_place(topic, signed.record)
        if self.device.trust.take(signed, data):
            _log.info("trust record %d holds from now on", self.device.trust.held.number)

    def _presence(self, boot: int, online: bool) -> Will:
        """Return the device's word on whether it is on line, on the one topic that the will can have: the first model's."""
        board, model = self.device.board, next(iter(self.device.lineages))
        record = records.Presence(board.fleet, board.device, model, int(self.clock.wall()), boot, online)
        return Will(topics.up(board.fleet, board.device, model, "state"), records.encode(record, board.key, board.identity.id))

    def _yield(self, goal: Goal) -> None:
        """Leave the name at the broker to the folder whose history goes on, where that is another one: this one has nothing to send."""
        if goal.endless and all_forked(self.sessions.values()):
            self.transport.stand_aside(FORKED)
            self.device.note_ousted(FORKED)

    def _look_outside(self, now: float) -> None:
        """Do what another process asked for through the database."""
        nudges = self.device.nudges()
        if nudges != self._nudges:
            self._nudges = nudges
            for session in self.sessions.values():
                session.nudge(now)

    # Training.

    def _train(self, goal: Goal) -> None:
        if self._allowance.measuring():
            return
        if self._round is None:
            self._begin_round(goal)
        if self._round is None or self._paused(self._round):
            return
        running = self._round
        began = self.clock.monotonic()
        if began < running.rests:
            return
        until = began + SLICE
        while not self.stopping:
            try:
                running.progress = next(running.steps)
            except StopIteration as end:
                self._round = None
                if end.value is not None:
                    self._finish(end.value)
                return
            except NotEnoughSamples as e:  # another process made room in the spool since the round was due
                self._round = None
                self._tell(running.lineage.name, e.message)
                return
            except ENDED as e:
                self._round = None
                if not self._allowance.after(running.lineage, e, endless=goal.endless or bool(self.stopping)):
                    raise
                return
            except (DiskUnwritable, OSError):
                self._round = None  # it is taken up where its journal stands, or done anew
                raise
            if self.clock.monotonic() >= until:
                break
        now = self.clock.monotonic()
        running.rests = now + (now - began) * (1 / self.device.settings.model(running.lineage.name).budget.max_cpu - 1)
        if now - running.said >= PROGRESS and (p := running.progress) is not None:
            running.said = now
            speed = p.done / max(p.seconds, 1e-9)
            _log.info("%s: %s: step %d of %d, %.1f a second, loss %.4f", running.lineage.name, p.mode, p.done, p.steps, speed, p.loss)

    def _begin_round(self, goal: Goal) -> None:
        for standing in self._in_turn():
            name, lineage = standing.name, standing.lineage
            left = interrupted(standing) if goal.endless and not (self.stopping or lineage.head().blocked) else None
            if self.stopping or not self._due(goal, standing, left):
                continue
            try:
                check_due(standing, self.device.settings.outbox.max_bytes)
            except (NotEnoughSamples, OutboxFull, NotWelcome) as e:
                if goal.once and not (isinstance(e, NotWelcome) and not self.sessions[name].answered):
                    raise
                self._tell(name, e.message)
                continue
            if self._allowance.waits(lineage):
                continue
            if self._allowance.measures_first(lineage, standing.settings):
                return
            left = left if goal.endless else interrupted(standing)
            start = start_of(standing, left, endless=goal.endless)
            now = self.clock.monotonic()
            self._round = Running(lineage, self._steps(standing, start), now, now)
            self._last = name
            return

    def standing(self, lineage: Lineage) -> Standing:
        """Return what the rounds of this model stand on."""
        settings = self.device.settings.model(lineage.name)
        return Standing(lineage, self.device.spool, settings, self.open_model, self.extractors, self._memory, self.clock)

    def _in_turn(self) -> list[Standing]:
        """Return the models, the one that trained last at the end: one that is always due must not keep the others from it."""
        order = [self.standing(lineage) for lineage in self.device.lineages.values()]
        first = [standing.name for standing in order].index(self._last) + 1 if self._last else 0
        return order[first:] + order[:first]

    def _due(self, goal: Goal, standing: Standing, left: Interrupted | None) -> bool:
        head, train, spool = standing.lineage.head(), standing.settings.train, standing.spool
        if goal.publish or head.blocked:
            return False
        if goal.once:
            return standing.name not in self._done_once
        if left is not None:
            return True  # it was due when it began
        waited = self._waited(head.trained_at)
        new = spool.count(standing.name, after=head.trained_id)
        enough = new >= train.min_new_samples > 0
        if goal.rounds is not None:
            ready = head.rounds < goal.rounds and (head.rounds == 0 or waited >= goal.pause)
            return ready and (enough or not goal.fresh)
        if train.when == PAYS and head.look:  # it looked, and waits: for as many samples again
            again = train.min_new_samples or train.min_samples
            return spool.count(standing.name, after=head.looked_id) >= again
        return enough or waited >= train.every

    def _steps(self, standing: Standing, start: Start) -> Generator[Progress, None, RoundReport | None]:
        """Do a round where one pays; one that is taken up paid when it began."""
        name = standing.name
        if start.looks:
            pays = yield from self._pays(standing)
            if not pays:
                return None
        self._told.pop(name, None)
        number, samples = standing.lineage.head().rounds + 1, standing.spool.count(name)
        _log.info("%s: round %d on %d samples, %d epochs", name, number, samples, standing.settings.train.epochs)
        return (yield from run(standing, start))

    def _pays(self, standing: Standing) -> Generator[Progress, None, bool]:
        """Return whether training pays now, and note it where it does not."""
        name, on_features = standing.name, opening.on_features(standing, standing.settings.train.mode)
        sweep(standing)
        look = yield from opening.preparing(drift.look(standing, on_features=on_features))
        standing.lineage.looked(look.until, "" if look.pays else look.reason)
        if look.pays:
            _log.info("%s: a round pays: %s", name, look.reason)
        else:
            self._tell(name, f"{name}: no round pays yet: {look.reason}")
        return look.pays

    def _waited(self, trained_at: int) -> float:
        """Return the seconds since the last round; by this run's own clock where the wall clock was set back (boards without a battery)."""
        apart = self.clock.wall() - trained_at
        return apart if apart >= 0 else self.clock.monotonic() - self._began

    def _finish(self, report: RoundReport) -> None:
        self._counts.round_over()
        self.reports.append(report)
        del self.reports[:-REPORTS]
        self._done_once.add(report.model)
        self._allowance.done(report.model)
        tell_round(report)

    def _interrupt(self) -> None:
        """Leave the round under way for another time."""
        if self._round is not None:
            running, self._round = self._round, None
            running.steps.close()
            if running.progress and running.progress.steps:
                _log.info("%s: left the round under way after step %d; it goes on from there", running.lineage.name, running.progress.done)

    def _paused(self, running: Running) -> bool:
        """Return whether the round under way waits. A long wait ends in closing the model: the memory goes back."""
        if not self._allowance.waits(running.lineage):
            running.pauses = None
            return False
        now = self.clock.monotonic()
        running.pauses = now if running.pauses is None else running.pauses
        if now - running.pauses >= LONG or not (running.progress and running.progress.steps):
            self._interrupt()  # before its first step too: another process computes features, and what it has stays
        return True

    def _interrupt_of(self, name: str) -> None:
        if not self._idle(name):
            self._interrupt()

    def _idle(self, name: str) -> bool:
        return self._round is None or self._round.lineage.name != name

    def _may_wait(self, name: str) -> bool:
        """Return whether updates may wait for others in this run: one that ends sends all that it has first."""
        goal = self._goal
        return goal.endless or (goal.rounds is not None and self.device.lineages[name].head().rounds < goal.rounds)

    def _tell(self, name: str, what: str) -> None:
        if self._told.get(name) != what:
            self._told[name] = what
            _log.info("%s", what)

    # The goal.

    def _reached(self, goal: Goal) -> bool:
        if goal.endless or self._round is not None:
            return False
        return all(settled(goal, session, self._done_once) for session in self.sessions.values())

    def _check_time(self, goal: Goal) -> None:
        if self._ousted and not goal.endless:
            raise session_taken(self.device, self._ousted)
        if goal.timeout and self.clock.monotonic() - self._began > goal.timeout:
            raise self._disk.trouble or out_of_time(goal, self.device, self.sessions, self._done_once, self._link)
