"""Erases a device by law: all that is held of it, its name too. What is left is that the operator sealed so, and digests in the log.

First the operator's word: one transaction in which the device stops to speak. Then its entries of the log, its rows and its bytes, in
pieces; a kill may end that anywhere, and the next run goes on. Its name is forgotten last, since it is what the rest is found by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgecloud.audit import entries
from edgecloud.audit.admissions import Admissions
from edgecloud.audit.deploying import names_of
from edgecloud.audit.entries import Decided
from edgecloud.audit.erased import Cover, Covered
from edgecloud.registry import ErasureRow, SqliteStore, statements
from edgecloud.registry.rollout_rows import wordless
from edgecloud.registry.statements import Erasure, Purge
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged, UnknownVersion
from modelwire.wire import records
from modelwire.wire.commands import Take, task_of
from modelwire.wire.records import Command
from modelwire.wire.signing import Signer

from .thinning import Hook, drop_discards

ENTRIES, ROWS = 256, 512  # of the log, and of tables, in one transaction


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of a device: what would go."""

    models: int
    versions: int
    size: int  # bytes of what it sent, as far as it is kept
    states: int
    waiting: int  # parked, in quarantine, or coming in parts
    notes: int
    entries: int  # of the log


def held(store: SqliteStore, device: str) -> Held:
    """Return what is held of a device. Raises UnknownVersion where that is nothing."""
    lineages = store.lineages.of(device)
    waiting = len(store.inbox.orphans(device)) + len(store.inbox.held(device)) + len(store.transfers.of(device))
    if device not in store.devices.names() and not waiting and not lineages:
        raise UnknownVersion(name=device)
    versions = [v for lineage in lineages for v in store.versions.of(lineage.id)]
    thinned = {id for lineage in lineages for id in store.thinnings.of(lineage.id)}
    squashes = sum(one.size for lineage in lineages for one in store.thinnings.squashes(lineage.id).values())
    notes = [("device", device), *(("model", str(lineage)) for lineage in lineages)]
    notes += [("version", f"{lineage}@{v.version}") for lineage in lineages for v in versions if v.lineage == lineage.id]
    return Held(
        len(lineages), len(versions), squashes + sum(v.size for v in versions if v.id not in thinned),
        sum(len(store.states.of(lineage.id)) for lineage in lineages), waiting,
        sum(len(store.annotations.of(*one)) for one in notes), len(_about(store, device, None)[0]),
    )  # fmt: skip


def begin(store: SqliteStore, key: Signer, device: str, number: int, now: int) -> Erasure:
    """Seal that a device is erased, and keep it: from then on its keys do not speak. number: above all that the operator gave before.

    Raises BadArgument where that was done, and the rest is not.
    """
    if device in store.erasures.under_way():
        raise BadArgument(reason=f"the erasure of {device} is under way", fix=f"edgecloud erase {device} goes on with it")
    for rollout in store.rollouts.all(ended=False):
        if device in names_of(rollout.plan):  # its plan goes with the name, and nobody acts on a rollout without a plan
            reason = f"the rollout {rollout.name or rollout.rollout.hex()[:8]} names {device}, and is {rollout.state}"
            raise BadArgument(reason=reason, fix="roll it back, abort it or let it end first: edgecloud rollout --help")
    with store.transaction():
        admissions = Admissions(store.identity)
        admissions.catch_up(store.log, store.database.path)
        rows = {known.key for known in store.devices.keys(device)}
        known = {key for key, one in admissions.by_key.items() if one.device == device}
        keys = sorted(rows | known)
        claims = sorted(id for id, claim in admissions.claims.by_id.items() for enrolled in claim.enrolled if enrolled in keys)
        cover = Cover(_about(store, device, None)[0])
        said = Erasure(number, now, b"".join(keys), b"".join(claims), len(cover.entries), cover.root)
        store.erasures.begin(ErasureRow(number, device, statements.seal(said, key, store.identity.id)))
        store.devices.revoke(device, now)
    return said


