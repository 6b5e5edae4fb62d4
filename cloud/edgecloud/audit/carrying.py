"""Brings into a restored copy what was sealed after it was made: a revocation holds, whichever day's copy is put back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgecloud.registry import ActRow, LogEntry, SqliteStore, Store, TrustRow, claims
from edgecloud.registry.claims import Statement, Withdrawal
from modelwire.errors import ModelWireError, RegistryDamaged
from modelwire.wire import records
from modelwire.wire.log import Link
from modelwire.wire.records import Act, Trust, expect

from . import entries
from .admissions import Admissions
from .entries import Decided

# What proves itself by a seal, wherever it was kept. An enrolment does not: its time is the ingester's word. Its board enrols again.
KINDS = (entries.TRUST, entries.ACT, entries.CLAIM, entries.WITHDRAWAL)

Sealed = Trust | Act | Statement | Withdrawal


@dataclass(frozen=True, slots=True)
class Carried:
    """What came into a copy that it did not hold."""

    trusts: int
    admitted: tuple[str, ...]  # devices
    revoked: tuple[str, ...]  # devices
    claims: int = 0  # given or withdrawn

    @property
    def count(self) -> int:
        return self.trusts + len(self.admitted) + len(self.revoked) + self.claims


def sealed(store: Store, after: int = 0) -> list[bytes]:
    """Return the entries of a log that prove themselves, in order. What can't be read is left out: the log may be damaged."""
    out = []
    try:
        for row in store.log.after(after):
            try:
                kind = entries.parse(row).kind
            except ModelWireError:
                continue
            if kind in KINDS:
                out.append(row.entry)
    except RegistryDamaged:  # of the registry that is replaced: what was read until here counts
        pass
    return out


def carry(store: SqliteStore, candidates: Iterable[bytes], replaced: Link | None, now: int) -> Carried:
    """Enter in a copy what of the candidates it does not hold and the right key has sealed, and that it was restored.

    candidates: entries of other logs of this fleet, in their order; they may come from anybody. replaced: end of the log that the copy
    takes the place of, where it is known.
    """
    trusts, admitted, revoked, given = 0, list[str](), list[str](), 0
    admissions = Admissions(store.identity)
    with store.transaction():
        admissions.catch_up(store.log, store.database.path)
        for data in candidates:
            try:
                entry = entries.parse(LogEntry(1, b"", data, b""))
                with store.transaction():
                    said = _enter(store, admissions, entry, now)
                    admissions.catch_up(store.log, store.database.path)
            except ModelWireError:  # nobody sealed it, or it can't follow here
                continue
            trusts += isinstance(said, Trust)
            given += isinstance(said, (Statement, Withdrawal))
            if isinstance(said, Act):
                (admitted if said.verb == "admit" else revoked).append(said.device)
        end = replaced or Link(0, bytes(32))
        store.log.append(entries.RESTORE, end=end.number, link=end.digest, carried=trusts + len(admitted) + len(revoked) + given)
    return Carried(trusts, tuple(admitted), tuple(revoked), given)


def _enter(store: SqliteStore, admissions: Admissions, entry: Decided, now: int) -> Sealed | None:
    """Keep what proves itself and the copy does not hold yet; its seal is looked at next, and takes it back."""
    record = entry.bytes("record") if entry.kind in KINDS else b""
    if entry.kind == entries.TRUST:
        trust = expect(records.parse(record), Trust)
        if trust.number <= admissions.trusted.number:
            return None
        store.trusts.add(TrustRow(trust.number, record))
        return trust
    if entry.kind == entries.ACT:
        act = expect(records.parse(record), Act)
        if act.number <= admissions.act:
            return None
        store.acts.add(ActRow(act.number, act.device, act.verb, act.key, record))
        if act.verb == "revoke":
            store.devices.revoke(act.device, now, act.key)
        elif store.devices.owner(act.key) is None:
            store.devices.add(act.device, act.key, now)
        return act
    if entry.kind in (entries.CLAIM, entries.WITHDRAWAL):
        said = claims.unsealed(record)
        known = admissions.claims.by_id.get(said.id)
        if (known is not None) if entry.kind == entries.CLAIM else (known is None or known.withdrawn):
            return None
        store.log.append(entry.kind, record=record)
        return said
    return None


def devices(names: Sequence[str]) -> str:
    """Return devices as people read them, each once."""
    return ", ".join(dict.fromkeys(names))
