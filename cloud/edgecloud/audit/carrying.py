"""Brings into a restored copy what was sealed after it was made: a revocation holds, whichever day's copy is put back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgecloud.registry import ActRow, ErasureRow, LogEntry, SqliteStore, Store, TrustRow, claims, statements
from edgecloud.registry.claims import Statement, Withdrawal
from edgecloud.registry.statements import Erasure, Policy, Purge
from modelwire.errors import BadSignature, ModelWireError, RegistryDamaged
from modelwire.wire import records
from modelwire.wire.log import Link
from modelwire.wire.records import Act, Signed, Trust, expect
from modelwire.wire.signing import Role
from modelwire.wire.trust import Trusted

from . import deploying, entries
from .admissions import Admissions
from .deploying import UnprovenWord
from .entries import Decided

# What proves itself by a seal, wherever it was kept. An enrolment does not: its time is the ingester's word. Its board enrols again.
# A plan does not come along: what was done by it is not in the copy, and a rollout that was over would begin anew. A decision about a plan
# that the copy holds does: a rollout that was halted stays so.
KINDS = (
    entries.TRUST, entries.ACT, entries.CLAIM, entries.WITHDRAWAL, entries.POLICY, entries.ERASE, entries.VARIANT, entries.DECISION
)  # fmt: skip

Sealed = Trust | Act | Statement | Withdrawal | Policy | Erasure | UnprovenWord


@dataclass(frozen=True, slots=True)
class Carried:
    """What came into a copy that it did not hold."""

    trusts: int
    admitted: tuple[str, ...]  # devices
    revoked: tuple[str, ...]  # devices
    claims: int = 0  # given or withdrawn
    left_out: tuple[str, ...] = ()  # devices that a key let in which is good no more
    policies: int = 0  # newer words on what is kept
    erased: tuple[str, ...] = ()  # devices that were erased since the copy was made, and are in it
    rollouts: int = 0  # variants, and decisions about rollouts

    @property
    def count(self) -> int:
        return self.trusts + len(self.admitted) + len(self.revoked) + self.claims + self.policies + len(self.erased) + self.rollouts


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


def carry(store: SqliteStore, anchored: Iterable[bytes], candidates: Iterable[bytes], replaced: Link | None, now: int) -> Carried:
    """Enter in a copy what it does not hold and the right key has sealed, in the order of its own numbers, and that it was restored.

    anchored: entries that were kept where nobody who reaches a registry does. candidates: entries of other logs of this fleet; they may
    come from anybody, so a key that is good no more lets nobody in by them: it may have been stolen since, and what it revokes stays
    revoked. replaced: end of the log that the copy takes the place of, where it is known.
    """
    admissions = Admissions(store.identity)
    entered, left_out = list[Sealed](), list[str]()
    with store.transaction():
        admissions.catch_up(store.log, store.database.path)
        sure = set(anchored)
        found = _parsed([*dict.fromkeys([*sure, *candidates])], sure)
        trusts, held = _chain(admissions.trusted, found)
        trusts_in = 0
        for one in sorted((f for f in found if not isinstance(f.said, Trust)), key=lambda f: f.order):
            good = [stage for stage, known in enumerate(held) if _seals(known, one, now)]
            stage = next((s for s in good if s >= trusts_in), None)
            if stage is None:
                continue
            if one.lets_in and not one.sure and len(trusts) not in good:
                left_out += [one.said.device] if isinstance(one.said, Act) and one.said.number > admissions.act else []
                continue
            for trust in (*trusts[trusts_in:stage], one):
                entered += _try(store, admissions, trust, now)
            trusts_in = stage
        for trust in trusts[trusts_in:]:
            entered += _try(store, admissions, trust, now)
        acts = [said for said in entered if isinstance(said, Act)]
        end = replaced or Link(0, bytes(32))
        store.log.append(entries.RESTORE, end=end.number, link=end.digest, carried=len(entered))
    return Carried(
        sum(isinstance(said, Trust) for said in entered),
        tuple(act.device for act in acts if act.verb == "admit"), tuple(act.device for act in acts if act.verb == "revoke"),
        sum(isinstance(said, (Statement, Withdrawal)) for said in entered), tuple(dict.fromkeys(left_out)),
        sum(isinstance(said, Policy) for said in entered), still_held(store, admissions),
        sum(isinstance(said, UnprovenWord) for said in entered),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Found:
    """A word that proves itself, if it does."""

    entry: Decided
    said: Sealed
    sure: bool  # it comes from an anchor

    @property
    def order(self) -> tuple[int, ...]:
        """Of acts and claims together: the number of an act is its time in milliseconds, if the clock was right."""
        if isinstance(self.said, UnprovenWord):
            return self.said.at * 1000, True, self.said.number
        if isinstance(self.said, (Act, Trust, Policy, Erasure)):
            return self.said.number, False
        return self.said.at * 1000, isinstance(self.said, Withdrawal)

    @property
    def lets_in(self) -> bool:
        if isinstance(self.said, UnprovenWord):
            return self.said.starts
        return self.said.verb == "admit" if isinstance(self.said, Act) else isinstance(self.said, (Statement, Policy))


def _parsed(candidates: Sequence[bytes], sure: set[bytes]) -> list[_Found]:
    out = []
    for data in candidates:
        try:
            entry = entries.parse(LogEntry(1, b"", data, b""))
            record = entry.bytes("record") if entry.kind in KINDS else b""
            said: Sealed
            if entry.kind == entries.TRUST:
                said = expect(records.parse(record), Trust)
            elif entry.kind == entries.ACT:
                said = expect(records.parse(record), Act)
            elif entry.kind in (entries.POLICY, entries.ERASE):
                statement = statements.unsealed(record)
                if isinstance(statement, Purge):
                    continue
                said = statement
            elif entry.kind in entries.DEPLOYING:
                if entry.kind not in KINDS:
                    continue
                said = deploying.unproven(entry.kind, record)
            elif entry.kind in KINDS:
                said = claims.unsealed(record)
            else:
                continue
        except ModelWireError:
            continue
        out.append(_Found(entry, said, data in sure))
    return out


def _chain(trusted: Trusted, found: Iterable[_Found]) -> tuple[list[_Found], list[Trusted]]:
    """Return the trust records that follow, and what they come to after none, one, ... of them."""
    trusts, held = list[_Found](), [trusted]
    for one in sorted((f for f in found if isinstance(f.said, Trust)), key=lambda f: f.order):
        try:
            held.append(held[-1].take(records.parse(one.entry.bytes("record"))))
        except ModelWireError:
            continue
        trusts.append(one)
    return trusts, held


def _seals(trusted: Trusted, one: _Found, now: int) -> bool:
    """Whether a command key of these trust records has sealed it."""
    record, fleet, known = one.entry.bytes("record"), trusted.fleet.id, trusted.keys(Role.COMMAND, now)
    try:
        if isinstance(one.said, UnprovenWord):
            role = Role.ROOT if one.entry.kind == entries.VARIANT else Role.COMMAND
            deploying.read(one.entry.kind, record, trusted.fleet, trusted.keys(role, now))
        elif isinstance(one.said, Statement):
            claims.read(record, fleet, known)
        elif isinstance(one.said, Policy):
            statements.read_policy(record, fleet, known)
        elif isinstance(one.said, Erasure):
            statements.read_erasure(record, fleet, known)
        elif isinstance(one.said, Withdrawal):
            claims.read_withdrawal(record, fleet, known)
        else:
            signed = records.parse(record)
            signed.check(fleet, Role.ACT)
            return any(_verifies(signed, key, fleet) for key in known)
    except ModelWireError:
        return False
    return True


def _verifies(signed: Signed, key: bytes, fleet: bytes) -> bool:
    try:
        signed.verify(key, fleet, "the operator's command key", Role.ACT)
    except BadSignature:
        return False
    return True


def _try(store: SqliteStore, admissions: Admissions, one: _Found, now: int) -> list[Sealed]:
    """Return the word when it was entered, nothing when it is here already or can't follow here."""
    try:
        with store.transaction():
            said = _enter(store, admissions, one.entry, now)
            admissions.catch_up(store.log, store.database.path)
    except ModelWireError:
        return []
    return [] if said is None else [said]


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
    if entry.kind in (entries.VARIANT, entries.DECISION):
        word = deploying.unproven(entry.kind, record)
        return word if deploying.bring(store, word, now) else None
    if entry.kind in (entries.POLICY, entries.ERASE):
        statement = statements.unsealed(record)
        if statement.number <= admissions.act or isinstance(statement, Purge):
            return None
        if isinstance(statement, Policy):
            store.log.append(entry.kind, record=record)
            held = store.policies.current()
            number = max(held.number + 1, statement.number)
            store.policies.add(replace(held, number=number, keep=statement.keep, record=record, at=statement.at))
            return statement
        store.erasures.begin(ErasureRow(statement.number, None, record))
        for start in range(0, len(statement.keys), 32):
            device = store.devices.owner(statement.keys[start : start + 32])
            if device is not None:
                store.devices.revoke(device, now, statement.keys[start : start + 32])
        return statement
    return None


def still_held(store: Store, admissions: Admissions) -> tuple[str, ...]:
    """Return the devices that were erased once and are in this registry again, as an older copy brings them back."""
    erased, under_way = admissions.erased_keys, store.erasures.under_way()
    return tuple(name for name, keys in store.devices.all_keys().items() if name not in under_way and any(k.key in erased for k in keys))


def devices(names: Sequence[str]) -> str:
    """Return devices as people read them, each once."""
    return ", ".join(dict.fromkeys(names))
