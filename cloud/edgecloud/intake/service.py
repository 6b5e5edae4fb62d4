"""The service that takes a fleet's messages in: commit first, acknowledge and answer after, rebuild beside it.

Four threads: the transport's own fills a bounded inlet, where each device has its turns; this one commits batches, acknowledges and
answers; one rebuilds; one compacts.
`kill -9` at any moment loses nothing: what was not committed was not acknowledged, and what was not receipted comes again.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgecloud.audit.signing import require_signed, sign_end
from edgecloud.feasibility.lazily import ScoringThread
from edgecloud.keeping.beside import KeepingThread
from edgecloud.keeping.letting_go import LettingGo
from edgecloud.keeping.sketching import SketchMaker
from edgecloud.registry import AlarmRow, RecentEntries, SqliteStore, Store, open_registry
from edgecloud.registry.lock import BUT, lock_registry
from edgecloud.registry.privacy import require_private
from edgecloud.workers.pool import WorkerPool
from edgecommon import disk
from edgecommon.systemd import Pulse, Systemd
from modelwire.errors import BrokerRefused, BrokerUnreachable, DiskUnwritable, LinkError, SessionTaken, StateBusy
from modelwire.wire.signing import Signer

from .challenge import SECRET_BYTES
from .decision import Bounds, Decision, Reply, Result
from .quotas import charging
from .quotas.inlet import Inlet
from .quotas.trainings import Trainings
from .rebuilding import Rebuilder
from .routing import Ingest
from .speaking import Voice
from .transport import Delivery, IntakeTransport, ScreeningTransport

log = logging.getLogger("edgecloud.ingester")
NO_ROOM = "%s; nothing more is acknowledged until there is room: %s"
ROOM = "there is room on the disk again: going on"
QUIET = 1.0  # seconds without a message, after which what is done beside may take all the time it wants
TRAININGS = 1  # processes that train recipes again
AT_REST = 0.2  # seconds that a message is waited for
TOLD_LEFT_OUT = 60.0  # seconds between two words on what was left out
NAMES_AT_ONCE = 10_000
TOLD = 2.0  # seconds between two words to systemd about what goes on
UNREACHED = "start the broker, or name another one: edgecloud ingest --broker mqtt://HOST:PORT"
_WORRYING = (Result.REFUSED, Result.DROPPED, Result.QUARANTINED, Result.WAITS)


@dataclass(frozen=True, slots=True)
class Pace:
    """How the ingester works. Times in seconds."""

    batch: int = 100  # messages a commit; one power-safe commit of many costs what one of one does
    batch_seconds: float = 0.05
    slice: float = 0.25  # seconds, after which a batch is committed as far as it is: what is dear holds nobody up for longer
    queue: int = 1000  # messages that wait for their batch
    queue_bytes: int = 64 * 1024 * 1024  # of them together; a broker would send hundreds of the largest at once
    tick: float = 1.0  # how often the operator's additions and requests are looked for
    resend: float = 30.0  # a command without an answer goes out again
    busy: float = 30.0  # how long another writer may hold the registry
    workers: int = 0  # processes that rebuild; 0: a thread of this one does
    disk: float = 2.0  # between two tries to write to a disk that takes nothing more
    connect: float = 15.0  # --once gives up on a broker after this
    evaluate: float = 0.0  # share of one processor's time in which new versions are scored on probe sets; 0: none is


@dataclass(slots=True)
class Tally:
    """What one run of the ingester has done."""

    results: Counter[str] = field(default_factory=Counter)
    verified: int = 0
    refused: int = 0

    def document(self) -> dict[str, int]:
        return {**{r.value: self.results[r.value] for r in Result}, "verified": self.verified, "refused_on_rebuild": self.refused}


class Ingester:
    """One ingester of one registry. `run` works until `stop` is called, from any thread or signal handler."""

    def __init__(
        self,
        path: Path,
        key: Signer,
        transport: IntakeTransport,
        *,
        read_key: Callable[[], Signer] | None = None,
        pace: Pace | None = None,
        bounds: Bounds | None = None,
        clock: Callable[[], float] = time.time,
        synchronous: str = "FULL",
        certificates: Path | None = None,
        systemd: Systemd | None = None,
    ) -> None:
        """key: the centre's receipt key; read_key: reads it anew, when the fleet's keys have changed. certificates: folder of those that
        boards may have by now, NAME.pem each. systemd: is told how it goes; by default nobody is.
        """
        self._path, self._transport = path, transport
        self._voice = Voice(key, read_key)
        self._pace = pace if pace is not None else Pace()
        self._bounds = bounds if bounds is not None else Bounds()
        self._clock = clock
        self._synchronous, self._certificates = synchronous, certificates
        # Messages, and what the rebuild has to say: only one thread answers, so `verified` never overtakes `stored`.
        self._inlet = Inlet(self._pace.queue, self._pace.queue_bytes, leave_out=transport.acknowledge)
        self._admitted = 0  # the last key whose device has a queue of its own
        self._told_at = float("-inf")  # monotonic seconds since it was said whose messages were left out
        self._counting = threading.Lock()
        self._stopping = False
        self._full = False  # its disk took nothing more, the last time
        self._patient = True  # it waits for its disk
        self._work = threading.Event()  # something was stored
        self._idle = threading.Event()  # the rebuild has nothing left
        self._failure: BaseException | None = None
        self._fleet = b""  # the fleet's id, once the registry is open
        self._tell: Callable[[str], None] = lambda _: None  # to who looks at this registry from outside
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._systemd = systemd if systemd is not None else Systemd({})
        self._rebuild_pulse: Pulse | None = None  # once that thread runs
        self._heard = float("-inf")  # monotonic seconds since the last message
        self._said = float("-inf")  # monotonic seconds since systemd was last told what goes on
        self._takeovers = 0  # of the session, as far as they are noted
        self._remembered = RecentEntries()  # what both threads have entered in the log
        self.tally = Tally()

    def stop(self) -> None:
        """Ask `run` to end after the batch in hand."""
        # No event, no lock: a signal handler may run in the middle of one that this very thread holds.
        self._stopping = True

    def run(self, once: float | None = None) -> Tally:
        """Take messages in until stopped; with `once`, until nothing has come for so many seconds and all is rebuilt.

        Raises StateBusy when another ingester works on this registry, DiskUnwritable with `once` alone, and the registry's own errors.
        """
        self._patient = once is None
        with lock_registry(self._path) as held:
            self._tell = held.tell
            require_private(self._path)
            store = self._open()
            rebuild = threading.Thread(target=self._rebuild, name="edgecloud-rebuild", daemon=True)
            beside = KeepingThread(
                self._path, self._open, lambda: self._stopping, self._letting_go, self._sketching, clock=self._clock, busy=self._is_busy
            )
            scoring = ScoringThread(self._path, self._open, lambda: self._stopping, share=self._pace.evaluate, clock=self._clock)
            try:
                told = self._voice.look(store, int(self._clock()))
                store.files.sweep(before=self._clock() - 3600)
                rebuild.start()
                if self._patient:
                    beside.start()
                    scoring.start()
                ingest = Ingest(store, self._bounds, secret=self._secret, certificates=self._certificates)
                ingest.catch_up()
                require_signed(store, ingest.admissions, self._path)
                self._look_at_inlet(store)
                if isinstance(self._transport, ScreeningTransport):
                    self._transport.screen_with(self._inlet.screen)
                self._transport.start(lambda delivery: self._inlet.put(delivery, lambda: self._stopping))
                self._fleet = store.identity.id
                self._send(told)
                self._serve(ingest, once)
            finally:
                self._systemd.stopping()
                self.stop()
                self._work.set()
                if rebuild.ident is not None:
                    rebuild.join()
                beside.join()
                scoring.join()
                self._transport.drain(5.0 if self._transport.connected else 0.0)
                self._transport.stop()
                store.close()
        if self._failure is not None:
            raise self._failure
        return self.tally

    def _serve(self, ingest: Ingest, once: float | None) -> None:
        last_tick = last_message = started = time.monotonic()
        met: float | None = None  # when the broker was first reached
        while not self._stopping:
            self._tell_systemd()
            batch, said = self._inlet.take(self._pace.batch, AT_REST, self._pace.batch_seconds, lambda: self._stopping)
            self._tell(self._standing())
            now = time.monotonic()
            if batch:
                last_message = now
                self._commit(ingest, batch)
            self._send(said)
            self._require_place(ingest.store)
            if now - last_tick >= self._pace.tick:
                last_tick = now
                self._send(self._voice.look(ingest.store, int(self._clock())))
                self._tick(ingest)
                self._look_at_inlet(ingest.store)
            if once is not None:
                if met is None and self._transport.connected:
                    met = last_message = now
                if met is None and now - started > self._pace.connect:
                    raise self._unreached()
                if met is not None and now - last_message > once and self._idle.is_set() and self._inlet.empty:
                    if self._transport.connected and self._transport.trouble is not None:
                        raise self._unreached()
                    return

    def _require_place(self, store: Store) -> None:
        """Note what another client of this name did to the session. Raises SessionTaken once the transport has stepped back for it."""
        count, ousted, name = self._transport.takeovers, self._transport.ousted, self._transport.client_id
        if count > self._takeovers:
            what = f"another client uses the ingester's name {name} at {self._transport.name}"
            try:
                store.losses.raise_alarm(AlarmRow("", "", "session", what, int(self._clock()), times=count - self._takeovers))
            except StateBusy:
                return  # noted the next time
            self._takeovers = count
        if ousted:
            raise SessionTaken(broker=self._transport.name, name=name, reason=ousted)

    def _standing(self) -> str:
        """Return how the link is, for `doctor`, which does not take a running ingester's session over."""
        trouble = self._transport.trouble
        if self._transport.connected:
            return f"connected to {self._transport.name}" + (f"{BUT}{trouble}" if trouble is not None else "")
        return f"no link: {trouble}" if trouble is not None else "connecting"

    def _unreached(self) -> LinkError:
        """Return the error of a start that found no way to listen: the last reason, with an exit code that is its own."""
        name, trouble = self._transport.name, self._transport.trouble
        if trouble is None:
            return BrokerUnreachable(broker=name, reason=f"no connection within {self._pace.connect:g} s", fix=UNREACHED)
        if trouble.refused:
            return BrokerRefused(broker=name, reason=trouble.reason, fix=trouble.fix or "edgecloud doctor")
        return BrokerUnreachable(broker=name, reason=trouble.reason, fix=trouble.fix or UNREACHED)

    def _commit(self, ingest: Ingest, batch: list[Delivery]) -> None:
        while True:
            try:
                with ingest.store.transaction():
                    now, end = int(self._clock()), time.monotonic() + self._pace.slice
                    ingest.catch_up()
                    outcomes, took = [], []
                    for delivery in batch:
                        began = time.thread_time()
                        outcomes.append(ingest.take(delivery.topic, delivery.data, now, delivery.unread))
                        took.append(time.thread_time() - began)
                        if time.monotonic() > end:
                            break
                    charging.count_work(ingest.store, outcomes, took, now)
                    self._sign(ingest.store)
                break
            except (StateBusy, DiskUnwritable, OSError) as error:
                ingest.forget()
                waits = "another writer" if isinstance(error, StateBusy) else "room on its disk"
                self._tell_systemd(f"waits for {waits}: {error}; {len(batch)} messages wait")
                if self._wait(error, "the batch waits"):
                    return  # nothing of it was acknowledged: it comes again
        self._has_room()
        done, left = batch[: len(outcomes)], batch[len(outcomes) :]
        self._inlet.done(done, took)
        self._inlet.back(left)
        self._heard = time.monotonic()
        for delivery in done:
            self._transport.acknowledge(delivery)
        self._after(outcomes)

    def _look_at_inlet(self, store: Store) -> None:
        """Give devices that were admitted since queues of their own, and say whose messages were left out."""
        while found := store.quotas.admitted(self._admitted, NAMES_AT_ONCE):
            self._admitted = found[-1][0]
            self._inlet.admit(device for _, device in found)
        if time.monotonic() - self._told_at >= TOLD_LEFT_OUT and (left_out := self._inlet.left_out()):
            self._told_at = time.monotonic()
            most = sorted(left_out.items(), key=lambda one: -one[1])
            named = ", ".join(f"{count} of {name}" for name, count in most[:3]) + (f", and of {len(most) - 3} others" if most[3:] else "")
            log.warning("messages beyond their senders' turns were left out: %s; a board that has no receipt sends again", named)

    def _is_busy(self) -> bool:
        """Return whether messages come, or what they brought is not proven yet. Runs on the compactor's thread."""
        return time.monotonic() - self._heard < QUIET or not self._idle.is_set()

    def _tell_systemd(self, trouble: str = "") -> None:
        """Say that this loop lives, when the thread that it depends on does too, and what goes on. trouble: what it waits for."""
        if not self._systemd.listens:
            return
        self._systemd.ready()  # also without a broker: it waits for one, and says so
        if self._rebuild_pulse is None or self._rebuild_pulse.beats():
            self._systemd.alive()
        now = time.monotonic()
        if trouble or now - self._said >= TOLD:
            self._said = now
            link = f"listens at {self._transport.name}" if self._transport.connected else f"waits for {self._transport.name}"
            link += f"{BUT}{unwell}" if self._transport.connected and (unwell := self._transport.trouble) is not None else ""
            stored, verified, refused = self.tally.results[Result.STORED.value], self.tally.verified, self.tally.refused
            done = f"{stored} stored, {verified} verified, {refused} refused on rebuild"
            self._systemd.status(f"{trouble or link}; since its start {done}")

    def _beat(self) -> None:
        if self._rebuild_pulse is not None:
            self._rebuild_pulse.beat()

    def _wait(self, error: Exception, what: str) -> bool:
        """Wait for another writer, or for a disk that takes nothing more; return whether it was asked to stop meanwhile.

        The disk is said once, not at each try. Raises the error again when it is another one, and with --once the disk's, too.
        """
        if isinstance(error, StateBusy):
            log.warning("%s; %s", error, what)
            return self._rest(1.0)
        full = error if isinstance(error, DiskUnwritable) else disk.unwritable(error) if isinstance(error, OSError) else None
        if full is None or not self._patient:
            raise full or error
        with self._counting:
            news, self._full = not self._full, True
        if news:
            log.error(NO_ROOM, full.message, full.next_step)
        return self._rest(self._pace.disk)

    def _has_room(self) -> None:
        """Say, once, that the disk takes writes again."""
        with self._counting:
            news, self._full = self._full, False
        if news:
            log.warning(ROOM)

    def _rest(self, seconds: float) -> bool:
        """Wait, and return whether it was asked to stop meanwhile."""
        end = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < end:
            time.sleep(0.05)
        return self._stopping

    def _tick(self, ingest: Ingest) -> None:
        now, clock = int(self._clock()), time.monotonic()
        try:
            with ingest.store.transaction():
                ingest.catch_up()  # first: only what an operator sealed is signed with the rest
                outcomes = ingest.released(now)
                self._sign(ingest.store)
            self._after(outcomes)
        except (StateBusy, DiskUnwritable, OSError) as error:
            ingest.forget()
            self._wait(error, "looking again")
            return
        for replies in ingest.due(now, clock, self._pace.resend):
            self._send(replies)

    def _after(self, outcomes: Iterable[Decision]) -> None:
        for outcome in outcomes:
            self.tally.results[outcome.result.value] += 1
            level = logging.DEBUG if not outcome.news else logging.WARNING if outcome.result in _WORRYING else logging.INFO
            if log.isEnabledFor(level):
                log.log(level, "%s", outcome.line, extra={"kind": outcome.kind})
            self._send(outcome.replies)
            if outcome.result is Result.STORED:
                self._work.set()
                self._idle.clear()

    def _sign(self, store: Store) -> None:
        """Sign the end of the log within the transaction that moved it: a kill leaves both or neither."""
        sign_end(store, self._voice.key_now(store, int(self._clock())), self._path)

    def _send(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            self._transport.publish(reply.topic, reply.encode(self._voice.key, self._fleet))

    def _rebuild(self) -> None:
        if self._systemd.every:
            self._rebuild_pulse = Pulse.of_this_thread(patience=2 * self._systemd.every)
        try:
            store = self._open()
            pool = WorkerPool(self._path, self._pace.workers) if self._pace.workers else None
            trainings = Trainings(store, WorkerPool(self._path, TRAININGS))
            try:
                self._rebuild_all(Rebuilder(
                    store, bounds=self._bounds, sign=self._sign, pool=pool, beat=self._beat, trainings=trainings
                ))  # fmt: skip
            finally:
                trainings.close()
                if pool is not None:
                    pool.close()
                store.close()
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            self._failure = error
            self.stop()

    def _rebuild_all(self, rebuilder: Rebuilder) -> None:
        while not self._stopping:
            self._beat()
            self._work.clear()
            self._idle.clear()
            try:
                judged = rebuilder.run(int(self._clock()), stopping=lambda: self._stopping)
            except (StateBusy, DiskUnwritable, OSError) as error:
                self._wait(error, "the rebuild waits")
                continue
            if judged:
                self._has_room()
            for one in judged:
                self.tally.verified += one.ok
                self.tally.refused += not one.ok
                if one.ok:
                    log.info("verified %s", one.name)
                else:
                    log.error("refused %s: %s", one.name, one.reason)
                for reply in one.replies:
                    self._inlet.answer(reply, lambda: self._stopping, self._beat)  # full, it is not stuck itself
            if not judged:
                if not self._work.is_set() and not rebuilder.busy:
                    self._idle.set()
                self._work.wait(0.0 if rebuilder.busy else 1.0)

    def _letting_go(self, store: SqliteStore) -> LettingGo:
        return LettingGo(store, stopping=lambda: self._stopping)

    def _sketching(self, store: SqliteStore) -> SketchMaker:
        return SketchMaker(store, stopping=lambda: self._stopping)

    def _open(self) -> SqliteStore:
        store = open_registry(self._path, synchronous=self._synchronous, busy=self._pace.busy)
        store.log.remembered = self._remembered
        return store


def wait_for_room(path: Path, again: float = 2.0, *, say: Callable[[str], None] = lambda text: None) -> None:
    """Return when the disk under a registry takes writes; what keeps it from that is logged once.

    again: seconds between two looks; say: is told at each of them what is waited for.
    """
    full = disk.refusal(path)
    if full is None:
        return
    log.error(NO_ROOM, full.message, full.next_step)
    while (full := disk.refusal(path)) is not None:
        say(f"waits for room on its disk: {full.message}")
        time.sleep(again)
    log.warning(ROOM)
