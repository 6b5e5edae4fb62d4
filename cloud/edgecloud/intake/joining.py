"""Containers that come in parts: the signed manifest first, then parts in any order, each proven by the manifest's tree.

A part that comes again costs one look at the registry, and so does one of a transfer that failed for good: a whole is joined when its
last part comes, and after that only when its device describes it again.
"""

from __future__ import annotations

import hashlib
import struct

from edgecloud.registry import OpenTransfer, Refusal
from modelwire.errors import BadSignature, BudgetExhausted, Malformed, ModelWireError, UnsupportedWire, WireError
from modelwire.wire import parts, records
from modelwire.wire.records import Signed, Transfer, Wanted
from modelwire.wire.topics import Topic

from . import linking
from .decision import OURS, Context, Decision, Reply, Result, clean, require_known
from .quotas import charging

UPDATE = "update"  # what devices send in parts
PASSING = BadSignature, UnsupportedWire  # a key is let in later, and a later release of the centre reads what this one does not


def transfer(context: Context, signed: Signed, data: bytes) -> Decision:
    """Return what is held of a transfer, or the receipt of the update when it has been whole before."""
    store = context.store
    said = records.expect(signed, Transfer)
    require_known(context, said.device, lambda key: signed.verify(key, store.identity.id, said.device))
    if said.what != UPDATE:
        raise Malformed(what="transfer", reason=f"devices send an {UPDATE} in parts, and this is a {said.what}")
    count = parts.count(said, context.bounds.wire)
    slot = _slot(said.device, said.model, said.id)
    if store.refusals.by_digest(_description(slot, said)) is not None:
        return _wanted(context, said, set(range(count)), count)  # whole, and not worth a receipt
    before = _known(context, said)
    if before is not None:
        return before
    if store.inbox.is_parked(said.id):
        return _wanted(context, said, set(range(count)), count)  # whole, and waiting for its parent
    if store.transfers.get(slot) is None:
        wait = charging.told_to_wait(context, said.device, said.model, size=said.size, disk=said.size, transfers=1)
        if wait is not None:
            return wait
    row = _open(context, slot, said, data)
    if row.held < count:
        return _wanted(context, said, store.transfers.held(slot), count)
    # Whole, and it could not be taken when its last part came.
    if row.tried_on == _mark(context, said) and context.now - row.tried_at < context.bounds.transfer_again:
        return _wanted(context, said, set(range(count)), count)
    return _finish(context, slot, said)


def part(context: Context, topic: Topic, data: bytes) -> Decision:
    """Keep a part; the last one makes the update."""
    store = context.store
    piece = parts.parse(data, context.bounds.wire)
    slot = _slot(topic.device, topic.model, piece.id)
    found = store.transfers.find(slot, piece.index)
    if found is None:
        # Late copies of parts come after the update is whole: no fault of anyone, and nothing to keep.
        return Decision(Result.DROPPED, topic.device, topic.model, reason="a part of no open transfer")
    row, held = found
    if held:
        return Decision(Result.NOTED, topic.device, topic.model, reason=f"part {piece.index + 1} came before", news=False)
    said = records.expect(records.parse(row.record), Transfer)
    parts.check(said, piece)
    store.transfers.put(slot, piece.index, piece.data, context.now)
    store.quotas.count(topic.device, context.now, bytes=len(piece.data))
    count = parts.count(said, context.bounds.wire)
    if row.held + 1 < count:
        return Decision(Result.NOTED, topic.device, topic.model, reason=f"part {piece.index + 1} of {count}", news=False)
    return _finish(context, slot, said)


def _slot(device: str, model: str, transfer: bytes) -> bytes:
    """Return where a transfer is kept: of each device's model apart, or one could hold up what another sends."""
    return hashlib.sha256(f"{device}/{model}/".encode() + transfer).digest()


def _description(slot: bytes, said: Transfer) -> bytes:
    """Return what tells a transfer as it is cut: what failed for good is tried again when it is described anew."""
    return hashlib.sha256(slot + struct.pack("<QQ", said.size, said.part_size) + said.tree).digest()


def _mark(context: Context, said: Transfer) -> bytes:
    """Return what stands for all that an update of this lineage may have waited for: the same mark, the same answer."""
    store = context.store
    lineage = store.lineages.get(said.device, said.model)
    epoch = store.lineages.current(lineage.id) if lineage else None
    head = store.lineages.head(epoch.lineage, epoch.epoch) if epoch else None
    mark = hashlib.sha256(struct.pack("<Q", epoch.epoch if epoch else 0) + (head.commit if head else b""))
    for key in context.keys(said.device):
        mark.update(struct.pack("<Q?", key.id, key.revoked_at is None))
    for commit, _, _ in store.inbox.parked_sizes(said.device):
        mark.update(commit)
    return mark.digest()


