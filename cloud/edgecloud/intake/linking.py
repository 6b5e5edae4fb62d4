"""Where an update goes: onto the head of its lineage, into the park, into quarantine, or back with a refusal.

Order comes from parent commits alone: head moves by compare-and-set, whatever the broker delivers first.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from edgecloud.registry import (
    AlarmRow,
    HeadRow,
    LineageRow,
    NewVersion,
    Parked,
    Refusal,
    Situation,
    Status,
    VersionRow,
    WaitingMessage,
)
from edgecloud.versions import cards
from modelwire.errors import (
    BadSignature,
    BudgetExhausted,
    Conflict,
    IndexOutOfRange,
    LineageError,
    Malformed,
    ModelWireError,
    TooLarge,
    TwoHistories,
    UnknownDevice,
    UnknownParent,
    WireError,
    WrongBase,
)
from modelwire.tensors import Schema
from modelwire.update.container import Container, parse
from modelwire.update.manifest import parse_manifest
from modelwire.update.sections import Kind
from modelwire.wire import cbor, routes
from modelwire.wire.records import Level, Receipt
from modelwire.wire.topics import Topic

from .decision import OURS, Context, Decision, KeyStanding, Reply, Result, clean, standing
from .quotas import charging
from .quotas.content import require_content

log = logging.getLogger("edgecloud.ingest")
BAD_CONTENT = (IndexOutOfRange, Malformed, TooLarge)
REACH = 1 << 32  # a device that jumps further would leave no numbers for its next life


@dataclass(frozen=True, slots=True)
class Subject:
    """The update that a receipt or a refusal is about."""

    lineage: LineageRow
    epoch: int
    version: int
    commit: bytes

    @classmethod
    def of_row(cls, lineage: LineageRow, row: VersionRow | Parked | Refusal) -> Subject:
        return cls(lineage, row.epoch, row.version, row.commit)


def update(context: Context, topic: Topic, data: bytes, *, counted: bool = False) -> Decision:
    """Return what became of a container: its bytes came in one message, or were joined from parts, which were counted as they came."""
    container = parse(data, context.bounds.wire)
    header = container.header
    routes.check_update(topic, header.device, header.model)
    signer = standing(context, header.device, lambda key: container.verify(key, context.store.identity.id))
    if signer is KeyStanding.REVOKED:
        raise UnknownDevice(device=header.device)
    if signer is KeyStanding.ERASED:
        return Decision(Result.DROPPED, header.device, header.model, header.version, "its device was erased")
    if signer is KeyStanding.UNKNOWN:
        return _quarantine(context, container, data)
    met = context.store.lineages.situation(header.device, header.model, header.epoch, header.version, container.commit)
    if met is not None and not met.known and not met.lost:
        size = 0 if counted else len(data)
        wait = charging.told_to_wait(context, header.device, header.model, size=size, versions=1, disk=size)
        if wait is not None:
            return wait
        context.store.quotas.count(header.device, context.now, bytes=size, versions=1)
        return _place(context, met, container, data, context.now)
    context.store.lineages.heard(header.device, header.model, context.now)
    known = context.store.versions.by_commit(container.commit)
    if known is not None:
        replies = (current_receipt(context, known),)
        return Decision(Result.REPEATED, header.device, header.model, header.version, known.status.value, replies)
    lineage = context.store.lineages.get(header.device, header.model)
    if lineage is None:
        raise LineageError(reason=f"{header.device}/{header.model} has not said hello, so its base is not known")
    before = context.store.refusals.by_commit(container.commit)
    if before is not None:
        return _refused(context, lineage, container, data, before.error, before.reason)
    assert met is not None  # a lineage is made together with its first epoch
    # Both sides have settled that it is lost: a late copy must not bring one of them to think otherwise.
    return Decision(Result.DROPPED, header.device, header.model, header.version, "its board has given this number up")


def current_receipt(context: Context, version: VersionRow) -> Reply:
    """Return what the centre says of a version today."""
    lineage = context.store.lineages.by_id(version.lineage)
    if version.status is Status.REFUSED:
        return refused_receipt(context, Subject.of_row(lineage, version), version.reason)
    level = Level.VERIFIED if version.status is Status.VERIFIED else Level.STORED
    return _receipt(context, Subject.of_row(lineage, version), level)


def verified_receipt(context: Context, about: Subject, place: int) -> Reply:
    """Return the receipt of a version that was just proven. place: in the log, of the entry that says so."""
    return _receipt(context, about, Level.VERIFIED, place=place)


def refused_receipt(context: Context, about: Subject, reason: str) -> Reply:
    """Return a refusal that names what to build on: the head of the epoch, or of the newest one."""
    lineages, id = context.store.lineages, about.lineage.id
    newest = lineages.current(id)
    if newest is not None and about.epoch < newest.epoch:
        return _receipt(context, about, Level.REFUSED, reason)  # there is nothing to build on: a newer folder speaks for the device
    head = lineages.head(id, about.epoch)
    if head is None:
        head = lineages.head(id, newest.epoch) if newest else None
    return _receipt(context, about, Level.REFUSED, reason, head)


def refuse_orphans(context: Context, parent: bytes, reason: str) -> tuple[Reply, ...]:
    """Refuse every orphan that waits, directly or not, for a commit that will never be linked."""
    replies: list[Reply] = []
    waiting = [parent]
    while waiting:
        for orphan in context.store.inbox.children(waiting.pop()):
            of = context.store.lineages.by_id(orphan.lineage)  # whoever saw the commit may have named it as a parent
            replies.append(_refuse_parked(context, of, orphan, "UnknownParent", reason))
            waiting.append(orphan.commit)
    return tuple(replies)


def close_older(context: Context, lineage: LineageRow, newest: int) -> tuple[Reply, ...]:
    """Refuse the orphans of epochs that a newer one has closed."""
    stale = [o for o in context.store.inbox.orphans(lineage.device) if o.lineage == lineage.id and o.epoch < newest]
    return tuple(_refuse_parked(context, lineage, o, "LineageError", _closed(o.epoch)) for o in stale)


def _place(context: Context, met: Situation, container: Container, data: bytes, heard: int) -> Decision:
    """Decide about an update that is signed by its device and that nobody has decided about before.

    met: what it meets; heard: when its device said it, 0 when that was before.
    """
    store, header = context.store, container.header
    lineage, epoch, head = met.lineage, met.epoch, met.head
    store.lineages.used(lineage.id, header.version if header.version <= lineage.last_version + REACH else 0, heard)
    try:
        if header.epoch < epoch.epoch:
            raise LineageError(reason=_closed(header.epoch))
        if header.epoch > epoch.epoch:
            raise LineageError(reason=f"epoch {header.epoch} was never granted")
        base = _base_of(context, container, met.base, orphan=header.parent != head.commit)
        if header.version > lineage.last_version + REACH:
            raise LineageError(reason=f"version {header.version} is out of reach of {lineage.last_version}")
        if met.taken:
            raise Conflict(device=lineage.device, model=lineage.model, version=header.version)
        if header.parent == head.commit:
            if header.version <= max(head.version, epoch.floor):
                raise LineageError(reason=f"version {header.version} does not follow {max(head.version, epoch.floor)}: numbers only rise")
        elif _is_known(context, header.parent, epoch.base):
            _require_first(context, lineage, container, head)
            raise LineageError(reason=f"stale parent: the head is version {head.version}")
        require_content(container, _schema_of(context, header.schema_id, base), context.bounds.wire)
    except OURS:
        raise
    except BAD_CONTENT as error:
        return _refused(context, lineage, container, data, type(error).__name__, clean(f"its bytes are no update: {error}"))
    except LineageError as error:
        if isinstance(error, Conflict):  # its device has signed both
            alarm(context, lineage, error.message)
        return _refused(context, lineage, container, data, type(error).__name__, clean(str(error)))
    if header.parent == head.commit:
        return _link(context, met, container, data, base)
    return _park(context, lineage, container, data)


def alarm(context: Context, lineage: LineageRow, text: str) -> None:
    """Note that two histories of a model are signed with one key; said once, until an operator has acknowledged it."""
    row = AlarmRow(lineage.device, lineage.model, "fork", clean(text), context.now)
    if context.store.losses.raise_alarm(row):
        log.error("%s/%s is two: %s; see edgecloud devices", lineage.device, lineage.model, row.text)


def note_troubles(context: Context, device: str, troubles: Mapping[str, str]) -> None:
    """Raise an alarm about what a board says of itself, once for each text: one that was acknowledged is not raised by every hello."""
    if not troubles:
        return
    text = clean("; ".join(f"{name}: {words}" for name, words in troubles.items()))
    if any(one.kind == "board" and one.text == text for one in context.store.losses.alarms(device)):
        return
    context.store.losses.raise_alarm(AlarmRow(device, "", "board", text, context.now))
    log.warning("%s says of itself: %s; see edgecloud devices", device, text)


def _require_first(context: Context, lineage: LineageRow, container: Container, head: HeadRow) -> None:
    """Raise TwoHistories for an update of another history than the one that is held: two on one parent, or under one number."""
    store, header = context.store, container.header
    first = store.versions.served_on(lineage.id, header.epoch, header.parent)
    refused = store.refusals.numbered(lineage.device, lineage.model, header.epoch, header.version)
    if first is not None or any(r.commit != container.commit for r in refused):
        other = f"@{first.version} went on from the same one before it" if first else f"another @{header.version} was refused before"
        reason = f"stale parent: the head is version {head.version}; {other}"
        raise TwoHistories(device=lineage.device, model=lineage.model, reason=reason)


def _base_of(context: Context, container: Container, base: bytes, *, orphan: bool) -> bytes:
    """Return the base that an update is on: a snapshot names its own, all else is on that of the head, `base`.

    orphan: a snapshot before it that has not come may have gone over to another base; what that was is known when it comes.
    Raises WrongBase for a base that is not registered, and for an update of other tensors than its base has.
    """
    header, store = container.header, context.store
    if header.kind is Kind.SNAPSHOT:
        base = header.base
        if store.bases.recall(base) is None:
            names = ", ".join(b.commit.hex()[:16] for b in store.bases.all()[:8])
            raise WrongBase(what="the snapshot", kind="base", expected=f"one that is registered ({names})", got=base.hex()[:16])
    row = store.bases.recall(base)
    assert row is not None  # its version's row refers to it
    schema = _schema(row.manifest).id
    if header.schema_id != schema:
        if orphan and header.kind is not Kind.SNAPSHOT and any(_schema(b.manifest).id == header.schema_id for b in store.bases.all()):
            return base
        raise WrongBase(what="the update", kind="schema", expected=schema.hex()[:16], got=header.schema_id.hex()[:16])
    return base


@lru_cache(maxsize=64)
def _schema(manifest: bytes) -> Schema:
    return parse_manifest(manifest).schema


def _schema_of(context: Context, id: bytes, base: bytes) -> Schema:
    """Return the schema that an update names: that of its base, or of the one that a snapshot before it will have brought."""
    row = context.store.bases.recall(base)
    found = [row] if row is not None else []
    return next(schema for one in (*found, *context.store.bases.all()) if (schema := _schema(one.manifest)).id == id)


def _is_known(context: Context, parent: bytes, base: bytes) -> bool:
    """Whether a parent that is not the head can never become it: linked, refused, or the base that others have left."""
    store = context.store
    return parent == base or store.versions.by_commit(parent) is not None or store.refusals.by_commit(parent) is not None


def _link(context: Context, met: Situation, container: Container, data: bytes, base: bytes) -> Decision:
    store, header, lineage, head = context.store, container.header, met.lineage, met.head
    fresh = NewVersion(
        lineage.id, header.epoch, header.version, header.kind.name.lower(), container.commit, header.parent, head.version_id, base,
        header.root, struct.pack("<QQ", *header.fingerprint), store.blobs.put(data), container.size, context.now, container.extension,
    )  # fmt: skip
    row = store.versions.add(fresh, header.extension)
    place = store.lineages.move_head(lineage.id, header.epoch, head.commit, HeadRow(row.id, row.commit, row.version), lineage)
    if not place:
        raise LineageError(reason=f"the head of {lineage} moved meanwhile")
    for first, last in _skipped(header.extension.get("skipped"), header.version):
        store.versions.skip(row.id, first, last)
    note = _note_card(context, lineage, container)
    replies = [_receipt(context, Subject.of_row(lineage, row), Level.STORED, place=place)]
    if not met.parked:
        return Decision(Result.STORED, lineage.device, lineage.model, row.version, note, tuple(replies))
    store.inbox.unpark(row.commit)
    # Numbers only rise: an orphan that the head has outrun waits for a parent that its device gave up.
    for lost in store.inbox.outrun(lineage.id, row.version):
        replies.append(_refuse_parked(context, lineage, lost, "UnknownParent", f"version {row.version} came without its parent"))
    waited = len(replies)
    orphans = store.inbox.children(row.commit)
    for orphan in orphans:
        replies += _unpark(context, orphan)
    also = f"with {len(replies) - waited} that waited for it" if orphans else ""
    return Decision(Result.STORED, lineage.device, lineage.model, row.version, "; ".join(s for s in (also, note) if s), tuple(replies))


def _note_card(context: Context, lineage: LineageRow, container: Container) -> str:
    """Note on the version that its data card can't be read, and return the note. Nothing rests on a card: the update counts."""
    try:
        cards.card_in(container.header.extension)
    except WireError as error:
        note = clean(f"its data card can't be read: {error.message}")
        context.store.annotations.add("version", f"{lineage}@{container.header.version}", note, context.now)
        return note
    return ""


