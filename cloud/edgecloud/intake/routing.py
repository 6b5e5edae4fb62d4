"""Decides what each message of a device means, and writes the decision to the store. No network, no clock, no thread.

One message is one savepoint: whatever is wrong with it, nothing of it stays but a row in the list of refusals.
docs/protocol.md, "Delivery", is the contract.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edgecloud.audit.admissions import Admissions
from edgecloud.registry import Refusal, Request, Store
from edgecommon.mqtt_packets import INBOUND, TOPIC, Minutely
from modelwire.errors import ModelWireError, RegistryDamaged, TooLarge, WrongFleet
from modelwire.wire import parts, records, routes, topics
from modelwire.wire.records import Signed
from modelwire.wire.signing import Role

from . import asking, greeting, handing, joining, linking
from .decision import OURS, Bounds, Context, Decision, Handed, Reply, Result, clean

log = logging.getLogger("edgecloud.ingest")
TOLD_AT_ONCE = 500  # desireds in one tick of a second: a start tells a whole fleet what is open, a part at a time


class Ingest:
    """The decisions over one store, for one thread.

    secret: of the challenges; random, made once a start. certificates: folder of those that boards may have by now.
    """

    def __init__(self, store: Store, bounds: Bounds | None = None, *, secret: bytes, certificates: Path | None = None) -> None:
        self.store = store
        self.bounds = bounds if bounds is not None else Bounds()
        self._secret, self._certificates, self._handed = secret, certificates, Handed()
        self.admissions = Admissions(store.identity)
        self._unread = Minutely()  # topics
        self._asked: dict[tuple[int, int], float] = {}  # when a command was told last, by lineage and number
        self._told = 0  # id of the newest desired that was told

    def catch_up(self) -> None:
        """Take in what an operator has sealed since. Raises RegistryDamaged for a log that was changed by anybody else."""
        self.admissions.catch_up(self.store.log, "the registry")
        if [row.record for row in self.store.trusts.all()] != self.admissions.records:  # boards would not hear of a key that was changed
            raise RegistryDamaged(path="the registry", reason="its trust records are others than those in its log")

    def forget(self) -> None:
        """Replay the log from its first entry at the next message: what was last seen of it was taken back with a transaction."""
        self.admissions = Admissions(self.store.identity)

    def take(self, topic: str, data: bytes, now: int, unread: int = 0) -> Decision:
        """Return what became of one message, of those who spoke at the last `catch_up`. Raises only what is the registry's own trouble.

        unread: bytes of one that was too large to be read, and has no data here.
        """
        context = self._context(now)
        if unread:
            error = TooLarge(what="a message that was let go unread", size=unread, limit=INBOUND)
            refused = self._refuse(context, topic, b"", type(error).__name__, str(error), size=unread)
            return replace(refused, news=self._unread.is_news(topic[:TOPIC], now))
        try:
            with self.store.transaction():
                return self._route(context, topic, data)
        except OURS:
            raise
        except ModelWireError as error:
            replies = greeting.to_namesake(context, data) if isinstance(error, WrongFleet) else ()
            todo = f"; {error.next_step}" if isinstance(error, WrongFleet) else ""
            return self._refuse(context, topic, data, type(error).__name__, str(error) + todo, replies)
        except Exception as error:
            # A message that finds a bug would otherwise come again for ever and stop the whole fleet.
            log.exception("a message on %s met a fault of this program", topic[:120])
            return self._refuse(context, topic, data, "Fault", f"{type(error).__name__}: {error}")

    def released(self, now: int) -> list[Decision]:
        """Return what became of the messages whose device or base the operator has added since."""
        self.store.inbox.expire(now - self.bounds.held_seconds)
        out = []
        for message in self.store.inbox.released(limit=100):
            with self.store.transaction():
                self.store.inbox.release(message.id)
                out.append(self.take(topics.up(self.store.fleet, message.device, message.model, message.kind), message.bytes, now))
        return out

    def commands(self, lineage: int | None = None, now: int = 0) -> list[Request]:
        """Return what is asked for and neither answered nor expired."""
        return self.store.requests.open(now, lineage)

    def said(self, request: Request, now: int) -> tuple[Reply, ...]:
        """Return a command as it was sealed, and how the update is cut that it names."""
        return asking.command(self._context(now), request)

    def due(self, now: int, clock: float, again: float) -> Iterator[tuple[Reply, ...]]:
        """Yield what is to be told to devices unasked: commands that are neither answered nor expired, and what models are to run.

        clock: seconds that only rise. A command is told anew after `again` of them; what a model is to run once, and then at each hello.
        """
        for request in self.commands(now=now):
            one = request.lineage, request.number
            if clock - self._asked.get(one, -again) >= again:
                self._asked[one] = clock
                yield self.said(request, now)
        for row in self.store.rollouts.open_desired(now, self._told, TOLD_AT_ONCE):
            self._told = row.id
            yield asking.desired(self._context(now), row)

    def _context(self, now: int) -> Context:
        return Context(self.store, self.bounds, now, self._secret, self.admissions, self._handed, self._certificates)

    def _route(self, context: Context, name: str, data: bytes) -> Decision:
        topic = topics.parse(name)
        routes.check_heard(topic, self.store.fleet)
        if topic.leaf == "part" and data[: len(parts.MAGIC)] == parts.MAGIC:
            return joining.part(context, topic, data)
        if topic.leaf == "update":
            return linking.update(context, topic, data)
        signed = _record(context, topic, data)
        if isinstance(signed.record, records.Unknown):
            return asking.unknown(context, signed, signed.record)
        if isinstance(signed.record, records.Wanted):
            return handing.wanted(context, signed, data)
        return _ROUTES[topic.leaf](context, signed, data)

    def _refuse(
        self, context: Context, topic: str, data: bytes, error: str, reason: str, replies: tuple[Reply, ...] = (), size: int = 0
    ) -> Decision:
        try:
            parsed = topics.parse(topic)
            device, model = parsed.device, parsed.model
        except ModelWireError:
            device = model = ""
        digest = hashlib.sha256(topic.encode() + b"\0" + data).digest()
        reason = clean(reason)
        self.store.refusals.add(Refusal(digest, device, model, error, reason, context.now, size or len(data)), self.bounds.refusals)
        return Decision(Result.DROPPED, device, model, reason=f"{error}: {reason}", replies=replies)


def _record(context: Context, topic: topics.Topic, data: bytes) -> Signed:
    """Return a record that a device says of itself in our fleet, on its own topic; its signature is not verified yet.

    Raises WrongRole, WrongFleet or Malformed, and what `records.parse` raises.
    """
    signed = records.parse(data, context.bounds.wire)
    signed.check(context.store.identity.id, Role.DEVICE)
    routes.check_place(topic, signed.record)
    return signed


_ROUTES: dict[str, Callable[[Context, Signed, bytes], Decision]] = {
    "hello": greeting.hello,
    "state": greeting.presence,
    "rsp": asking.response,
    "part": joining.transfer,
    "report": asking.report,
    "enrol": asking.enrol,
}
