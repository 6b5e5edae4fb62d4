"""The log in words: who did what, and when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgecloud.registry import Log, claims, statements
from edgecloud.registry.statements import Policy, Purge
from modelwire.deploying import sealed
from modelwire.errors import ModelWireError
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.records import Act, Command, Desired, Enrol, Trust, expect
from modelwire.wire.signing import Fleet

from . import entries
from .admissions import Admissions
from .entries import Decided

Told = dict[str, Any]


def tell(log: Log, fleet: Fleet, after: int = 0) -> Iterator[Told]:
    """Yield what each entry after a number says. A seal that does not hold is told as such; a link is not looked at here."""
    admissions = Admissions(fleet)
    places: dict[bytes, str] = {}  # of versions, by commit
    for row in log.after(0):
        try:
            entry = entries.parse(row)
        except ModelWireError as error:
            if row.number > after:
                yield {"number": row.number, "at": 0, "who": "nobody", "what": "unreadable", "about": "", "text": error.message}
            continue
        try:
            admissions.take(entry)
            wrong = ""
        except ModelWireError as error:
            wrong = error.message
        if entry.kind == entries.HEAD and entry.integer("version"):
            places[entry.bytes("commit")] = f"{entry.text('device')}/{entry.text('model')}@{entry.integer('version')}"
        if row.number > after:
            try:
                who, about, text = _said(entry, places)
            except ModelWireError as error:  # what it holds is no record: the entries behind it are told all the same
                who, about, text = "nobody", "", error.message
            if wrong:
                who, text = "nobody", f"{text}; NOT SEALED: {wrong}"
            yield {"number": row.number, "at": entry.at, "who": who, "what": entry.kind, "about": about, "text": text}


def _kept(entry: Decided) -> tuple[str, str, str]:
    """Return the same of what is said about what the registry keeps."""
    if entry.kind == entries.THIN:
        gone, squashed = entries.commits_of(entry)
        return "the centre", "versions", f"thinned {len(gone)}, squashed {len(squashed)}, by the operator's word {entry.integer('by')}"
    if entry.kind == entries.ERASED:
        return "the operator", "", f"erased, by word {entry.integer('by')}"
    said = statements.unsealed(entry.bytes("record"))
    if isinstance(said, Policy):
        return "the operator", "the fleet", f"keeps {said.keep}, word {said.number}"
    if isinstance(said, Purge):
        return "the operator", said.device, f"purged the rows of its recipes, word {said.number}"
    return "the operator", "a device", f"erased it and {said.count} entries about it, word {said.number}"


def _deployed(entry: Decided) -> tuple[str, str, str]:
    """Return the same of deployments."""
    if entry.kind == entries.DESIRED:
        desired = expect(records.parse(entry.bytes("record")), Desired)
        about = f"{desired.device}/{desired.model}"
        return "the director", about, f"is to run {desired.variant.hex()[:16]}, number {desired.number}, phase {desired.phase}"
    values = sealed.content(entry.bytes("record"), entry.kind)

    def short(name: str) -> str:
        value = values.get(name)
        return value.hex()[:16] if isinstance(value, bytes) else str(value)[:64]

    if entry.kind == entries.VARIANT:
        return "the root key", short("model"), f"variant {short('number')}, {short('name')}: {short('commit')}"
    if entry.kind == entries.PLAN:
        return "the operator", f"the rollout {short('rollout')}", f"planned {short('name')} of {short('variant')} for {short('model')}"
    return "the operator", f"the rollout {short('rollout')}", f"decided: {short('verb')}, number {short('number')}"


def _said(entry: Decided, places: Mapping[bytes, str]) -> tuple[str, str, str]:
    """Return who, about what, and in words."""
    kind = entry.kind
    if kind == entries.TRUST:
        trust = expect(records.parse(entry.bytes("record")), Trust)
        return "the root key", "the fleet", f"trust record {trust.number} names who speaks for the centre"
    if kind == entries.ACT:
        act = expect(records.parse(entry.bytes("record")), Act)
        return "the operator", act.device, f"{'admitted' if act.verb == 'admit' else 'revoked'} the key {fingerprint(act.key)}"
    if kind in (entries.CLAIM, entries.WITHDRAWAL):
        claim = claims.unsealed(entry.bytes("record"))
        what = f"gave it for {claim.count} boards" if isinstance(claim, claims.Statement) else "withdrew it"
        return "the operator", f"the claim {claim.id.hex()}", what
    if kind == entries.ENROL:
        said = expect(records.parse(entry.bytes("record")), Enrol)
        by = f"by the claim {entry.bytes('claim').hex()}, with the key {fingerprint(said.key)}"
        return "the device", said.device, f"was let in {by}" + (f", serial number {said.serial}" if said.serial else "")
    if kind in (*entries.STATEMENTS, entries.THIN, entries.ERASED):
        return _kept(entry)
    if kind in entries.DEPLOYING:
        return _deployed(entry)
    if kind == entries.COMMAND:
        command = expect(records.parse(entry.bytes("record")), Command)
        return "the operator", f"{command.device}/{command.model}", f"asked for {command.verb}, number {command.number}"
    if kind == entries.RESTORE:
        lost = f", in the place of a log of {entry.integer('end')} entries" if entry.integer("end") else ""
        return "the registry's host", "the registry", f"restored from a backup{lost}; {entry.integer('carried')} sealed words brought along"
    if kind == entries.VERDICT:
        reason = entry.text("reason")
        word = "verified" if entry.content["ok"] else f"refused: {reason}"
        return "the ingester", places.get(entry.bytes("commit"), entry.bytes("commit").hex()[:16]), word
    about = f"{entry.text('device')}/{entry.text('model')}"
    if kind == entries.ANSWER:
        word = "done" if entry.content["ok"] else "not done"
        return "the device", about, f"answered command {entry.integer('number')}: {word}: {entry.text('text')}"
    if kind == entries.EPOCH:
        return "the ingester", about, f"granted epoch {entry.integer('epoch')} on base {entry.bytes('base').hex()[:16]}"
    head = f"@{entry.integer('version')}, {entry.bytes('commit').hex()[:16]}"
    return "the ingester", about, f"head of epoch {entry.integer('epoch')} is {head}"