def _unpark(context: Context, orphan: Parked) -> tuple[Reply, ...]:
    """Link an orphan whose parent has come, and through it those that wait for it."""
    store = context.store
    store.inbox.unpark(orphan.commit)
    lineage = store.lineages.by_id(orphan.lineage)
    container = parse(orphan.bytes, context.bounds.wire)
    met = store.lineages.situation(lineage.device, lineage.model, orphan.epoch, orphan.version, orphan.commit)
    assert met is not None  # its lineage is there
    try:
        with store.transaction():
            return _place(context, met, container, orphan.bytes, 0).replies
    except OURS:
        raise
    except ModelWireError as error:
        return _refused(context, lineage, container, orphan.bytes, type(error).__name__, clean(str(error))).replies


def _park(context: Context, lineage: LineageRow, container: Container, data: bytes) -> Decision:
    """Keep an orphan, bounded by device; the lowest versions stay, because they will be linked first."""
    store, header, bounds = context.store, container.header, context.bounds
    known = store.inbox.parked(container.commit)
    since = context.now - bounds.orphan_seconds
    # A large parent may take long over a slow link: while its parts come, nothing is lost.
    coming = any(t.model == lineage.model and t.touched_at > since for t in store.transfers.of(lineage.device))
    late = known is not None and known.received_at <= since and not coming
    if late and context.handed.waited(container.commit, context.now) >= bounds.orphan_seconds:
        # A device sends again in order: this one came again twice and its parent did not; once, it may only be late. After restoring
        # an older copy of the registry it never comes: its receipt was out. The refusal names the head; a snapshot on that goes on.
        error = UnknownParent(device=lineage.device, version=header.version, parent=header.parent.hex()[:16])
        del context.handed.overdue[container.commit]
        return _refused(context, lineage, container, data, "UnknownParent", str(error))
    if known is None:
        orphans = store.inbox.parked_sizes(lineage.device)
        while len(orphans) >= bounds.parked_count or sum(size for _, _, size in orphans) + len(data) > bounds.parked_bytes:
            if not orphans or orphans[-1][1] < header.version:
                raise BudgetExhausted(what=f"another orphan of {lineage.device}", budget=bounds.parked_bytes)
            store.inbox.unpark(orphans.pop()[0])
        digest = hashlib.sha256(data).digest()
        store.inbox.park(
            Parked(container.commit, lineage.device, lineage.id, header.epoch, header.version, header.parent, digest, data, context.now)
        )
    return Decision(Result.PARKED, lineage.device, lineage.model, header.version, f"its parent {header.parent.hex()[:16]} has not come")


