"""What is asked and answered beside updates: commands as the operator sealed them, their answers, reports, and what nobody knows yet."""

from __future__ import annotations

import logging

from edgecloud.audit import entries
from edgecloud.registry import Request
from modelwire.errors import ClaimRefused, LineageError, ModelWireError
from modelwire.names import ALL
from modelwire.wire import cbor, records
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import NOT_UNDERSTOOD, Command, Enrol, Report, Response, Signed, Unknown, expect

from . import handing
from .decision import Context, Decision, Reply, Result, clean, require_known

log = logging.getLogger("edgecloud.ingest")


def command(context: Context, request: Request) -> tuple[Reply, ...]:
    """Return a command as it goes to its device: the bytes that the operator's key has sealed; and how the update is cut that it names.

    Nothing for a row that holds none.
    """
    try:
        said = expect(records.parse(request.record), Command)
    except ModelWireError as error:
        log.error("command %d in the registry is none: %s", request.number, error.message)
        return ()
    return (Reply("cmd", said, request.record), *handing.described(context, said))


def response(context: Context, signed: Signed, data: bytes) -> Decision:
    """Keep a device's answer to a command; only the first one counts."""
    said = expect(signed, Response)
    _verify(context, signed)
    lineage = context.store.lineages.get(said.device, said.model)
    if lineage is None:
        raise LineageError(reason=f"{said.device}/{said.model} answers a command and has never said hello")
    body = cbor.encode(dict(said.body)) if said.body else b""
    first = context.store.requests.answer(said.number, lineage.id, said.ok, said.text, context.now, body)
    return Decision(
        Result.NOTED, said.device, said.model, reason=f"answer to {said.number}" if first else "no open command has this number"
    )


def report(context: Context, signed: Signed, data: bytes) -> Decision:
    """Note how far a device has come with what is desired; in this release nothing rests on it."""
    said = expect(signed, Report)
    _verify(context, signed)
    why = f": {said.reason}" if said.reason else ""
    return Decision(Result.NOTED, said.device, said.model, reason=clean(f"report on {said.number}: {said.state}, phase {said.phase}{why}"))


def enrol(context: Context, signed: Signed, data: bytes) -> Decision:
    """Let a device in by the claim that it says, for once. The next welcome is the answer. Raises ClaimRefused."""
    said, store, admissions = expect(signed, Enrol), context.store, context.admissions
    assert admissions is not None
    signed.verify(said.key, store.identity.id, said.device)
    if admissions.claims.enrolled(said) is not None and admissions.speaks(said.device, said.key):
        return Decision(Result.NOTED, said.device, said.model, reason="it was let in by its claim before")
    claim = admissions.require_enrollable(said, context.now).statement.id
    if store.devices.keys(said.device) or any(one.key == said.key for one in store.devices.rejections()):
        reason = f"the operator has decided about {said.device} or the key {fingerprint(said.key)} before"
        raise ClaimRefused(device=said.device, claim=claim.hex(), reason=reason)
    store.log.append(entries.ENROL, at=context.now, claim=claim, record=data)
    store.devices.add(said.device, said.key, context.now)
    admissions.catch_up(store.log, "the registry")  # last, and at once: others of this batch may say the same claim, or this board hello
    board = f"the board {said.serial}" if said.serial else "a board"
    reason = clean(f"{board} with the key {fingerprint(said.key)} is let in by the claim {claim.hex()}")
    return Decision(Result.ADMITTED, said.device, said.model, reason=reason)


def unknown(context: Context, signed: Signed, said: Unknown) -> Decision:
    """Return the answer to a record of a later release. Raises UnknownDevice unless a key of the device signed it."""
    _verify(context, signed)
    reason = clean(f"a record of the kind {said.kind!r}")
    if said.model == ALL:  # of no model, so there is no topic for an answer
        return Decision(Result.UNKNOWN, said.device, said.model, reason=reason)
    answer = Response(said.fleet, said.device, said.model, context.now, said.number, False, NOT_UNDERSTOOD, {})
    return Decision(Result.UNKNOWN, said.device, said.model, reason=reason, replies=(Reply("cmd", answer),))


def _verify(context: Context, signed: Signed) -> None:
    device = signed.record.device
    require_known(context, device, lambda key: signed.verify(key, context.store.identity.id, device))
    context.store.lineages.heard(device, signed.record.model, context.now)