def _known(context: Context, said: Transfer) -> Decision | None:
    """Return the receipt of an update that has been decided about, None when it has not."""
    store = context.store
    known = store.versions.by_blob(said.id)
    if known is not None:
        lineage = store.lineages.by_id(known.lineage)
        if (lineage.device, lineage.model) != (said.device, said.model):
            raise Malformed(what="transfer", reason=f"{said.id.hex()[:16]} is of another device")
        reply = linking.current_receipt(context, known)
        return Decision(Result.REPEATED, said.device, said.model, known.version, known.status.value, (reply,))
    refused = store.refusals.by_digest(said.id)
    if refused is None or not refused.epoch or (refused.device, refused.model) != (said.device, said.model):
        return None
    of = store.lineages.get(said.device, said.model)
    assert of is not None  # only an update of a lineage is refused with an epoch
    reply = linking.refused_receipt(context, linking.Subject.of_row(of, refused), refused.reason)
    return Decision(Result.REPEATED, said.device, said.model, refused.version, "refused", (reply,))


def _finish(context: Context, slot: bytes, said: Transfer) -> Decision:
    store = context.store
    wait = charging.told_to_wait(context, said.device, said.model, size=0, versions=1)
    if wait is not None:
        return wait  # its parts stay: the next word on it joins them
    try:
        with store.transaction():
            whole = parts.join(said, store.transfers.pieces(slot))
            # What has come is not on its way any more. Its parts go once it is taken: to delete them and take that back costs seconds.
            store.transfers.open(OpenTransfer(slot, said.device, said.model, b"", said.size, 0))
            done = linking.update(context, Topic(said.fleet, said.device, said.model, "up", "part"), whole, counted=True)
            store.transfers.close(slot)
            return done
    except OURS:
        raise
    except ModelWireError as error:
        reason = clean(str(error))
        if isinstance(error, WireError) and not isinstance(error, PASSING):
            # It will never be better, and its parts must not come again: the row answers the next Transfer that says the same.
            store.transfers.close(slot)
            digest = _description(slot, said)
        else:
            # It may pass, as a full park does, or this release: the parts stay, and a Transfer of the same bytes tries again.
            store.transfers.tried(slot, _mark(context, said), context.now)
            digest = hashlib.sha256(slot).digest()
        refusal = Refusal(digest, said.device, said.model, type(error).__name__, reason, context.now, said.size)
        store.refusals.add(refusal, context.bounds.refusals)
        return Decision(Result.DROPPED, said.device, said.model, reason=f"{type(error).__name__}: {reason}")


def _open(context: Context, slot: bytes, said: Transfer, data: bytes) -> OpenTransfer:
    """Return what is held of a transfer, which has a place from now on. Raises BudgetExhausted."""
    store, bounds = context.store, context.bounds
    known = store.transfers.get(slot)
    if known is not None and _description(slot, records.expect(records.parse(known.record), Transfer)) != _description(slot, said):
        store.transfers.close(slot)  # its device cuts it anew, as after a change of its settings: the old parts fit no more
        known = None
    if known is None:
        for old in store.transfers.all():
            if old.touched_at < context.now - bounds.transfer_seconds:
                store.transfers.close(old.id)
        mine, most = store.transfers.of(said.device), store.quotas.of(said.device).open_transfers
        most = bounds.transfers_of_device if most is None else min(bounds.transfers_of_device, most)
        for old in mine[: max(0, len(mine) + 1 - most)]:
            store.transfers.close(old.id)
        open_now = store.transfers.all()
        if len(open_now) >= bounds.transfers_total:
            if open_now[0].touched_at >= context.now - bounds.transfer_rest:
                raise BudgetExhausted(what="another transfer in parts", budget=bounds.transfers_total * bounds.wire.container)
            store.transfers.close(open_now[0].id)
    store.transfers.open(OpenTransfer(slot, said.device, said.model, data, said.size, context.now))
    row = store.transfers.get(slot)
    assert row is not None
    return row


def _wanted(context: Context, said: Transfer, held: set[int], count: int) -> Decision:
    answer = Wanted(said.fleet, said.device, said.model, context.now, said.id, parts.bitmap(held, count))
    return Decision(Result.NOTED, said.device, said.model, reason=f"{len(held)} of {count} parts", replies=(Reply("part", answer),))