def _quarantine(context: Context, container: Container, data: bytes) -> Decision:
    """Keep an update of an unknown key for the operator, without a receipt."""
    inbox, header, bounds = context.store.inbox, container.header, context.bounds
    if len(data) > min(bounds.held_bytes, bounds.held_total_bytes):  # before it is hashed
        raise BadSignature(what=container.name, signer=f"{header.device}, and it is too large for the quarantine")
    mark = hashlib.sha256(data).digest()
    if not inbox.holds(header.device, header.model, "update", mark):
        count, size = inbox.held_size(header.device, "update")
        of_all, bytes_of_all = inbox.held_total("update")
        if (
            count >= bounds.held_count
            or size + len(data) > bounds.held_bytes
            or of_all >= bounds.held_total
            or bytes_of_all + len(data) > bounds.held_total_bytes
        ):
            name = f"{header.device}/{header.model}@{header.version}"
            raise BadSignature(what=name, signer=f"{header.device}, and the quarantine is full")
    looked = max((k.id for k in context.store.devices.keys(header.device)), default=0)
    inbox.hold(WaitingMessage(0, header.device, header.model, "update", "unknown-key", mark, b"", data, context.now, looked))
    return Decision(Result.QUARANTINED, header.device, header.model, header.version, "its key is not registered")


