"""What is asked and answered beside updates: commands as the operator sealed them, their answers, reports, and what nobody knows yet."""

from __future__ import annotations

import logging

from edgecloud.registry import Request
from modelwire.errors import LineageError, ModelWireError
from modelwire.tensors import ALL
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
    """Note that a device would like to be let in; in this release the operator alone does that. The next welcome is the answer."""
    said = expect(signed, Enrol)
    signed.verify(said.key, context.store.identity.id, said.device)
    reason = f"{NOT_UNDERSTOOD}: it asks to be let in, its key is {fingerprint(said.key)}; the operator alone lets a device in"
    return Decision(Result.UNKNOWN, said.device, said.model, reason=reason)


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
    require_known(context.store, device, lambda key: signed.verify(key, context.store.identity.id, device))
