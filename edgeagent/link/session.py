"""One model's talk with the centre: hello until welcomed, updates in order within a window, again until a receipt, parts as wanted.

No clock and no network of its own: `now` is an argument (monotonic seconds), what it sends goes to a Transport.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgeagent.deploying.machine import DeployMachine
from edgeagent.planning.conditions import longest_wait
from edgeagent.planning.pace import UplinkPace
from edgeagent.settings.tree import ModelSettings
from edgeagent.state import commands
from edgeagent.state.answers import Answered
from edgeagent.state.commands import Present
from edgeagent.state.doubts import CONCLUDED
from edgeagent.state.history import CHALLENGE, OK
from edgeagent.state.lineage import FOREIGN, REWOUND, Lineage
from edgeagent.state.outbox import Waiting
from edgeagent.state.outcome import said as listed
from edgeagent.system.backoff import Backoff
from modelwire.errors import LinkError, TooLarge
from modelwire.output_head.recipe import TRAINERS
from modelwire.wire import parts, records, routes, topics
from modelwire.wire.records import (
    NOT_UNDERSTOOD,
    Command,
    Desired,
    Hello,
    Level,
    Receipt,
    Record,
    Response,
    Transfer,
    Unknown,
    Wait,
    Wanted,
    Welcome,
)
from modelwire.wire.welcome import check_numbers, key_in

from .agreeing import Agreement
from .device_side import DeviceSide
from .fetching import Fetch
from .metered import Leaving
from .quiet import QuietTime
from .upload import Upload

_log = logging.getLogger("edgeagent.session")
PAUSE = 1.0  # seconds after something could not be sent


class Session:
    """The talk about one model, over connections that come and go."""

    def __init__(
        self, side: DeviceSide, lineage: Lineage, settings: ModelSettings, may_wait: Callable[[], bool] = lambda: True, *,
        interrupt: Callable[[], None], deploying: DeployMachine,
    ) -> None:  # fmt: skip
        """interrupt: gives up the round of this model that is under way: it stands on what is to be forgotten.

        may_wait: whether updates that were decided to wait may do so in this run. deploying: what becomes of what is desired.
        """
        self.lineage, self.settings, self.deploying = lineage, settings, deploying
        self._side, self._interrupt, self._may_wait = side, interrupt, may_wait
        link, rng = side.link, side.rng
        self._online = False
        self._hello = Backoff(link.resend, min(link.resend_max, 10 * link.resend), rng)
        self._hello_due = 0.0
        self._answered = False  # on this connection, by any Welcome
        self._welcomed = False  # by one that says ok
        self._resend = Backoff(link.resend, link.resend_max, rng)
        self._resend_due = 0.0
        self._on_the_way: dict[int, int] = {}  # version -> ticket of a message that the broker has not accepted yet
        self._sent: set[int] = set()  # versions handed over on this connection
        self._uploads: dict[int, Upload] = {}  # version -> the parts of a large one
        self._fetch = Fetch(
            lineage, Backoff(link.resend, link.resend_max, rng), names=self._names, ask=lambda w: self._send("part", w),
            proceed=lambda: commands.proceed(lineage, self._present()),
        )  # fmt: skip
        self._verify = Backoff(link.resend, link.resend_max, rng)
        self._verify_due = self._hold_until = self._pause = 0.0
        self._refusals = Backoff(link.resend, link.resend_max, rng)
        self.agreement = Agreement(lineage, side.trust, rng)
        self._foreign = ""  # what was said last of a head of the centre's that is not known here
        self._challenge, self._challenged = b"", 0  # to be said back; times, since the last welcome of another kind
        self._pace = UplinkPace(lineage.link_figures)
        self._quiet = QuietTime(lineage, side.wall, begins=self._pace.forget)
        self.leaving = Leaving(lineage.outbox, side.month, self._topic("update"), side.transport)

    @property
    def name(self) -> str:
        return self.lineage.name

    @property
    def answered(self) -> bool:
        """Whether the centre has answered a hello on this connection, in whatever way."""
        return self._answered

    @property
    def welcomed(self) -> bool:
        """Whether the centre has said ok, and holds what it once said it holds."""
        return self._welcomed and not self.agreement.in_doubt

    # What happens to it.

    def connected(self, now: float) -> None:
        """Start anew on a fresh connection: nothing that was on its way can be relied on."""
        self.lost()
        self._online = True
        self._hello_due = self._resend_due = now
        self._verify_due = now + self._side.link.resend
        self._fetch.connected(now)
        self.deploying.connected()

    def lost(self) -> None:
        self._online = self._answered = self._welcomed = False
        self._challenged = 0
        self.deploying.unlinked()
        self.agreement.forget()
        self._on_the_way.clear()
        self._sent.clear()
        self._uploads.clear()
        self._pace.forget()
        for backoff in (self._hello, self._resend, self._verify):
            backoff.reset()

    def accepted(self, ticket: int) -> None:
        """Take note that the broker has a message: it may be sent again when no receipt comes."""
        for version, t in list(self._on_the_way.items()):
            if t == ticket:
                del self._on_the_way[version]
        for upload in self._uploads.values():
            upload.accepted(ticket)

    def arrived(self, topic: topics.Topic, data: bytes, now: float) -> None:
        """Take a message from the centre. All that follows from it is durable when this returns.

        Raises WireError for what is not a record that this fleet's centre says about this model; nothing was changed then.
        """
        if topic.leaf == "part" and data.startswith(parts.MAGIC):
            part = parts.parse(data)
            if not self.deploying.arrived(part, len(data), now):
                self._answer(self._fetch.arrived(part, now))
            self.lineage.serve()
            return
        signed = records.parse(data)
        record = signed.record
        self._side.trust.verify(signed)
        routes.check_place(topic, record)
        if isinstance(record, Welcome):
            self._take_welcome(record, now)
        elif isinstance(record, Receipt):
            self._take_receipt(record, now)
        elif isinstance(record, Command):
            self._take_command(record, data)
        elif isinstance(record, Wait):
            self._quiet.keep(record.seconds, record.reason, now)
        elif isinstance(record, Desired):
            self.deploying.take(record, data)
        elif isinstance(record, Wanted):
            self._take_wanted(record)
        elif isinstance(record, Transfer):
            if not self.deploying.described(record, now):
                self._fetch.described(record, data, now)
        elif isinstance(record, Response):  # never answered: two sides that don't understand each other would go on for ever
            _log.warning("%s: the centre answered %d: %s", self.name, record.number, record.text)
        elif isinstance(record, Unknown):
            _log.warning("%s: a record of the kind %r is not understood by this release", self.name, record.kind)
            self._answer(Answered(record.number, False, NOT_UNDERSTOOD))
        self.lineage.serve()

    def nudge(self, now: float) -> None:
        """Send everything without a receipt again, now, and what waits for others too."""
        self.lineage.plans.release()
        self._resend.reset()
        self._resend_due = self._hello_due = now
        self._hold_until = 0.0

    # What it does by itself.

    def tick(self, now: float) -> None:
        """Send what is due."""
        head = self.lineage.head()
        if not self._online or now < self._quiet(now):
            self._coalesce(head.version, above=self.settings.update.coalesce_after)
            return
        try:
            if now >= self._hello_due:
                self.say_hello(now)
            self._tell_news()
            if head.epoch and not head.blocked:
                self._ask_for_verdicts(now)
                self._send_again(now)
                self._offer(now)
                for upload in self._uploads.values():
                    if upload.push(self._side.transport, now):
                        self._send("part", upload.transfer)
            if self._welcomed and now >= self._fetch.due:
                self._answer(self._fetch.tick(now))
                self.lineage.serve()
        except LinkError as e:  # the transport will say Lost by itself, and everything goes again on the next connection
            self._pause = now + PAUSE  # or the month's bytes are spent, and the link stays up
            _log.debug("%s: %s", self.name, e.message)
        except TooLarge as e:  # this broker never takes it; another one, or other settings, may
            _log.error("%s: %s", self.name, e.message)
            self._resend_due = now + self._resend.next()

    def _coalesce(self, version: int, *, above: int = 0) -> None:
        if len(self.lineage.outbox.waiting("queued")) <= above:
            return
        try:
            carried = self.lineage.coalesce()
        except TooLarge as e:
            _log.warning("%s: the waiting updates stay apart: as one, %s", self.name, e.message)
            return
        if carried:
            _log.info("%s: %d waiting updates became one, @%d", self.name, len(carried) + 1, version)

    def next_due(self) -> float:
        """Return when `tick` has something to do by the clock alone."""
        if not self._online:
            return float("inf")
        head, quiet = self.lineage.head(), self._quiet.known
        asking = (upload.due for upload in self._uploads.values())
        due = min(self._hello_due, self._resend_due, self._verify_due, *asking) if head.epoch and not head.blocked else self._hello_due
        return max(min(due, self._fetch.due) if self._welcomed else due, quiet, self._pause)

    def say_hello(self, now: float) -> None:
        """Say what this device has; again and again until the centre welcomes it, then once in a while."""
        head = self.lineage.head()
        claim, serial = self._side.enrolling.said(head.welcome)
        certificate = self._side.certificate
        more = {**self.agreement.ask(), **serial, **(certificate.said() if certificate else {})}
        self._send(
            "hello",
            Hello(
                *self._names(), self.lineage.board.key.public, self.lineage.state, self.lineage.base_commit, head.epoch, head.version,
                head.commit, head.runtime or "none", self._side.agent, self._side.trust.held.number, self._challenge, claim,
                self.lineage.wish() is not None, TRAINERS, more=more,
            ),
        )  # fmt: skip
        unanswered = self._hello.next() if self._answered else self._side.link.resend
        self._hello_due = now + (self._side.link.hello_every if self.welcomed else unanswered)

    def _ask_for_verdicts(self, now: float) -> None:
        """Say hello again when the last word on a version is out for long: its receipt may have been lost, and an answer repeats it."""
        if now < self._verify_due:
            return
        if self.lineage.doubts.any():
            self.say_hello(now)
        else:
            self._verify.reset()
        self._verify_due = now + self._verify.next()

    def _send_again(self, now: float) -> None:
        """Send every update again that was offered and has no receipt, oldest first."""
        if now < self._resend_due:
            return
        offered = self.lineage.outbox.waiting("offered")
        again = 0
        for w in offered:
            upload = self._uploads.get(w.version)
            if self.leaving.admits(w) and w.version not in self._on_the_way and not (upload is not None and upload.busy):
                again += w.version in self._sent
                self._hand_over(w, now)
        if again:
            _log.info("%s: sent %d updates without a receipt again", self.name, again)
        if not offered:
            self._resend.reset()
        self._resend_due = now + self._resend.next()

    def _offer(self, now: float) -> None:
        """Offer queued updates while there is room in the window."""
        if now < self._hold_until:
            return
        offered = self.lineage.outbox.waiting("offered")
        if not offered:
            self._resend.reset()
            self._resend_due = now + self._resend.next()
        radio, waits = self._side.radio, self._may_wait() and self.lineage.plans.waits(self._side.wall(), longest_wait(self.settings))
        if waits and not radio.up_for_another(self.name, now):
            return
        if self.lineage.plans.joins():  # they waited for each other: one update says it all
            self._coalesce(self.lineage.head().version)
        room = self._side.link.window - len(offered)
        for w in self.lineage.outbox.waiting("queued")[: max(0, room)]:
            if not self.leaving.admits(w):
                self._coalesce(self.lineage.head().version, above=self.settings.update.coalesce_after)
                break
            with self.leaving.counted(w):
                self.lineage.offer(w)  # durable before the first byte leaves: from now on it may be known
            self._hand_over(w, now)
            if not waits:
                radio.woken(self.name, self.settings.profile, now)

    def _hand_over(self, w: Waiting, now: float) -> None:
        body = self.lineage.outbox.body(w.version)
        self._sent.add(w.version)
        self._pace.sent(w.version, len(body), now)
        if len(body) <= self._side.transport.largest:
            ticket = self._side.transport.send(self._topic("update"), body)
            self._on_the_way[w.version] = ticket
            _log.debug("%s: sent @%d, %d bytes", self.name, w.version, len(body))
            return
        upload = self._uploads.get(w.version)
        if upload is None:
            board = self.lineage.board
            outgoing = parts.describe(
                body, fleet=board.fleet, device=board.device, model=self.name, at=int(self._side.wall()), part=self._side.transport.largest,
                parent=w.parent,
            )  # fmt: skip
            upload = self._uploads[w.version] = Upload(self._topic("part"), outgoing)
            _log.info("%s: @%d goes in %d parts", self.name, w.version, outgoing.count)
        self._send("part", upload.transfer)  # asks which parts are missing

    # What the centre says.

    def _take_welcome(self, w: Welcome, now: float) -> None:
        if w.state != self.lineage.state:
            _log.info("%s: a welcome to another state folder was ignored", self.name)
            return
        check_numbers(w)
        if key_in(w) not in (b"", self.lineage.board.key.public):
            _log.debug("%s: a welcome to another key was ignored: somebody says hello in this name", self.name)
            return
        if self.agreement.stale(w.more):
            _log.debug("%s: a welcome that answers no hello of this connection was ignored", self.name)
            return
        self._side.take_certificate(w)
        fresh, wall = self.agreement.answers(w.more), int(self._side.wall())
        with self.lineage.outbox.transaction():  # one commit: each is a flush, and wears the disk
            self.agreement.witness(w)
            before, wished = self.lineage.head(), self.lineage.wish()
            if w.status != CHALLENGE:
                self._answered, self._challenge, self._challenged = True, b"", 0
            said = self.lineage.welcome(w, wall, fresh=fresh, held=self.agreement.held_then(w.more))
            went_back = said == REWOUND and fresh
            if said == REWOUND:
                said, self._resend_due = self.agreement.go_back(w, wall), now if fresh else self._resend_due
            elif fresh:
                self.agreement.take_missing(w)
        if (wish := self.lineage.wish()) != wished:
            _log.info("%s: the centre holds %s", self.name, f"its last model, @{wish.version}" if wish else "no last model of it")
        self._welcomed = self._welcomed and w.status in (OK, CHALLENGE)
        self._quiet.keep(w.wait, "", now)
        if w.status == CHALLENGE:
            self._challenge = w.challenge
            self._hello_due = now + (self._hello.next() if self._challenged else 0.0)  # at once, but not over and over
            self._challenged += 1
        if self._side.enrolling.heard(self.name, w, now, quiet=now < self._quiet(now)):
            self._hello_due, self._answered = now, False  # right behind the enrolment: what it has come to is in the next welcome
        if w.status == OK:
            self.deploying.linked(now)
            self._welcomed = True
            self._hello.reset()
            self._hello_due = now if went_back else now + self._side.link.hello_every  # the next one asks again, or tells what is lost
        level = logging.INFO if w.status in (OK, CHALLENGE) else logging.WARNING
        if (before.epoch, before.welcome) == (w.epoch, w.status) and not self.agreement.in_doubt:
            level = logging.DEBUG
        if said.startswith(FOREIGN) and said != self._foreign:
            level, self._foreign = logging.WARNING, said  # once, not at each hello
        _log.log(level, "%s: welcome: %s", self.name, said)
        self._forget_settled()

    def _take_receipt(self, r: Receipt, now: float) -> None:
        outbox = self.lineage.outbox
        row = outbox.find(r.epoch, r.version, r.commit)
        if row is None:
            if self.agreement.replaced(r):
                return
            _log.warning("%s: a receipt (%s) for @%d of epoch %d, which is none of ours", self.name, r.level.value, r.version, r.epoch)
            return
        if row["state"] in CONCLUDED:
            if self.agreement.settle(row, r):
                self._verify.reset()
                self._verify_due = now + self._side.link.resend
            return
        if r.level is Level.REFUSED:
            news = self.lineage.refused(row, r.reason, r.good, int(self._side.wall()))
            if news:
                # The first snapshot goes at once; further refusals in a row wait, so that two sides at odds don't flood the link.
                first, pause = not self._refusals.tries, self._refusals.next()
                self._hold_until = now if first else now + pause
                _log.warning("%s: the centre refused @%d: %s", self.name, r.version, r.reason)
                if others := [n for n in news if n != r.version]:
                    _log.warning("%s: given up with @%d: %s", self.name, r.version, listed(others))
                self._verify.reset()
                self._verify_due = now + self._side.link.resend
        else:
            with outbox.transaction():
                news, gone = (outbox.stored(row), []) if r.level is Level.STORED else self.lineage.verified(row)
            if gone:
                _log.warning("%s: @%d is verified without %s, which the centre once held; asking", self.name, r.version, listed(gone))
            if news:
                self._pace.receipted(news, now, self._side.wall())
                if r.level is Level.VERIFIED:  # `stored` proves nothing: a refusal comes after it
                    self._refusals.reset()
                self._verify.reset()
                self._verify_due = now + self._side.link.resend
                _log.info("%s: %s: @%s", self.name, r.level.value, ", @".join(map(str, news)))
        if news:  # one that says nothing new must not put off what still waits
            self._resend.reset()
            self._resend_due = now + self._resend.next()
        self._forget_settled()

    def _take_command(self, c: Command, sealed: bytes) -> None:
        self._answer(commands.answer(self.lineage, c, sealed, self._present()))

    def _present(self) -> Present:
        side = self._side
        return Present(self.lineage.state, side.trust.time, int(side.wall()), side.spool, self._interrupt)

    def _answer(self, a: Answered | None) -> None:
        if a is None:  # a command whose update is still to come
            return
        text = "".join(c if c.isprintable() else "?" for c in a.text)  # an error may name what came over the wire
        try:
            self._send("rsp", Response(*self._names(), a.number, a.ok, text, a.body))
        except LinkError as e:  # the command comes again until it is answered
            _log.debug("%s: %s", self.name, e.message)

    def _tell_news(self) -> None:
        """Send what there is to say of a variant. Raises LinkError; what did not leave waits on."""
        for record in self.deploying.news:
            self._send("part" if isinstance(record, Wanted) else "report", record)
            self.deploying.sent(record)

    def _take_wanted(self, w: Wanted) -> None:
        if (upload := next((one for one in self._uploads.values() if one.transfer.id == w.id), None)) is not None:
            return upload.wanted(w.have)
        _log.debug("%s: parts were asked for of a transfer that is not under way", self.name)

    def _forget_settled(self) -> None:
        waiting = {w.version for w in self.lineage.outbox.waiting("offered")}
        for known in (self._on_the_way, self._uploads):
            for version in set(known) - waiting:
                del known[version]

    def _names(self) -> tuple[str, str, str, int]:
        """Return what every record starts with."""
        return self.lineage.board.fleet, self.lineage.board.device, self.name, int(self._side.wall())

    def _topic(self, leaf: str) -> str:
        return topics.up(self.lineage.board.fleet, self.lineage.board.device, self.name, leaf)

    def _send(self, leaf: str, record: Record) -> None:
        self._side.transport.send(self._topic(leaf), records.encode(record, self.lineage.board.key, self.lineage.board.identity.id))
