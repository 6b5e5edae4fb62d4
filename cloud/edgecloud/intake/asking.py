"""What is asked and answered beside updates: commands as the operator sealed them, their answers, what devices are to run as the director
sealed it, their reports, and what nobody knows yet.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from edgecloud.audit import entries
from edgecloud.registry import DesiredRow, LineageRow, ReportTaken, Request
from modelwire.deploying import reports
from modelwire.deploying.states import State
from modelwire.errors import ClaimRefused, LineageError, Malformed, ModelWireError
from modelwire.names import ALL
from modelwire.wire import cbor, records
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import NOT_UNDERSTOOD, Command, Desired, Enrol, Report, Response, Signed, Unknown, expect

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


def desired(context: Context, row: DesiredRow) -> tuple[Reply, ...]:
    """Return what a model is to run as it goes to its device: the bytes that the director's key has sealed; nothing for other bytes.

    The device proves the seal; here it must only be the record that the row says, for this device.
    """
    try:
        said, lineage = expect(records.parse(row.record), Desired), context.store.lineages.by_id(row.lineage)
    except ModelWireError as error:
        log.error("desired %d in the registry is none: %s", row.number, error.message)
        return ()
    if (said.device, said.model, said.number) != (lineage.device, lineage.model, row.number):
        log.error("desired %d of %s in the registry is of another model or number", row.number, lineage)
        return ()
    return (Reply("desired", said, row.record),)


def due(context: Context, lineage: LineageRow) -> tuple[Reply, ...]:
    """Return what a model that says hello is asked and has not answered, and what it is to run, until its report on that is final."""
    asked = [reply for r in context.store.requests.open(context.now, lineage.id) for reply in command(context, r)]
    row = context.store.rollouts.desired_for_hello(lineage.id, context.now)
    return (*asked, *(desired(context, row) if row is not None else ()))


def report(context: Context, signed: Signed, data: bytes) -> Decision:
    """Keep how far a device has come with what it is to run, and move its rollout's row on.

    Of a report on what this registry never told nothing is kept. Raises Malformed for what can't be.
    """
    said = expect(signed, Report)
    _verify(context, signed)
    lineage = context.store.lineages.get(said.device, said.model)
    if lineage is None:
        raise LineageError(reason=f"{said.device}/{said.model} reports and has never said hello")
    if said.state not in [state.value for state in State]:
        raise Malformed(what=said.KIND, reason=f"{clean(said.state)[:40]!r} is no state of a device")
    figures = reports.figures_in(said.more)
    if (figures is None or figures.accuracy) and not all(score is None or 0 <= score <= 1 for score in (said.before, said.after)):
        raise Malformed(what=said.KIND, reason="an accuracy is not between 0 and 1")
    taken = context.store.rollouts.take_report(lineage.id, replace(said, reason=clean(said.reason)), figures, data, context.now)
    why = f": {said.reason}" if said.reason else ""
    words = {ReportTaken.APPLIED: "", ReportTaken.UNKNOWN: ", which it was not told by this registry"}  # a restored copy knows less
    late = words.get(taken, f", {taken.value}")
    reason = clean(f"report on {said.number}: {said.state}, phase {said.phase}{late}{why}")
    return Decision(Result.NOTED, said.device, said.model, reason=reason, news=taken is ReportTaken.APPLIED)


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