def resume(
    store: SqliteStore, hook: Hook = lambda step: None, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[int]:
    """End every erasure that was begun, and return their numbers. Raises RegistryDamaged for one that the log does not hold so."""
    done = []
    for row in store.erasures.all():
        if row.device is not None:
            store.database.run("PRAGMA secure_delete = ON")
            if row.device:  # else its rows and its name were gone when a kill came
                _erase(store, row, row.device, hook, progress)
            done.append(row.number)
    if done:
        store.states.sweep()
        store.database.shorten_log()
        hook("log")
        for number in done:
            store.erasures.finish(number)
        hook("finish")
    return done


def _erase(store: SqliteStore, row: ErasureRow, device: str, hook: Hook, progress: Callable[[int, int], None]) -> None:
    try:
        said = statements.unsealed(row.record)
    except ModelWireError as error:
        raise RegistryDamaged(path=store.database.path, reason=f"erasure {row.number} can't be read: {error.message}") from None
    covered, standing = _about(store, device, row.number)
    cover = Cover(covered)
    if not isinstance(said, Erasure) or (len(covered), cover.root) != (said.count, said.root):
        reason = f"erasure {row.number} does not cover what the log holds about its device"
        raise RegistryDamaged(path=store.database.path, reason=reason)
    places = [index for index, one in enumerate(cover.entries) if one.number in standing]
    total = len(places) + sum(store.versions.count(lineage.id) for lineage in store.lineages.of(device))
    for start in range(0, len(places), ENTRIES):
        with store.transaction():
            for index in places[start : start + ENTRIES]:
                store.erasures.replace_entry(cover.entries[index].number, cover.left_of(index, row.number))
            hook("entries written")
        hook("entries")
        progress(min(len(places), start + ENTRIES), total)
    _list_updates(store, device)
    with store.transaction():
        for rollout in store.rollouts.all():
            if device in names_of(rollout.plan):
                store.rollouts.forget_plan(rollout.id)
            if device in rollout.reason:  # of another whose name holds this one, too: it is a word for people
                store.rollouts.move(rollout.id, reason=wordless(rollout.reason), now=rollout.changed_at)
    done = len(places)
    while True:
        with store.transaction():
            deleted = store.erasures.delete_some(device, ROWS)
            hook("rows written")
        hook("rows")
        drop_discards(store, hook)
        done += deleted
        progress(min(done, total), total)
        if not deleted:
            break
    with store.transaction():
        store.erasures.forget_name(row.number)
        hook("name written")
    hook("name")


def _list_updates(store: SqliteStore, device: str) -> None:
    """List for dropping what commands have kept for a device to take over."""
    with store.transaction():
        for lineage in store.lineages.of(device):
            for request in store.requests.of(lineage.id):
                try:
                    task = task_of(records.expect(records.parse(request.record), Command))
                except ModelWireError:
                    continue  # a row that holds none
                if isinstance(task, Take) and not store.thinnings.needed(task.id):
                    store.thinnings.discard(task.id)


def _about(store: SqliteStore, device: str, by: int | None) -> tuple[list[Covered], set[int]]:
    """Return the entries of the log that are about a device, and the numbers of those that still say what they said.

    by: number of its erasure, where it was begun: what was entered behind that is about another device of this name.
    """
    lineages = store.lineages.of(device)
    commits = {v.commit for lineage in lineages for v in store.versions.of(lineage.id)}
    bases = {base.commit for base in store.bases.all()}  # a head may have gone back to one
    rows = {row.number: row for row in store.log.about_none()}
    for subject in commits | bases:
        rows.update((row.number, row) for row in store.log.about(subject))
    out, standing = list[Covered](), set[int]()
    for number, row in sorted(rows.items()):
        entry = entries.parse(row)
        if entry.kind == entries.ERASE and statements.unsealed(entry.bytes("record")).number == by:
            break
        if entry.kind == entries.ERASED:
            if entry.integer("by") == by:
                out.append(Covered(number, entry.bytes("digest")))
        elif _concerns(entry, device, commits):
            out.append(Covered(number, entries.digest_of(row)))
            standing.add(number)
    return out, standing


def _concerns(entry: Decided, device: str, commits: set[bytes]) -> bool:
    """Return whether an entry is about a device. commits: of its versions."""
    if entry.kind == entries.PLAN:
        return device in names_of(entry.bytes("record"))
    if entry.kind in (entries.ACT, entries.ENROL, entries.COMMAND, entries.DESIRED):
        return records.parse(entry.bytes("record")).record.device == device
    if entry.kind == entries.PURGE:
        said = statements.unsealed(entry.bytes("record"))
        return isinstance(said, Purge) and said.device == device
    if entry.kind in (entries.ANSWER, entries.EPOCH, entries.HEAD):
        return entry.text("device") == device
    if entry.kind == entries.VERDICT:
        return entry.bytes("commit") in commits
    if entry.kind == entries.THIN:
        gone, squashed = entries.commits_of(entry)
        return not commits.isdisjoint(gone) or not commits.isdisjoint(squashed)
    return False
