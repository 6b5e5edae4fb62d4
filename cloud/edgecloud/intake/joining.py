"""Containers that come in parts: the signed manifest first, then parts in any order, each proven by its hash."""

from __future__ import annotations

import hashlib

from edgecloud.registry import OpenTransfer, Refusal
from modelwire.errors import BadSignature, BudgetExhausted, Malformed, ModelWireError, WireError
from modelwire.wire import parts, records
from modelwire.wire.records import Signed, Transfer, Wanted
from modelwire.wire.topics import Topic

from . import linking
from .decision import OURS, Context, Decision, Reply, Result, clean, require_known
from .greeting import check_topic


def transfer(context: Context, topic: Topic, signed: Signed, data: bytes) -> Decision:
    """Return what is held of a transfer, or the receipt of the update when it has been whole before."""
    store = context.store
    said = records.expect(signed, Transfer)
    check_topic(topic, said)
    require_known(store, said.device, lambda key: signed.verify(key, said.device))
    count = parts.count(said, context.bounds.wire)
    known = store.versions.by_blob(said.id)
    if known is not None:
        lineage = store.lineages.by_id(known.lineage)
        if (lineage.device, lineage.model) != (said.device, said.model):
            raise Malformed(what="transfer", reason=f"{said.id.hex()[:16]} is of another device")
        reply = linking.current_receipt(context, known)
        return Decision(Result.REPEATED, said.device, said.model, known.version, known.status.value, (reply,))
    slot = _slot(said.device, said.model, said.id)
    if store.refusals.by_digest(slot) is not None:
        return _wanted(context, said, set(range(count)), count)  # whole, and not worth a receipt
    refused = store.refusals.by_digest(said.id)
    if refused is not None and refused.epoch and (refused.device, refused.model) == (said.device, said.model):
        of = store.lineages.get(said.device, said.model)
        assert of is not None  # only an update of a lineage is refused with an epoch
        reply = linking.refused_receipt(context, linking.Subject.of_row(of, refused), refused.reason)
        return Decision(Result.REPEATED, said.device, said.model, refused.version, "refused", (reply,))
    if store.inbox.is_parked(said.id):
        return _wanted(context, said, set(range(count)), count)  # whole, and waiting for its parent
    _open(context, slot, said, data)
    held = store.transfers.held(slot)
    if len(held) == count:  # whole, and it could not be taken when its last part came
        return _finish(context, topic, slot, said)
    return _wanted(context, said, held, count)


def part(context: Context, topic: Topic, data: bytes) -> Decision:
    """Keep a part; the last one makes the update."""
    store = context.store
    piece = parts.parse(data, context.bounds.wire)
    slot = _slot(topic.device, topic.model, piece.id)
    row = store.transfers.get(slot)
    if row is None:
        # Late copies of parts come after the update is whole: no fault of anyone, and nothing to keep.
        return Decision(Result.DROPPED, topic.device, topic.model, reason="a part of no open transfer")
    said = records.expect(records.parse(row.record), Transfer)
    parts.check(said, piece)
    store.transfers.put(slot, piece.index, piece.data, context.now)
    count = parts.count(said, context.bounds.wire)
    held = store.transfers.held(slot)
    if len(held) < count:
        return Decision(Result.NOTED, topic.device, topic.model, reason=f"part {piece.index + 1} of {count}")
    return _finish(context, topic, slot, said)


def _slot(device: str, model: str, transfer: bytes) -> bytes:
    """Return where a transfer is kept: of each device's model apart, or one could hold up what another sends."""
    return hashlib.sha256(f"{device}/{model}/".encode() + transfer).digest()


def _finish(context: Context, topic: Topic, slot: bytes, said: Transfer) -> Decision:
    store = context.store
    whole = parts.join(said, store.transfers.pieces(slot))
    try:
        with store.transaction():
            store.transfers.close(slot)
            return linking.update(context, topic, whole)
    except OURS:
        raise
    except ModelWireError as error:
        reason = clean(str(error))
        digest = hashlib.sha256(slot).digest()
        if isinstance(error, WireError) and not isinstance(error, BadSignature):
            # It will never be better, and its parts must not come again: the row answers the next Transfer of the same bytes.
            store.transfers.close(slot)
            digest = slot
        # All else may pass, as a full park does: the parts stay, and the next Transfer of the same bytes tries again.
        refusal = Refusal(digest, said.device, said.model, type(error).__name__, reason, context.now, said.size)
        store.refusals.add(refusal, context.bounds.refusals)
        return Decision(Result.DROPPED, said.device, said.model, reason=f"{type(error).__name__}: {reason}")


def _open(context: Context, slot: bytes, said: Transfer, data: bytes) -> None:
    store, bounds = context.store, context.bounds
    known = store.transfers.get(slot)
    if known is not None and _cuts(records.expect(records.parse(known.record), Transfer)) != _cuts(said):
        store.transfers.close(slot)  # its device cuts it anew, as after a change of its settings: the old parts fit no more
        known = None
    if known is None:
        for old in store.transfers.all():
            if old.touched_at < context.now - bounds.transfer_seconds:
                store.transfers.close(old.id)
        mine = store.transfers.of(said.device)
        for old in mine[: max(0, len(mine) + 1 - bounds.transfers_of_device)]:
            store.transfers.close(old.id)
        open_now = store.transfers.all()
        if len(open_now) >= bounds.transfers_total:
            if open_now[0].touched_at >= context.now - bounds.transfer_rest:
                raise BudgetExhausted(what="another transfer in parts", budget=bounds.transfers_total * bounds.wire.container)
            store.transfers.close(open_now[0].id)
    store.transfers.open(OpenTransfer(slot, said.device, said.model, data, said.size, context.now))


def _cuts(said: Transfer) -> tuple[int, int, bytes]:
    return said.size, said.part_size, said.hashes


def _wanted(context: Context, said: Transfer, held: set[int], count: int) -> Decision:
    answer = Wanted(context.store.fleet, said.device, said.model, context.now, said.id, parts.bitmap(held, count))
    return Decision(Result.NOTED, said.device, said.model, reason=f"{len(held)} of {count} parts", replies=(Reply("part", answer),))
