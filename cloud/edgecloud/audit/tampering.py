"""Looks for what somebody changed in a registry without a key: the log must be whole, and every table must say what it says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgecloud.registry import HeadRow, LineageRow, SqliteStore, SquashRow, Status, VersionRow
from modelwire.errors import BadSignature, Malformed, ModelWireError, RegistryDamaged
from modelwire.update.proof import HeaderProof, parse_header_proof
from modelwire.wire import records
from modelwire.wire.keys import fingerprint
from modelwire.wire.log import Link
from modelwire.wire.records import Act, Command, expect

from . import deploying, entries
from .admissions import Admissions
from .deploying import ToldDeployments
from .entries import Decided

# What rows come to whose bytes were changed: SQLite hands out whatever stands in a column.
UNREADABLE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, TypeError, ValueError, struct.error)
MOST = 200  # findings that are told; a registry that was overwritten has as many as rows
KEEP_ALL = "all"  # where the operator has sealed nothing else
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
    ranks: dict[bytes, int] = field(default_factory=dict)  # by commit: the how manieth of its epoch it was
    linked: dict[Place, int] = field(default_factory=dict)  # by epoch: how many versions
    thinned: dict[bytes, tuple[bool, bytes]] = field(default_factory=dict)  # by commit: gone, else the digest of the squash
    deployed: ToldDeployments = field(default_factory=ToldDeployments)
    purged: dict[bytes, int] = field(default_factory=dict)  # by commit: number of the word by which rows of it were dropped


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
    yield from told.admissions.uncovered()
    yield from _erasures(store, told)
    yield from _tables(store, told, store.erasures.under_way())


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
        yield from _note(told, entry)
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


def _note(told: _Told, entry: Decided) -> Iterator[str]:
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
            if commit not in told.versions:  # a head that goes back names one again
                told.ranks[commit] = told.linked[place] = told.linked.get(place, 0) + 1
            told.versions[commit], told.numbers[commit] = place, version
    elif kind == entries.VERDICT:
        told.verdicts[entry.bytes("commit")] = bool(entry.content["ok"])
    elif kind in entries.DEPLOYING:
        told.deployed.note(entry)
    elif kind == entries.THIN:
        yield from _note_thinning(told, entry)


def _note_thinning(told: _Told, entry: Decided) -> Iterator[str]:
    gone, squashed = entries.commits_of(entry)
    policy = told.admissions.policy
    newest = re.search(r"last ([0-9]{1,7})", policy.keep) if policy is not None else None
    for commit in gone:
        place = told.versions.get(commit)
        if place is not None:
            # So much of a policy follows from the log; days and tags do not.
            newer = told.linked[place] - told.ranks[commit]
            if told.heads.get(place, (b"", 0))[0] == commit or (newest is not None and newer < int(newest[1])):
                yield f"entry {entry.number} of the log thins {place[0]}/{place[1]}@{told.numbers[commit]}, which the policy keeps"
        told.thinned[commit] = True, b""
    for commit, digest in squashed.items():
        if told.thinned.get(commit, (False, b""))[0]:
            yield f"entry {entry.number} of the log squashes up to a version that was gone before"
        told.thinned[commit] = False, digest
        if entry.integer("by") in told.admissions.purges:
            told.purged[commit] = entry.integer("by")


def _erasures(store: SqliteStore, told: _Told) -> Iterator[str]:
    kept = {row.number for row in store.erasures.all()}
    for number in sorted(told.admissions.erasures.keys() ^ kept):
        yield f"erasure {number} of the operator is {'gone' if number not in kept else 'not what the log holds'}"


def _tables(store: SqliteStore, told: _Told, erased: Sequence[str]) -> Iterator[str]:
    """Compare the tables with the log. erased: devices of which some is still there: until all is gone they are nowhere whole."""
    for device in erased:
        _leave_out(told, device)
    yield from _trusts_and_acts(store, told, erased)
    yield from _keys(store, told)
    yield from _lineages(store, told, erased)
    yield from _commands(store, told, erased)
    yield from deploying.compare(store, told.deployed, erased, ever=bool(told.admissions.erasures))


def _leave_out(told: _Told, device: str) -> None:
    for places in (told.commands, told.answered, told.epochs, told.heads):
        for place in [place for place in places if place[0] == device]:
            del places[place]
    for commit in [commit for commit, place in told.versions.items() if place[0] == device]:
        del told.versions[commit], told.numbers[commit]
        told.thinned.pop(commit, None)
    for number in [n for n, record in told.acts.items() if records.parse(record).record.device == device]:
        del told.acts[number]


def _trusts_and_acts(store: SqliteStore, told: _Told, erased: Sequence[str]) -> Iterator[str]:
    if [row.record for row in store.trusts.all()] != told.trusts:
        yield "the trust records are others than those in the log"
    sealed, held = told.admissions.policy, store.policies.current()
    if held.keep != (sealed.keep if sealed is not None else KEEP_ALL):
        yield f"the store policy keeps {held.keep}, and {sealed.keep if sealed is not None else KEEP_ALL} by the operator's word in the log"
    newest = told.admissions.trusted.newest
    if newest is not None and newest.fleet != store.fleet:
        yield f"the fleet's name is {store.fleet}, and {newest.fleet} by the trust records"
    # A revocation that outlived a restore may be about a device that the copy never had.
    names = {*store.devices.names(), *(records.parse(record).record.device for record in told.acts.values())} - {*erased}
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


def _lineages(store: SqliteStore, told: _Told, erased: Sequence[str]) -> Iterator[str]:
    seen: set[bytes] = set()
    epochs = dict(told.epochs)
    for lineage in store.lineages.all():
        if lineage.device in erased:
            continue
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
        thinned, squashes = store.thinnings.of(lineage.id), store.thinnings.squashes(lineage.id)
        for row in store.versions.each(lineage.id):
            seen.add(row.commit)
            if row.id in thinned or row.commit in told.thinned:
                yield from _thinned(store, told, lineage, row, squashes.get(row.id))
            elif row.id in squashes:
                yield f"{lineage}@{row.version} has a squash, and the log says of none"
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


def _thinned(store: SqliteStore, told: _Told, lineage: LineageRow, row: VersionRow, squash: SquashRow | None) -> Iterator[str]:
    """Yield what of a thinned version is not as the log says, or does not prove it."""
    name, left, said = f"{lineage}@{row.version}", store.thinnings.get(row.id), told.thinned.get(row.commit)
    if left is None or said is None:
        knows, other = ("log", "row") if left is None else ("row", "log")
        yield f"{name} was thinned, says the {knows}, and the {other} says nothing of it"
        return
    if (left.gone, b"" if squash is None else squash.blob) != said:
        yield f"{name} was thinned otherwise than the log says: {'it is gone' if said[0] else 'another squash leads to it'}"
    if row.status is not Status.VERIFIED:
        yield f"{name} was thinned, and is {row.status.value}"
    by = told.purged.get(row.commit)
    if by is not None and told.admissions.purges.get(by) != lineage.device:
        yield f"{name} was purged by a word of the operator's about another device"
    try:
        require_proof(left.proof, lineage, row)
    except ModelWireError as error:
        yield f"what proves {name}, which was thinned, does not: {error.message}"


def require_proof(proof: bytes, lineage: LineageRow, row: VersionRow) -> HeaderProof:
    """Return the header proof of a thinned version. Raises Malformed unless it is of this very version; its signature is not looked at."""
    read = parse_header_proof(proof)
    h = read.header
    said = h.device, h.model, h.epoch, h.version, read.commit, h.parent, h.root, h.kind.name.lower()
    if said != (lineage.device, lineage.model, row.epoch, row.version, row.commit, row.parent, row.root, row.kind):
        raise Malformed(what=f"the header proof of {lineage}@{row.version}", reason="it is of another version")
    return read


def _commands(store: SqliteStore, told: _Told, erased: Sequence[str]) -> Iterator[str]:
    kept: set[Place] = set()
    for lineage in store.lineages.all():
        if lineage.device in erased:
            continue
        for row in store.requests.of(lineage.id):
            place = lineage.device, lineage.model, row.number
            kept.add(place)
            if told.commands.get(place) != row.record:
                yield f"command {row.number} for {lineage} is not among those that the operator sealed: the log does not hold it"
            elif told.answered.get(place) != (None if row.ok is None else (row.ok, row.text)):
                yield f"the answer to command {row.number} of {lineage} is not what the log holds"
    for device, model, number in told.commands.keys() - kept:
        yield f"command {number} for {device}/{model} is gone"
