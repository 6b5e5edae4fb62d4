"""Containers that come in parts: the signed manifest first, then parts in any order, each proven by its hash."""

from __future__ import annotations

from modelwire import parts, records
from modelwire.errors import BudgetExhausted, Malformed, ModelWireError
from modelwire.records import Signed, Transfer, Wanted
from modelwire.topics import Topic

from . import linking
from .greeting import check_topic
from .outcome import OURS, Context, Outcome, Reply, Result, clean, require_known
from .registry import OpenTransfer, Refusal


def transfer(context: Context, topic: Topic, signed: Signed, data: bytes) -> Outcome:
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
        return Outcome(Result.REPEATED, said.device, said.model, known.version, known.status.value, (reply,))
    refused = store.refusals.by_digest(said.id)
    if refused is not None and not refused.epoch:
        return _wanted(context, said, set(range(count)), count)  # whole, and not worth a receipt
    if refused is not None and (refused.device, refused.model) == (said.device, said.model):
        of = store.lineages.get(said.device, said.model)
        assert of is not None  # only an update of a lineage is refused with an epoch
        reply = linking.refused_receipt(context, of, refused.epoch, refused.version, refused.commit, refused.reason)
        return Outcome(Result.REPEATED, said.device, said.model, refused.version, "refused", (reply,))
    if store.inbox.is_parked(said.id):
        return _wanted(context, said, set(range(count)), count)  # whole, and waiting for its parent
    _open(context, said, data)
    return _wanted(context, said, store.transfers.held(said.id), count)


def part(context: Context, topic: Topic, data: bytes) -> Outcome:
    """Keep a part; the last one makes the update."""
    store = context.store
    piece = parts.parse(data, context.bounds.wire)
    row = store.transfers.get(piece.id)
    if row is None:
        # Late copies of parts come after the update is whole: no fault of anyone, and nothing to keep.
        return Outcome(Result.DROPPED, topic.device, topic.model, reason="a part of no open transfer")
    if (row.device, row.model) != (topic.device, topic.model):
        raise Malformed(what="part", reason=f"it is of a transfer of {row.device}/{row.model} and came on {topic}")
    said = records.expect(records.parse(row.record), Transfer)
    parts.check(said, piece)
    store.transfers.put(piece.id, piece.index, piece.data, context.now)
    count = parts.count(said, context.bounds.wire)
    held = store.transfers.held(piece.id)
    if len(held) < count:
        return Outcome(Result.NOTED, topic.device, topic.model, reason=f"part {piece.index + 1} of {count}")
    whole = parts.join(said, store.transfers.pieces(piece.id))
    store.transfers.close(piece.id)
    try:
        with store.transaction():
            return linking.update(context, topic, whole)
    except OURS:
        raise
    except ModelWireError as error:
        # Its parts must not come again: the row below answers the next Transfer of the same bytes.
        refusal = Refusal(said.id, said.device, said.model, type(error).__name__, clean(str(error)), context.now, said.size)
        store.refusals.add(refusal, context.bounds.refusals)
        return Outcome(Result.DROPPED, said.device, said.model, reason=f"{type(error).__name__}: {error}")


def _open(context: Context, said: Transfer, data: bytes) -> None:
    store, bounds = context.store, context.bounds
    if store.transfers.get(said.id) is None:
        for old in store.transfers.all():
            if old.touched_at < context.now - bounds.transfer_seconds:
                store.transfers.close(old.id)
        mine = store.transfers.of(said.device)
        for old in mine[: max(0, len(mine) + 1 - bounds.transfers_of_device)]:
            store.transfers.close(old.id)
        if len(store.transfers.all()) >= bounds.transfers_total:
            raise BudgetExhausted(what="another transfer in parts", budget=bounds.transfers_total * bounds.wire.container)
    store.transfers.open(OpenTransfer(said.id, said.device, said.model, data, said.size, context.now))


def _wanted(context: Context, said: Transfer, held: set[int], count: int) -> Outcome:
    answer = Wanted(context.store.fleet, said.device, said.model, context.now, said.id, parts.bitmap(held, count))
    return Outcome(Result.NOTED, said.device, said.model, reason=f"{len(held)} of {count} parts", replies=(Reply("part", answer),))
