"""Looks for what somebody changed in a registry without a key: the log must be whole, and every table must say what it says."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgecloud.registry import HeadRow, SqliteStore, Status
from modelwire.errors import BadSignature, ModelWireError, RegistryDamaged
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.log import Link
from modelwire.wire.records import Act, Command, expect

from . import entries
from .admissions import Admissions
from .entries import Decided

# What rows come to whose bytes were changed: SQLite hands out whatever stands in a column.
UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error)
MOST = 200  # findings that are told; a registry that was overwritten has as many as rows
Place = tuple[str, str, int]  # device, model and epoch or number


@dataclass
class _Told:
    """What the log says the tables must hold."""

    admissions: Admissions
    trusts: list[bytes] = field(default_factory=list)
    acts: dict[int, bytes] = field(default_factory=dict)
    commands: dict[Place, bytes] = field(default_factory=dict)
    answered: dict[Place, tuple[bool, str]] = field(default_factory=dict)
    epochs: dict[Place, tuple[bytes, bytes, int]] = field(default_factory=dict)  # state, base, floor
    heads: dict[Place, tuple[bytes, int]] = field(default_factory=dict)  # commit, version
    versions: dict[bytes, Place] = field(default_factory=dict)  # by commit; the number instead of the epoch is beside it
    numbers: dict[bytes, int] = field(default_factory=dict)
    verdicts: dict[bytes, bool] = field(default_factory=dict)


def look(store: SqliteStore) -> list[str]:
    """Return what of a registry is not as its log says, each in words; nothing when all is.

    Costs a step for each row and entry, and memory for the log's newest word on each; no model is rebuilt.
    """
    found: list[str] = []
    try:
        with store.database.reading():  # an ingester may be at work
            for one in _look(store):
                found.append(one)
                if len(found) >= MOST:
                    break
    except RegistryDamaged as error:
        found.append(str(error.facts.get("reason", error.message)))
    except UNREADABLE as error:
        found.append(f"a row can't be read: {type(error).__name__}: {str(error)[:200]}")
    return found


def _look(store: SqliteStore) -> Iterator[str]:
    told = _Told(Admissions(store.identity))
    yield from _whole(store, told)
    yield from _tables(store, told)


def _whole(store: SqliteStore, told: _Told) -> Iterator[str]:
    """Replay the log, and yield what is wrong with it: links, seals, and up to where it is signed."""
    signed, end = store.log.signed(), Link(0, b"")
    before: Link | None = None
    for row in store.log.after(0):
        try:
            before = entries.follow(before, row)
            entry = entries.parse(row)
        except ModelWireError as error:
            yield error.message
            return  # what comes after it proves nothing
        end = before
        try:
            told.admissions.take(entry)
        except ModelWireError as error:
            yield f"entry {entry.number} of the log is not the operator's: {error.message}"
            continue
        _note(told, entry)
        if signed is not None and signed.number == entry.number:
            yield from _signature(told, before, signed.link, signed.signature, entry.at)
        if (signed is None or entry.number > signed.number) and entry.kind not in entries.BY_OPERATOR:
            yield f"entry {entry.number} of the log ({entry.kind}) is signed by no receipt key: no ingester made it"
    if signed is not None and signed.number > end.number:
        yield f"the log was cut off: it is signed up to entry {signed.number}, and ends at {end.number}"


def _signature(told: _Told, link: Link, said: bytes, signature: bytes, at: int) -> Iterator[str]:
    if said != link.digest:
        yield f"the signature of the log's end is for another entry {link.number}"
        return
    for key in told.admissions.receipt_keys(link.number, at):
        try:
            link.verify(key, told.admissions.fleet.id, signature)
            return
        except BadSignature:
            continue
    yield f"the end of the log, entry {link.number}, is signed by no receipt key that the fleet trusted then"


def _note(told: _Told, entry: Decided) -> None:
    kind = entry.kind
    if kind == entries.TRUST:
        told.trusts.append(entry.bytes("record"))
    elif kind == entries.ACT:
        record = entry.bytes("record")
        told.acts[expect(records.parse(record), Act).number] = record
    elif kind == entries.COMMAND:
        record = entry.bytes("record")
        command = expect(records.parse(record), Command)
        told.commands[command.device, command.model, command.number] = record
    elif kind == entries.ANSWER:
        told.answered[entry.text("device"), entry.text("model"), entry.integer("number")] = bool(entry.content["ok"]), entry.text("text")
    elif kind == entries.EPOCH:
        place = entry.text("device"), entry.text("model"), entry.integer("epoch")
        told.epochs[place] = entry.bytes("state"), entry.bytes("base"), entry.integer("floor")
        told.heads[place] = entry.bytes("base"), 0
    elif kind == entries.HEAD:
        place = entry.text("device"), entry.text("model"), entry.integer("epoch")
        commit, version = entry.bytes("commit"), entry.integer("version")
        told.heads[place] = commit, version
        if version:
            told.versions[commit], told.numbers[commit] = place, version
    elif kind == entries.VERDICT:
        told.verdicts[entry.bytes("commit")] = bool(entry.content["ok"])


def _tables(store: SqliteStore, told: _Told) -> Iterator[str]:
    yield from _trusts_and_acts(store, told)
    yield from _keys(store, told)
    yield from _lineages(store, told)
    yield from _commands(store, told)


def _trusts_and_acts(store: SqliteStore, told: _Told) -> Iterator[str]:
    if [row.record for row in store.trusts.all()] != told.trusts:
        yield "the trust records are others than those in the log"
    newest = told.admissions.trusted.newest
    if newest is not None and newest.fleet != store.fleet:
        yield f"the fleet's name is {store.fleet}, and {newest.fleet} by the trust records"
    # A revocation that outlived a restore may be about a device that the copy never had.
    names = {*store.devices.names(), *(records.parse(record).record.device for record in told.acts.values())}
    kept = {row.number: row for name in sorted(names) for row in store.acts.of(name)}
    for number in sorted(told.acts.keys() | kept.keys()):
        if number not in kept or number not in told.acts or kept[number].record != told.acts[number]:
            yield f"act {number} of the operator is {'gone' if number not in kept else 'not what the log holds'}"


def _keys(store: SqliteStore, told: _Told) -> Iterator[str]:
    rows = {key.key: key for name in store.devices.names() for key in store.devices.keys(name) if key.revoked_at is None}
    for key, row in rows.items():
        if told.admissions.speaks(row.device, key):
            continue
        known = told.admissions.by_key.get(key)
        if known is not None and known.device == row.device:
            yield f"the key {fingerprint(key)} speaks for {row.device} again: entry {known.revoked} of the log revoked it"
        else:
            yield f"the key {fingerprint(key)} speaks for {row.device}, and no act of the operator's let it in"
    for key, known in told.admissions.by_key.items():
        if not known.revoked and key not in rows:
            yield f"the key {fingerprint(key)} of {known.device} speaks no more, and no act of the operator's revoked it"


def _lineages(store: SqliteStore, told: _Told) -> Iterator[str]:
    seen: set[bytes] = set()
    epochs = dict(told.epochs)
    for lineage in store.lineages.all():
        name = lineage.device, lineage.model
        newest = store.lineages.current(lineage.id)
        for number in range(1, (newest.epoch if newest else 0) + 1):
            epoch, head, place = store.lineages.epoch(lineage.id, number), store.lineages.head(lineage.id, number), (*name, number)
            said = epochs.pop(place, None)
            if epoch is None or head is None or said is None or (epoch.state, epoch.base, epoch.floor) != said:
                yield f"epoch {number} of {lineage} is {'gone' if epoch is None or head is None else 'not what the log granted'}"
            elif (head.commit, head.version) != told.heads[place]:
                was = told.heads[place][1]
                yield f"the head of {lineage} in epoch {number} is @{head.version}, and @{was} by the log"
            elif _commit_of(store, head) != (head.commit if head.version else None):
                yield f"the head of {lineage} in epoch {number} refers to another version than @{head.version}"
        for row in store.versions.of(lineage.id):
            seen.add(row.commit)
            if (told.versions.get(row.commit), told.numbers.get(row.commit)) != ((*name, row.epoch), row.version):
                yield f"{lineage}@{row.version} was linked by no ingester: the log does not hold it so"
            elif told.verdicts.get(row.commit) is not {Status.STORED: None, Status.VERIFIED: True, Status.REFUSED: False}[row.status]:
                yield f"{lineage}@{row.version} is {row.status.value}, and the log says otherwise"
    for commit in told.versions.keys() - seen:
        device, model, _ = told.versions[commit]
        yield f"{device}/{model}@{told.numbers[commit]} is gone: the log holds it, and its row is not there"
    for device, model, number in epochs:
        yield f"epoch {number} of {device}/{model} is gone"


def _commit_of(store: SqliteStore, head: HeadRow) -> bytes | None:
    row = store.versions.by_id(head.version_id) if head.version_id is not None else None
    return row.commit if row is not None else None


def _commands(store: SqliteStore, told: _Told) -> Iterator[str]:
    kept: set[Place] = set()
    for lineage in store.lineages.all():
        for row in store.requests.of(lineage.id):
            place = lineage.device, lineage.model, row.number
            kept.add(place)
            if told.commands.get(place) != row.record:
                yield f"command {row.number} for {lineage} is not among those that the operator sealed: the log does not hold it"
            elif told.answered.get(place) != (None if row.ok is None else (row.ok, row.text)):
                yield f"the answer to command {row.number} of {lineage} is not what the log holds"
    for device, model, number in told.commands.keys() - kept:
        yield f"command {number} for {device}/{model} is gone"
