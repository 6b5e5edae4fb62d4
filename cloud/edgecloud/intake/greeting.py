"""What a device says of itself: hello and its welcome, presence."""

from __future__ import annotations

from collections.abc import Mapping

from edgecloud.audit import refusing
from edgecloud.registry import Epoch, HeadRow, LineageRow, VersionRow, WaitingMessage
from edgecloud.versions import last_models
from modelwire.errors import LineageError, WireError
from modelwire.output_head.recipe import TRAINERS
from modelwire.wire import cbor, records
from modelwire.wire.claims import refusal_said
from modelwire.wire.keys import fingerprint
from modelwire.wire.more import troubles_in
from modelwire.wire.records import Hello, Presence, Signed, Trust, Welcome, expect
from modelwire.wire.welcome import KEY

from . import agreeing, asking, epochs, linking, renewing
from .challenge import answered, challenge, since
from .decision import Context, Decision, KeyStanding, Reply, Result, standing
from .epochs import EpochRate

TRUSTS_AT_ONCE = 16  # trust records in one answer; a device that lacks more says hello again
LAST = 2  # of them: the newest one, and the one whose keys are good for a while beside it


def hello(context: Context, signed: Signed, data: bytes) -> Decision:
    """Return the welcome. A new state gets the next epoch, once its challenge is answered, written down before the answer goes out."""
    store = context.store
    said = expect(signed, Hello)
    signed.verify(said.key, store.identity.id, said.device)  # it speaks for its key; whose key that is comes next
    known = {k.key: k for k in context.keys(said.device)}.get(said.key)
    if known is None or known.revoked_at is not None:
        why = ""
        if store.devices.is_rejected(said.device, said.key):
            word = "was rejected"  # it takes no room, and is not listed
        elif context.admissions is not None and said.key in context.admissions.erased_keys:
            word = "was erased"  # nothing is to be kept of it
        else:
            _wait(context, said, data, "unknown-key")
            word = "is revoked" if known else "is not registered"
            why = refusing.told(context.admissions, said, context.now) if context.admissions is not None else ""
        reason = f"its key {fingerprint(said.key)} {word}" + (f", and its claim does not let it in: {why}" if why else "")
        return _not_welcome(context, said, "quarantine", Result.QUARANTINED, reason, claim=why)
    if store.bases.get(said.base) is None:
        _wait(context, said, data, "unknown-base")
        reason = f"its base {said.base.hex()[:16]} is not registered"
        return _not_welcome(context, said, "unknown-base", Result.QUARANTINED, reason)
    lineage = store.lineages.get(said.device, said.model)
    epoch = store.lineages.epoch_of(lineage.id, said.state) if lineage else None
    closed: tuple[Reply, ...] = ()
    if lineage is None or epoch is None:
        if lineage is None:
            _require_room(context, said)
        else:
            opened = epochs.rate(store, lineage.id, context.admitted_at(said.key), context.now, context.bounds)
            if opened.full:
                return _too_often(context, said, opened)
        if not answered(context.secret, said, context.now):
            given = challenge(context.secret, said, context.now)
            return _not_welcome(context, said, "challenge", Result.CHALLENGED, "it would open an epoch", given)
        lineage = store.lineages.ensure(said.device, said.model)
        epoch = store.lineages.grant(lineage.id, said.state, said.base, context.now)
        closed = linking.close_older(context, lineage, epoch.epoch)
    head = store.lineages.head(lineage.id, epoch.epoch)
    assert head is not None  # granted together with the epoch
    if odd := agreeing.behind(store, lineage, epoch, said):
        secret = since(context.secret, head.commit)
        if not answered(secret, said, context.now):  # it may be late, or said again by anybody
            return _not_welcome(context, said, "challenge", Result.CHALLENGED, odd, challenge(secret, said, context.now))
        linking.alarm(context, lineage, odd)
    store.lineages.greeted(lineage.id, said.runtime, said.agent, context.now)
    linking.note_troubles(context, said.device, troubles_in(said.more))
    agreeing.testify(context, said)
    more, receipts = agreeing.answer(context, said, lineage)
    lineage = store.lineages.by_id(lineage.id)  # numbers that are lost count as used
    asked = asking.due(context, lineage)
    replies = (*_newer_trust(context, said), *receipts, _welcome(context, said, lineage, epoch, head, more), *asked, *closed)
    return Decision(Result.WELCOMED, said.device, said.model, head.version, f"epoch {epoch.epoch}", replies)


def to_namesake(context: Context, data: bytes) -> tuple[Reply, ...]:
    """Return what is said to a board that says hello for another fleet of this name: who speaks here, which it can't believe and names.

    It would hear nothing else, and its operator would look for the fault at the broker.
    """
    try:
        signed = records.parse(data, context.bounds.wire)
        said = expect(signed, Hello)
        signed.verify(said.key, signed.fleet, said.device)
        newest = context.store.trusts.all()[-1]
        return (Reply("trust", expect(records.parse(newest.record), Trust), newest.record, said.device),)
    except WireError:
        return ()


