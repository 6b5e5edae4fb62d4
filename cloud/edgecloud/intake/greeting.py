"""What a device says of itself: hello and its welcome, presence."""

from __future__ import annotations

from edgecloud.registry import Epoch, HeadRow, LineageRow, WaitingMessage
from modelwire.errors import LineageError
from modelwire.output_head.recipe import TRAINERS
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import Hello, Presence, Signed, Welcome, expect

from . import asking, linking, renewing
from .challenge import answered, challenge
from .decision import Context, Decision, KeyStanding, Reply, Result, standing

TRUSTS_AT_ONCE = 16  # trust records in one answer; a device that lacks more says hello again


def hello(context: Context, signed: Signed, data: bytes) -> Decision:
    """Return the welcome. A new state gets the next epoch, once its challenge is answered, written down before the answer goes out."""
    store = context.store
    said = expect(signed, Hello)
    signed.verify(said.key, store.identity.id, said.device)  # it speaks for its key; whose key that is comes next
    known = {k.key: k for k in store.devices.keys(said.device)}.get(said.key)
    if known is None or known.revoked_at is not None:
        if store.devices.is_rejected(said.device, said.key):
            word = "was rejected"  # it takes no room, and is not listed
        else:
            _wait(context, said, data, "unknown-key")
            word = "is revoked" if known else "is not registered"
        reason = f"its key {fingerprint(said.key)} {word}"
        return _not_welcome(context, said, "quarantine", Result.QUARANTINED, reason)
    if store.bases.get(said.base) is None:
        _wait(context, said, data, "unknown-base")
        reason = f"its base {said.base.hex()[:16]} is not registered"
        return _not_welcome(context, said, "unknown-base", Result.QUARANTINED, reason)
    lineage = store.lineages.get(said.device, said.model)
    epoch = store.lineages.epoch_of(lineage.id, said.state) if lineage else None
    closed: tuple[Reply, ...] = ()
    if lineage is None or epoch is None:
        _require_room(context, said, lineage)
        if not answered(context.secret, said, context.now):
            given = challenge(context.secret, said, context.now)
            return _not_welcome(context, said, "challenge", Result.CHALLENGED, "it would open an epoch", given)
        lineage = store.lineages.ensure(said.device, said.model)
        epoch = store.lineages.grant(lineage.id, said.state, said.base, context.now)
        closed = linking.close_older(context, lineage, epoch.epoch)
    store.lineages.greeted(lineage.id, said.runtime, said.agent, context.now)
    head = store.lineages.head(lineage.id, epoch.epoch)
    assert head is not None  # granted together with the epoch
    asked = tuple(asking.command(r) for r in store.requests.open(context.now, lineage.id))
    replies = (*_newer_trust(context, said), _welcome(context, said, lineage, epoch, head), *asked, *closed)
    return Decision(Result.WELCOMED, said.device, said.model, head.version, f"epoch {epoch.epoch}", replies)


def presence(context: Context, signed: Signed, data: bytes) -> Decision:
    """Keep whether a device is on line. It is retained by the broker, so it comes again and again."""
    said = expect(signed, Presence)
    store = context.store
    lineage = store.lineages.get(said.device, said.model)
    signer = standing(store, said.device, lambda key: signed.verify(key, store.identity.id, said.device))
    if signer is KeyStanding.UNKNOWN:
        looked = max((k.id for k in store.devices.keys(said.device)), default=0)
        _hold(context, WaitingMessage(0, said.device, said.model, "state", "unknown-key", b"", b"", data, context.now, looked))
        return Decision(Result.QUARANTINED, said.device, said.model, reason="presence under a key that is not registered")
    if signer is KeyStanding.REVOKED or lineage is None:
        return Decision(Result.DROPPED, said.device, said.model, reason="presence of a device that is not welcome")
    kept = store.lineages.seen(lineage.id, said.online, said.boot, context.now)
    word = ("on line" if said.online else "off line") if kept else "late word of an older start"
    return Decision(Result.NOTED, said.device, said.model, reason=word)


def _require_room(context: Context, said: Hello, lineage: LineageRow | None) -> None:
    """Raise LineageError where a device has as many models, or a model as many epochs, as are taken."""
    store, bounds = context.store, context.bounds
    if lineage is None:
        if len(store.lineages.of(said.device)) >= bounds.models_of_device:
            raise LineageError(reason=f"{said.device} has {bounds.models_of_device} models; no more are taken")
        return
    newest = store.lineages.current(lineage.id)
    if newest is not None and newest.epoch >= bounds.epochs:
        raise LineageError(reason=f"{lineage} has lost its state {newest.epoch} times; no more epochs are granted")


def _welcome(context: Context, said: Hello, lineage: LineageRow, epoch: Epoch, head: HeadRow) -> Reply:
    verified = context.store.versions.verified(lineage.id, epoch.epoch)
    answer = Welcome(
        said.fleet, said.device, said.model, context.now, said.state, "ok", epoch.epoch, lineage.last_version, head.commit, head.version,
        verified, context.now, b"", 0, b"", b"", 0, TRAINERS, more=renewing.newer(context.certificates, said),
    )  # fmt: skip
    return Reply("cmd", answer)


def _not_welcome(context: Context, said: Hello, status: str, result: Result, reason: str, challenge: bytes = b"") -> Decision:
    answer = Welcome(
        said.fleet, said.device, said.model, context.now, said.state, status, 0, 0, said.base, 0, 0, context.now, challenge, 0, b"", b"",
        0, TRAINERS,
    )  # fmt: skip
    return Decision(result, said.device, said.model, reason=reason, replies=(*_newer_trust(context, said), Reply("cmd", answer)))


def _newer_trust(context: Context, said: Hello) -> tuple[Reply, ...]:
    """Return the trust records that a device does not have, in order: each may name the root key that signs the next."""
    missing = [row for row in context.store.trusts.all() if row.number > said.trust]
    return tuple(Reply("trust", records.parse(row.record).record, row.record, said.device) for row in missing[:TRUSTS_AT_ONCE])


def _wait(context: Context, said: Hello, data: bytes, reason: str) -> None:
    """Keep the hello until the operator adds the key or the base; then it is answered again at once."""
    _hold(context, WaitingMessage(0, said.device, said.model, "hello", reason, said.key, said.base, data, context.now, 0))


def _hold(context: Context, message: WaitingMessage) -> None:
    inbox, bounds = context.store.inbox, context.bounds
    if not inbox.holds(message.device, message.model, message.kind, message.mark):
        # A board repeats itself, and strangers have a new key for each hello: who came once makes room for those who come.
        if inbox.held_size(message.device, message.kind)[0] >= bounds.held_count:
            inbox.make_room(message.kind, message.device)
        if inbox.held_total(message.kind)[0] >= bounds.held_total:
            inbox.make_room(message.kind)
    inbox.hold(message)
