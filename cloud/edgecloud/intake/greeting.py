"""What a device says of itself: hello and its welcome, presence, answers to commands."""

from __future__ import annotations

from edgecloud.registry import Request, WaitingMessage
from modelwire.errors import LineageError, Malformed
from modelwire.wire.records import Adopt, Command, Hello, Presence, Record, Response, Signed, Welcome, expect
from modelwire.wire.topics import Topic

from . import linking
from .decision import Context, Decision, KeyStanding, Reply, Result, require_known, standing

ADOPT = Adopt.KIND


def hello(context: Context, topic: Topic, signed: Signed, data: bytes) -> Decision:
    """Return the welcome. A new state gets the next epoch, written down before the answer goes out."""
    store = context.store
    said = expect(signed, Hello)
    check_topic(topic, said)
    signed.verify(said.key, said.device)  # it speaks for its key; whose key that is comes next
    keys = {k.key: k for k in store.devices.keys(said.device)}
    known = keys.get(said.key)
    if known is None or known.revoked_at is not None:
        _wait(context, said, data, "unknown-key")
        reason = "its key is revoked" if known else "its key is not registered"
        return _welcome(context, said, "quarantine", Result.QUARANTINED, reason)
    base = store.bases.get(said.base)
    if base is None:
        _wait(context, said, data, "unknown-base")
        return _welcome(context, said, "unknown-base", Result.QUARANTINED, f"its base {said.base.hex()[:16]} is not registered")
    if store.lineages.get(said.device, said.model) is None and len(store.lineages.of(said.device)) >= context.bounds.models_of_device:
        raise LineageError(reason=f"{said.device} has {context.bounds.models_of_device} models; no more are taken")
    lineage = store.lineages.ensure(said.device, said.model)
    store.lineages.greeted(lineage.id, said.runtime, said.agent, context.now)
    epoch = store.lineages.epoch_of(lineage.id, said.state, said.base)
    closed: tuple[Reply, ...] = ()
    if epoch is None:
        newest = store.lineages.current(lineage.id)
        if newest is not None and newest.epoch >= context.bounds.epochs:
            raise LineageError(reason=f"{lineage} has lost its state {newest.epoch} times; no more epochs are granted")
        epoch = store.lineages.grant(lineage.id, said.state, said.base, context.now)
        closed = linking.close_older(context, lineage, epoch.epoch)
    head = store.lineages.head(lineage.id, epoch.epoch)
    assert head is not None  # granted together with the epoch
    answer = Welcome(
        store.fleet, said.device, said.model, context.now, said.state, "ok", epoch.epoch, lineage.last_version,
        head.commit, head.version, store.versions.verified(lineage.id, epoch.epoch),
    )  # fmt: skip
    asked = tuple(command(context, r) for r in store.requests.open(lineage.id))
    return Decision(
        Result.WELCOMED, said.device, said.model, head.version, f"epoch {epoch.epoch}", (Reply("cmd", answer), *asked, *closed)
    )


def presence(context: Context, topic: Topic, signed: Signed, data: bytes) -> Decision:
    """Keep whether a device is on line. It is retained by the broker, so it comes again and again."""
    said = expect(signed, Presence)
    check_topic(topic, said)
    lineage = context.store.lineages.get(said.device, said.model)
    signer = standing(context.store, said.device, lambda key: signed.verify(key, said.device))
    if signer is KeyStanding.UNKNOWN:
        looked = max((k.id for k in context.store.devices.keys(said.device)), default=0)
        _hold(context, WaitingMessage(0, said.device, said.model, "state", "unknown-key", b"", b"", data, context.now, looked))
        return Decision(Result.QUARANTINED, said.device, said.model, reason="presence under a key that is not registered")
    if signer is KeyStanding.REVOKED or lineage is None:
        return Decision(Result.DROPPED, said.device, said.model, reason="presence of a device that is not welcome")
    kept = context.store.lineages.seen(lineage.id, said.online, said.boot, context.now)
    word = ("on line" if said.online else "off line") if kept else "late word of an older start"
    return Decision(Result.NOTED, said.device, said.model, reason=word)


def response(context: Context, topic: Topic, signed: Signed) -> Decision:
    """Keep a device's answer to a command; only the first one counts."""
    said = expect(signed, Response)
    check_topic(topic, said)
    require_known(context.store, said.device, lambda key: signed.verify(key, said.device))
    lineage = context.store.lineages.get(said.device, said.model)
    if lineage is None:
        raise LineageError(reason=f"{said.device}/{said.model} answers a command and has never said hello")
    first = context.store.requests.answer(said.id, lineage.id, said.ok, said.text, context.now)
    return Decision(Result.NOTED, said.device, said.model, reason=f"answer to {said.id}" if first else "no open command has this id")


def command(context: Context, request: Request) -> Reply:
    """Return the record that asks a device for what the operator wants."""
    lineage = context.store.lineages.by_id(request.lineage)
    names = (context.store.fleet, lineage.device, lineage.model, context.now, request.id)
    return Reply("cmd", Adopt(*names, request.content) if request.verb == ADOPT else Command(*names, request.verb))


def check_topic(topic: Topic, record: Record) -> None:
    """Raise Malformed unless a record came on the topic of the device and model that it names."""
    if (record.fleet, record.device, record.model) != (topic.fleet, topic.device, topic.model):
        raise Malformed(what=record.KIND, reason=f"it is of {record.fleet}/{record.device}/{record.model} and came on {topic}")


def _welcome(context: Context, said: Hello, status: str, result: Result, reason: str) -> Decision:
    answer = Welcome(context.store.fleet, said.device, said.model, context.now, said.state, status, 0, 0, said.base, 0, 0)
    return Decision(result, said.device, said.model, reason=reason, replies=(Reply("cmd", answer),))


def _wait(context: Context, said: Hello, data: bytes, reason: str) -> None:
    """Keep the hello until the operator adds the key or the base; then it is answered again at once."""
    _hold(context, WaitingMessage(0, said.device, said.model, "hello", reason, said.key, said.base, data, context.now, 0))


def _hold(context: Context, message: WaitingMessage) -> None:
    inbox, bounds = context.store.inbox, context.bounds
    if not inbox.holds(message.device, message.model, message.kind, message.mark):
        # Boards repeat themselves and strangers' floods pass: the oldest makes room.
        if inbox.held_size(message.device, message.kind)[0] >= bounds.held_count:
            inbox.drop_oldest(message.kind, message.device)
        if inbox.held_total(message.kind)[0] >= bounds.held_total:
            inbox.drop_oldest(message.kind)
    inbox.hold(message)