def presence(context: Context, signed: Signed, data: bytes) -> Decision:
    """Keep whether a device is on line. It is retained by the broker, so it comes again and again."""
    said = expect(signed, Presence)
    store = context.store
    lineage = store.lineages.get(said.device, said.model)
    signer = standing(context, said.device, lambda key: signed.verify(key, store.identity.id, said.device))
    if signer is KeyStanding.UNKNOWN:
        looked = max((k.id for k in store.devices.keys(said.device)), default=0)
        _hold(context, WaitingMessage(0, said.device, said.model, "state", "unknown-key", b"", b"", data, context.now, looked))
        return Decision(Result.QUARANTINED, said.device, said.model, reason="presence under a key that is not registered")
    if signer in (KeyStanding.REVOKED, KeyStanding.ERASED) or lineage is None:
        return Decision(Result.DROPPED, said.device, said.model, reason="presence of a device that is not welcome")
    kept = store.lineages.seen(lineage.id, said.online, said.boot, context.now)
    word = ("on line" if said.online else "off line") if kept else "late word of an older start"
    return Decision(Result.NOTED, said.device, said.model, reason=word)


def _require_room(context: Context, said: Hello) -> None:
    """Raise LineageError where a device has as many models as are taken."""
    bounds = context.bounds
    if len(context.store.lineages.of(said.device)) >= bounds.models_of_device:
        raise LineageError(reason=f"{said.device} has {bounds.models_of_device} models; no more are taken")


def _too_often(context: Context, said: Hello, opened: EpochRate) -> Decision:
    """Say that no more epochs are opened for now: a board that is set up anew so often is broken, or its key is in other hands."""
    reason = f"it has lost its state {opened.opened} times in a day; see edgecloud devices, and devices reset"
    wait = max(1, min(opened.free_at - context.now, context.bounds.epochs_wait))
    return _not_welcome(context, said, "epochs", Result.WAITS, reason, wait=wait)


def _welcome(context: Context, said: Hello, lineage: LineageRow, epoch: Epoch, head: HeadRow, more: Mapping[str, cbor.Value]) -> Reply:
    store = context.store
    verified = store.versions.verified(lineage.id, epoch.epoch)
    last = _last_model(context, lineage, epoch, head) if said.resume else None
    if not said.resume:
        store.lineages.end_wish(lineage.id)
    answer = Welcome(
        said.fleet, said.device, said.model, context.now, said.state, "ok", epoch.epoch, lineage.last_version, head.commit, head.version,
        verified, context.now, b"", 0, _log_end(context), last.commit if last else b"", last.version if last else 0, TRAINERS,
        more={**more, KEY: said.key, **renewing.newer(context.certificates, said)},
    )  # fmt: skip
    return Reply("cmd", answer)


def _last_model(context: Context, lineage: LineageRow, epoch: Epoch, head: HeadRow) -> VersionRow | None:
    """Return what is offered to a model that would like its last version back, and note that it would."""
    store = context.store
    last = last_models.offered(store, lineage, epoch, head)
    if last is None:
        store.lineages.end_wish(lineage.id)
        return None
    store.lineages.set_wish(lineage.id, epoch.epoch, context.now)
    wish = store.lineages.wish(lineage.id)
    return None if wish is not None and wish.declined else last


def _not_welcome(
    context: Context, said: Hello, status: str, result: Result, reason: str, challenge: bytes = b"", wait: int = 0, claim: str = ""
) -> Decision:
    """claim: why that of the hello does not let it in, as the board may be told it."""
    answer = Welcome(
        said.fleet, said.device, said.model, context.now, said.state, status, 0, 0, said.base, 0, 0, context.now, challenge, wait,
        _log_end(context), b"", 0, TRAINERS, more={**agreeing.nonce_of(said), KEY: said.key, **refusal_said(claim)},
    )  # fmt: skip
    return Decision(result, said.device, said.model, reason=reason, replies=(*_newer_trust(context, said), Reply("cmd", answer)))


def _log_end(context: Context) -> bytes:
    """Return the newest link of the log, which the device keeps: a witness that whoever changes the registry does not reach."""
    end = context.store.log.end()
    return end.encode() if end is not None else b""


def _newer_trust(context: Context, said: Hello) -> tuple[Reply, ...]:
    """Return the trust records that a device needs to come to the newest one, in order.

    These are the ones that name a new root key, as the next are signed by that, and the newest two. Those two always: a board that was
    given a new fleet.pub has no use for what came before its root key, and says the same number again.
    """
    rows = context.store.trusts.all()
    if rows[-1].number <= said.trust:
        return ()
    root, missing, roots = context.store.identity.root, [], []
    for row in rows:
        record = expect(records.parse(row.record), Trust)
        one = Reply("trust", record, row.record, said.device)
        if row.number > said.trust:
            missing.append(one)
            roots += [one] if record.root != root else []
        root = record.root
    first = [one for one in roots if one not in missing[-LAST:]]
    return (*first[: TRUSTS_AT_ONCE - LAST], *missing[-LAST:])


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