def _refused(context: Context, lineage: LineageRow, container: Container, data: bytes, error: str, reason: str) -> Decision:
    """Write an update that its device has signed into the list of refusals, with all that wait for it, and tell the device."""
    header = container.header
    about = Subject(lineage, header.epoch, header.version, container.commit)
    _remember(context, about, data, error, reason)
    context.store.inbox.unpark(container.commit)
    first = refused_receipt(context, about, reason)
    rest = refuse_orphans(context, container.commit, f"version {header.version} was refused")
    return Decision(Result.REFUSED, lineage.device, lineage.model, header.version, reason, (first, *rest))


def _refuse_parked(context: Context, lineage: LineageRow, orphan: Parked, error: str, reason: str) -> Reply:
    context.store.inbox.unpark(orphan.commit)
    about = Subject.of_row(lineage, orphan)
    _remember(context, about, orphan.bytes, error, reason)
    return refused_receipt(context, about, reason)


def _remember(context: Context, about: Subject, data: bytes, error: str, reason: str) -> None:
    digest, of = hashlib.sha256(data).digest(), about.lineage
    row = Refusal(digest, of.device, of.model, error, reason, context.now, len(data), about.epoch, about.version, about.commit)
    context.store.refusals.add(row, context.bounds.refusals)


def _receipt(
    context: Context, about: Subject, level: Level, reason: str = "", good: HeadRow | None = None, place: int | None = None
) -> Reply:
    """Return a receipt. good: of a refusal, what to build on; place: in the log, where it was just entered."""
    of, (commit, version) = about.lineage, (good.commit, good.version) if good else (b"", 0)
    said = Receipt(
        context.store.fleet, of.device, of.model, context.now, about.epoch, about.version, about.commit, level, reason, commit, version,
        context.store.log.place(about.commit) if place is None else place,
    )  # fmt: skip
    return Reply("receipt", said)


def _closed(epoch: int) -> str:
    return f"epoch {epoch} is closed"


def _skipped(value: cbor.Value, version: int) -> list[tuple[int, int]]:
    """Return the well-formed ranges of numbers that an update says it carries; information, so the rest is left out."""
    out = []
    for pair in value if isinstance(value, list) else []:
        if isinstance(pair, list) and len(pair) == 2:
            first, last = pair
            if isinstance(first, int) and isinstance(last, int) and 0 < first <= last < version:
                out.append((first, last))
    return out[:64]
