"""The log as it leaves the centre: what is about one device as it stands, all else by its digest, up to the signed end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass

from edgecloud.audit import entries
from edgecloud.audit.entries import Decided
from edgecloud.registry import LogEntry, SignedEnd, Store, claims, statements
from modelwire.errors import BadArgument
from modelwire.wire import records
from modelwire.wire.claims import claim_id
from modelwire.wire.records import Enrol, expect

from .verifier.encoding import plain, to_line
from .verifier.logs import ReadLog

_RUN = 4096  # digests of others' entries in one line
_ABOUT_ALL = (entries.TRUST, entries.RESTORE, entries.POLICY)
_CLAIMS = (entries.CLAIM, entries.WITHDRAWAL)
_DECIDED = (entries.COMMAND, entries.ANSWER)
_WORDS = tuple(kind.encode() for kind in (*_ABOUT_ALL, *_CLAIMS, entries.THIN))


@dataclass(frozen=True, slots=True)
class Shown:
    """Which entries are shown whole."""

    device: str
    commits: Set[bytes]  # of the versions whose entries are
    decided: bool  # what else was decided about the device, too: commands, answers, heads that went back to a base


def signed_end(store: Store) -> SignedEnd:
    """Return up to where the log is signed. Raises BadArgument where it is not."""
    signed = store.log.signed()
    if signed is None:
        raise BadArgument(reason="the log is not signed yet, so it proves nothing", fix="edgecloud ingest signs it when it starts")
    return signed


def log_lines(store: Store, shown: Shown) -> Iterator[str]:
    """Yield the log as lines of JSON, its signed end last. Raises as `signed_end`, and Malformed for an entry that can't be read."""
    end, mine = signed_end(store), _claims_of(store, shown.device)
    reader = ReadLog(store.identity.root + store.identity.id, shown.device)  # says of each entry what who verifies it will say
    others: list[bytes] = []
    start = 0
    for row in store.log.after(0):
        if row.number > end.number:
            break
        if not _is_shown(row, shown, mine):
            others.append(entries.digest_of(row))  # of an erased entry, what stood there
            reader.add(others[-1])
            if len(others) == _RUN:
                yield to_line({"after": start, "digests": b"".join(others).hex()})
                others, start = [], row.number
            continue
        if others:
            yield to_line({"after": start, "digests": b"".join(others).hex()})
        yield to_line({"entry": row.number, "cbor": row.entry.hex(), "says": plain(reader.take(row.entry))})
        others, start = [], row.number
    if others:
        yield to_line({"after": start, "digests": b"".join(others).hex()})
    yield to_line({"end": end.number, "link": end.link.hex(), "signature": end.signature.hex()})


def _is_shown(row: LogEntry, shown: Shown, mine: Collection[bytes]) -> bool:
    """Whether an entry is about the device, or about all. Most are neither, and are not parsed."""
    if row.subject in shown.commits:
        return True
    named = shown.device.encode() in row.entry
    if not (named or (not row.subject and any(word in row.entry for word in _WORDS))):
        return False
    entry = entries.parse(row)
    if entry.kind in _ABOUT_ALL:
        return True
    if entry.kind in _CLAIMS:
        return claims.unsealed(entry.bytes("record")).id in mine
    if entry.kind == entries.THIN:
        gone, squashed = entries.commits_of(entry)
        return not shown.commits.isdisjoint((*gone, *squashed))
    if row.subject:
        return shown.decided and entry.content.get("device") == shown.device
    if entry.kind in _DECIDED and not shown.decided:
        return False
    return _device_of(entry) == shown.device


def _device_of(entry: Decided) -> object:
    if "record" not in entry.content:
        return entry.content.get("device")
    if entry.kind in entries.DEPLOYING:
        return None  # shown by digest: none of these proves a version
    if entry.kind in entries.STATEMENTS:
        said = statements.unsealed(entry.bytes("record"))
        return said.device if isinstance(said, statements.Purge) else None
    return records.parse(entry.bytes("record")).record.device


def _claims_of(store: Store, device: str) -> set[bytes]:
    """Return the claims by which a device's keys were let in."""
    out = set()
    for row in store.log.about_none():
        if device.encode() in row.entry and b"enrol" in row.entry:
            entry = entries.parse(row)
            if entry.kind == entries.ENROL and _device_of(entry) == device:
                out.add(claim_id(expect(records.parse(entry.bytes("record")), Enrol).claim))
    return out
