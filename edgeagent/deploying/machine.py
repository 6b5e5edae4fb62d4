"""The state machine of a variant on one board: from the desired that offers it to confirmed, reverted, refused or timed out.

No clock and no network of its own: `now` is an argument (monotonic seconds), what it says waits in `news` for whoever sends it. Each
transition is on the disk before its report is there to be sent, and what a kill left between two is told from where bases lie.
docs/protocol.md, "Desired and report".
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import replace

from edgeagent.board.budget import TrainingWait
from edgeagent.settings.tree import ModelSettings
from edgeagent.settings.units import say_seconds
from modelwire.deploying.reports import Code
from modelwire.deploying.states import FINAL, State, Who, allowed
from modelwire.errors import DesiredRefused, LineageError, ModelError, ModelWireError, NotWelcome, StateDamaged, TooLarge
from modelwire.wire import records
from modelwire.wire.parts import Part
from modelwire.wire.records import Desired, Report, Transfer, Wanted

from . import checks
from .checks import DeployOrder
from .desired_store import TakenDesired
from .hosts import HostWord
from .means import OF_BOARD, BasePlace, DeployMeans, DeployTarget, DesiredMemory, Probed, Stop
from .news import DEPLOYS_NOTHING, DeployNews

_log = logging.getLogger("edgeagent.deploying")
PROBES = 3  # begun at most: a board that dies of one is not to die for ever
TOLD = 8  # notes of how much of a file is here
COUNTED = 5, 60  # seconds of soaking that a kill may forget: right after a start, and at most; boards that run a minute at a time come on


class DeployMachine:
    """What becomes of the newest desired of one model."""

    def __init__(
        self, target: DeployTarget, memory: DesiredMemory, means: DeployMeans, settings: ModelSettings, *,
        idle: Callable[[], bool] = lambda: True, host: Callable[[int], HostWord | None] = lambda number: None,
    ) -> None:  # fmt: skip
        """idle: whether no round of the model is under way; host: what the host said about a number."""
        self._target, self._memory, self._means, self._settings = target, memory, means, settings
        self._idle, self._host = idle, host
        self._news = DeployNews(target)
        self._order: tuple[bytes, bytes, DeployOrder] | None = None  # what was read last, by its bytes and the key that vouches for bases
        self._probing = False  # in this process
        self._found: Probed | None = None  # what came of that, until it is acted on
        self._since: float | None = None  # monotonic seconds up to which soaking was counted
        self._uncounted = 0.0  # seconds of soaking that are not written down yet
        self._told, self._swept, self._linked, self._every = "", False, False, COUNTED[0]
        self._steps: dict[State, Callable[[TakenDesired, DeployOrder, float], bool]] = {
            State.OFFERED: self._offered, State.FETCHING: self._fetching, State.STAGED: self._staged,
            State.PROBING: self._probed, State.SOAKING: self._soaking,
        }  # fmt: skip

    # What happens to it.

    def take(self, desired: Desired, record: bytes) -> None:
        """Take a desired that the director key sealed for this device and model. record: what it was parsed from.

        Raises DesiredRefused for one that counts no more; nothing was changed then. A repeated one gets the same report again.
        """
        newest, now = self._memory.newest(), int(self._target.wall())
        row = self._memory.current()
        if desired.number == newest:
            self._repeated(desired, row)
            return
        if desired.number < newest:
            raise self._refused(desired, f"{newest} is the newest that was taken")
        if (time := self._target.newest()) > desired.expiry:
            raise self._refused(desired, f"it expired at {desired.expiry}, and the centre's clock said {time}")
        order = checks.read_order(desired, self._target.root(), self._target.fleet_id)
        if order is None:
            self._pass_by(desired)
            return
        if row is not None and row.state not in FINAL:
            self._supersede(row, order)
        self._memory.take(desired.number, record, now=now, time=self._target.newest())
        self._since, self._uncounted, self._probing = None, 0.0, False
        _log.info("%s: %s is desired (%d)", self._target.model, self._named(order), desired.number)
        self._report()

    def _repeated(self, desired: Desired, row: TakenDesired | None) -> None:
        if row is None or row.number != desired.number:
            return  # it was passed by, and said so
        if replace(self._read(row).desired, at=0) != replace(desired, at=0):
            raise self._refused(desired, "another one has its number")
        self.say_again()

    def connected(self) -> None:
        """Say again how far it is: a report has no receipt. What is over and was said comes when the centre asks for it again."""
        row = self._memory.current()
        if row is not None and not (row.state in FINAL and row.reported):
            self.say_again()

    def say_again(self) -> None:
        """Let the present report go again."""
        if not self._news.all and self._memory.current() is not None:
            self._report()

    def linked(self, now: float) -> None:
        """Take note that the centre has welcomed this model; once for each connection."""
        if not self._linked:
            self._linked = True
            self._means.linked(now)

    def unlinked(self) -> None:
        """Take note that the link is down: what was asked for over it is asked for again."""
        self._linked = False
        self._means.unlinked()
        self._news.unlinked()

    def described(self, transfer: Transfer, now: float) -> bool:
        """Take the word on how a file is cut; return whether it is the one that comes. Raises WireError."""
        return self._means.described(transfer, now)

    def arrived(self, part: Part, size: int, now: float) -> bool:
        """Take a part that came in a message of so many bytes; return whether it is of the file that comes. Raises WireError."""
        return self._means.arrived(part, size, now)

    def want(self, file: bytes, have: bytes) -> None:
        """Let the parts be asked for that are not here. file: SHA-256; have: bitmap of those that are."""
        self._news.want(file, have)

    @property
    def news(self) -> tuple[Report | Wanted, ...]:
        """What is to be sent, in order: reports, and what is asked for."""
        return self._news.all

    def sent(self, record: Report | Wanted) -> None:
        """Take a record off the news: it was handed to the link."""
        self._news.drop(record)
        row = self._memory.current()
        if isinstance(record, Report) and row is not None and not row.reported:
            self._memory.reported(record.number, State(record.state))

    # What it does by itself.

    def tick(self, now: float) -> None:
        """Go on as far as it goes without waiting. Raises DiskUnwritable: nothing is lost, and the next call goes on."""
        self._sweep()
        for _ in range(2 * len(State)):
            row = self._memory.current()
            if row is None or row.state in FINAL or not self._steps[row.state](row, self._read(row), now):
                return

    @property
    def due(self) -> float:
        """Monotonic seconds at which `tick` has something to do; infinite while it waits for what comes from outside."""
        row = self._memory.current()
        if row is None or row.state is not State.FETCHING:
            return math.inf
        return self._means.due()

    def close(self) -> None:
        """End what works beside it; the next start goes on."""
        row = self._memory.current()
        if row is not None and row.state is State.SOAKING and self._uncounted:
            with contextlib.suppress(*OF_BOARD):
                self._write_count(row)
        self._means.cease()
        self._probing = False

    def holds_training(self) -> TrainingWait | None:
        """Return why no round begins now; None when one may."""
        row = self._memory.current()
        if row is None or row.state in FINAL:
            return None
        order = self._read(row)
        name = self._named(order)
        if row.state is State.SOAKING:
            return TrainingWait(f"{name} is served on trial", f"it has run for {say_seconds(order.terms.soak)}, or is reverted")
        if row.state is State.PROBING:
            return TrainingWait(f"{name} is tried on held-out samples", "that is over")
        if row.state is State.STAGED and self._swept and not self._held_back(order):  # a run that never looks at it keeps no round from it
            return TrainingWait(f"{name} is about to be tried", "that is over")
        return None

    def held_back(self) -> str:
        """Return what a staged variant waits for; empty when it waits for nothing, or is not staged."""
        row = self._memory.current()
        return self._held_back(self._read(row)) if row is not None and row.state is State.STAGED else ""

    # Its states. Each returns whether it moved.

    def _offered(self, row: TakenDesired, order: DeployOrder, now: float) -> bool:
        stop = order.stop or checks.against_settings(order, self._settings)
        if stop is not None:
            return self._end(State.REFUSED, stop)
        if self._over(order):
            return True
        place = self._means.where(order.desired.variant)
        if place is BasePlace.NOWHERE and (order.terms.back or order.variant is None):
            return self._end(State.REFUSED, checks.not_here())
        here = place is not BasePlace.NOWHERE
        if not order.terms.back and place is not BasePlace.SERVED:
            stop = checks.against_board(order, self._settings, self._means.facts(), here=here)
            if stop is not None:
                return self._end(State.REFUSED, stop)
        return self._stage(order) if here else self._move(State.FETCHING)

    def _fetching(self, row: TakenDesired, order: DeployOrder, now: float) -> bool:
        if self._over(order):
            return True
        assert order.variant is not None  # or it would have a stop
        if self._means.where(order.desired.variant) is not BasePlace.NOWHERE:
            return self._stage(order)  # a kill came behind the staging
        got = self._means.fetch(order.desired, order.terms, order.variant, now)
        told = got.tries != row.tries or abs(got.bytes - row.size) >= order.variant.size // TOLD  # each is a write to the disk
        if told or ((got.here or got.stop is not None) and got.bytes != row.size):
            self._memory.fetched(got.tries, got.bytes)
        if got.stop is not None:
            return self._end(State.REFUSED, got.stop)
        return self._stage(order) if got.here else False

    def _stage(self, order: DeployOrder) -> bool:
        """Lay down what was fetched; what lies here already is left as it is until it is served."""
        try:
            place = self._means.where(order.desired.variant)
            lies = place not in (BasePlace.NOWHERE, BasePlace.PASSIVE) or order.terms.back
            if not lies and order.variant is not None:
                self._means.stage(order.desired, order.variant)
        except OF_BOARD:
            raise
        except StateDamaged as e:  # what lay here was let go of: it comes anew
            self._tell(e.message)
            return True
        except ModelError as e:  # it looks otherwise than the samples of this board
            return self._end(State.REFUSED, Stop(Code.SCHEMA, e.message))
        except ModelWireError as e:
            return self._end(State.REFUSED, Stop(Code.FILE, e.message))
        return self._move(State.STAGED)

    def _staged(self, row: TakenDesired, order: DeployOrder, now: float) -> bool:
        if self._over(order):
            return True
        if why := self._held_back(order):
            self._tell(f"{self._named(order)} is here and waits: {why}")
            return False
        if not self._idle():
            return False
        return self._move(State.PROBING, Who.HOST if self._asks(order) else Who.DEVICE)

    def _probed(self, row: TakenDesired, order: DeployOrder, now: float) -> bool:
        place = self._means.where(order.desired.variant)
        if place in (BasePlace.SOAKING, BasePlace.SERVED):  # a kill came behind the switch; or it is what was served all the time
            return self._move(State.SOAKING)
        if row.code:
            return self._end(State.REVERTED, Stop(row.code, row.reason))
        if place is BasePlace.NOWHERE:
            return self._end(State.REVERTED, Stop(Code.FILE, "what was staged is damaged, or gone"))
        if (veto := self._veto(order)) is not None:
            return self._end(State.REVERTED, veto, Who.HOST)
        if not self._probing:
            if row.probes >= PROBES:
                return self._end(State.REVERTED, Stop(Code.CRASH, f"the agent or the board ended {PROBES} times while it was tried"))
            self._memory.probes(row.probes + 1)  # before it begins: the board may die of it
            self._means.probe(order.desired.variant, order.terms)
            self._probing = True
            return False
        found = self._found or self._means.probed()
        if found is None:
            return False
        if found.lost:
            self._probing = False
            return True
        self._found = found  # where the disk takes nothing more now, it is not tried again for that
        self._memory.measured(found.learned, found.before, found.after, found.figures)
        if found.note:
            self._tell(found.note)
        if found.stop is not None:
            self._memory.blame(found.stop.code, found.stop.reason)
            return self._end(State.REVERTED, found.stop)
        try:
            self._means.soak(order.desired.variant, found.learned)
        except OF_BOARD:
            raise
        except ModelWireError as e:
            return self._end(State.REVERTED, Stop(Code.FILE, e.message))
        return self._move(State.SOAKING)

    def _soaking(self, row: TakenDesired, order: DeployOrder, now: float) -> bool:
        place = self._means.where(order.desired.variant)
        if place is BasePlace.SERVED:
            return self._move(State.CONFIRMED)
        if place is not BasePlace.SOAKING:
            why = row.reason or "what was served from is damaged; what was served before is served again"
            return self._end(State.REVERTED, Stop(row.code or Code.FILE, why))
        stop = Stop(row.code, row.reason) if row.code else self._veto(order)
        if stop is not None:
            return self._revert(stop, Who.DEVICE if row.code else Who.HOST)
        self._count(now)
        if row.soaked + self._uncounted < order.terms.soak or not self._idle():
            if self._uncounted >= self._every:
                self._write_count(row)
            return False
        try:
            self._means.confirm(int(self._target.wall()))
        except NotWelcome as e:
            self._tell(f"{self._named(order)} is to be confirmed, and waits: {e.message}")
            return False
        except TooLarge as e:
            return self._revert(Stop(Code.BUDGET, f"no update can say what is served: {e.message}"))
        except OF_BOARD:
            raise
        except ModelWireError as e:  # the centre may have moved the model meanwhile: that is no fault of what soaked
            return self._revert(Stop(Code.SUPERSEDED if isinstance(e, LineageError) else Code.FILE, e.message))
        return self._move(State.CONFIRMED)

    # Between states.

    def _sweep(self) -> None:
        """Let go, once, of what an end left staged, and of what came of a file that lies in its place: a kill may have come between."""
        row = self._memory.current()
        if not self._swept and row is not None:
            if row.state in FINAL and self._means.where(self._desired().variant) is BasePlace.STAGED:
                self._means.drop()
            elif row.state not in (State.OFFERED, State.FETCHING):
                self._means.forget_file()
        self._swept = True

    def _over(self, order: DeployOrder) -> bool:
        """End what was not served yet, where the host said no or its time is over; return whether it did."""
        if order.stop is not None:  # the root key was replaced meanwhile, and vouches for it no more
            return self._end(State.REFUSED, order.stop)
        if (veto := self._veto(order)) is not None:
            return self._end(State.REFUSED, veto, Who.HOST)
        if (time := self._target.newest()) > order.desired.expiry:
            return self._end(State.TIMED_OUT, Stop("", f"it expired at {order.desired.expiry}, and the centre's clock said {time}"))
        return False

    def _veto(self, order: DeployOrder) -> Stop | None:
        word = self._host(order.desired.number)
        if word is None or word.accepts:
            return None
        return Stop(Code.VETO, f"the host said no{': ' + word.reason if word.reason else ''}")

    def _asks(self, order: DeployOrder) -> bool:
        return order.terms.consent or self._settings.deploy.accept == "ask"

    def _held_back(self, order: DeployOrder) -> str:
        if not (time := self._target.newest()):
            return "the centre's clock was not heard yet, so it is not known whether it holds still"
        if time < order.terms.not_before:
            return f"it is not served before {order.terms.not_before}, and the centre's clock said {time}"
        word = self._host(order.desired.number)
        if self._asks(order) and not (word is not None and word.accepts):
            return "its host has not said yes: edgeagent desired accept"
        return ""

    def _supersede(self, row: TakenDesired, by: DeployOrder) -> None:
        """End what is under way for a newer desired."""
        stop = Stop(Code.SUPERSEDED, f"desired {by.desired.number} took its place")
        if row.state is State.SOAKING and self._means.where(self._read(row).desired.variant) is BasePlace.SERVED:
            self._move(State.CONFIRMED)  # a kill came behind the taking over
        elif row.state is State.SOAKING:
            self._revert(stop, Who.DIRECTOR)
        else:
            keeps = row.state is not State.PROBING and self._read(row).desired.variant == by.desired.variant
            self._end(State.REVERTED if row.state is State.PROBING else State.REFUSED, stop, Who.DIRECTOR, drop=not keeps)

    def _revert(self, stop: Stop, who: Who = Who.DEVICE) -> bool:
        self._memory.blame(stop.code, stop.reason)  # a kill comes back here, whatever it left
        if self._means.where(self._desired().variant) is BasePlace.SOAKING:
            self._means.revert(stop.reason)
        return self._end(State.REVERTED, stop, who)

    def _end(self, state: State, stop: Stop, who: Who = Who.DEVICE, *, drop: bool = True) -> bool:
        """End in a state in which the variant is not served. Always true."""
        self._means.cease()
        self._probing = self._swept = False  # a disk that takes nothing more may leave something behind
        self._move(state, who, stop)
        if drop and not self._desired_is_way_back():
            self._means.drop()
        return True

    def _move(self, state: State, who: Who = Who.DEVICE, stop: Stop | None = None) -> bool:
        row = self._memory.current()
        assert row is not None and allowed(row.state, state, who), f"{row and row.state} to {state} by {who}"
        reason = stop.reason if stop is not None else ""
        self._memory.move(state, int(self._target.wall()), code=stop.code if stop is not None else "", reason=reason)
        self._since, self._uncounted, self._probing, self._found = None, 0.0, False, None
        name, number = self._named(self._read(row)), self._desired().number
        level = logging.WARNING if state in FINAL and state is not State.CONFIRMED else logging.INFO
        _log.log(level, "%s: %s (desired %d): %s%s", self._target.model, name, number, state.value, f": {reason}" if reason else "")
        self._report()
        return True

    def _count(self, now: float) -> None:
        """Count the seconds of running in which a variant soaks, by no clock that can be set."""
        self._uncounted += max(0.0, now - self._since) if self._since is not None else 0.0
        self._since = now

    def _write_count(self, row: TakenDesired) -> None:
        self._memory.soaked(row.soaked + self._uncounted)
        self._uncounted, self._every = 0.0, min(COUNTED[1], 2 * self._every)

    # What it says.

    def _report(self) -> None:
        row = self._memory.current()
        assert row is not None
        order = self._read(row)
        self._news.report(row, order.desired, serves=self._means.serves(), passive=self._means.passive(), newest=order.terms.back)

    def _pass_by(self, desired: Desired) -> None:
        """Say that nothing comes of a desired without terms."""
        self._memory.pass_by(desired.number)
        self._news.pass_by(desired)
        _log.warning("%s: the centre wants the variant %s: %s", self._target.model, desired.variant.hex()[:12], DEPLOYS_NOTHING)

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            _log.info("%s: %s", self._target.model, what)

    def _refused(self, desired: Desired, reason: str) -> DesiredRefused:
        t = self._target
        return DesiredRefused(device=t.device, model=t.model, number=desired.number, reason=reason)

    # What it reads.

    def _read(self, row: TakenDesired) -> DeployOrder:
        """Return what the desired of a row says; it was proven when it came."""
        root = self._target.root()
        if self._order is None or self._order[:2] != (row.record, root):
            desired = records.expect(records.parse(row.record), Desired)
            order = checks.read_order(desired, root, self._target.fleet_id)
            assert order is not None  # one without terms has no row
            self._order = row.record, root, order
        return self._order[2]

    def _desired(self) -> Desired:
        row = self._memory.current()
        assert row is not None
        return self._read(row).desired

    def _desired_is_way_back(self) -> bool:
        """Return whether the variant lies in the passive place: that stays, whatever became of the desired."""
        return self._means.where(self._desired().variant) in (BasePlace.PASSIVE, BasePlace.SERVED)

    @staticmethod
    def _named(order: DeployOrder) -> str:
        variant = order.variant
        return f"the variant {variant.name if variant is not None and variant.name else order.desired.variant.hex()[:12]}"
