"""How the centre and a board come to agree on every version number, and on the centre's log: what it answers to `more` of a hello."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, cast

from edgecloud.registry import Epoch, LineageRow, LostRow, Status, Store, WitnessRow
from modelwire.wire import cbor, numbers
from modelwire.wire.records import Hello, Receipt

from . import linking
from .decision import Context, Reply

log = logging.getLogger("edgecloud.ingest")
REACH = linking.REACH


class Links(Protocol):
    """The links of a log."""

    def link(self, number: int) -> bytes | None:
        """Return the 32 bytes of an entry's link; None beyond the end of the log."""


def nonce_of(said: Hello) -> dict[str, cbor.Value]:
    """Return what every answer to a hello gives back in `more`."""
    nonce = numbers.nonce_in(said.more)
    return {numbers.NONCE: nonce} if nonce else {}


def answer(context: Context, said: Hello, lineage: LineageRow) -> tuple[dict[str, cbor.Value], tuple[Reply, ...]]:
    """Return what the welcome says in `more` of the numbers that a hello asks about, and the receipts of those that are held.

    What the board has given up and nothing is held of is noted as lost: it is never taken any more, so both sides may rely on that.
    """
    back, missing, receipts, lost = nonce_of(said), list[tuple[int, int]](), list[Reply](), list[LostRow]()
    room = context.bounds.lost_numbers - context.store.losses.count(lineage.id)
    if any(one.open and one.model == said.model and one.kind == "fork" for one in context.store.losses.alarms(said.device)):
        room = 0  # of two folders with one key, one may yet use the number that the other gave up
    for key, epoch, version in _asked(context, said, lineage):
        held = _receipts(context, lineage, epoch, version)
        if held is not None:
            receipts += held
        elif key != numbers.UNSURE:
            if not context.store.losses.holds(lineage.id, epoch, version) and (epoch, version) not in missing:
                if room <= 0:
                    continue
                room -= 1
                lost.append(LostRow(lineage.id, epoch, version, key == numbers.LOST, context.now))
            missing.append((epoch, version))
        if len(receipts) >= context.bounds.answers:
            break
    if lost:
        _lose(context, lineage, lost)
    replies = tuple(replace(r, record=replace(cast(Receipt, r.record), more=back)) for r in receipts)
    return back | numbers.said(numbers.MISSING, numbers.spans(missing)), replies


def testify(context: Context, said: Hello) -> None:
    """Note a link of the centre's log that a board has seen and that the log does not hold. Nothing is decided by it."""
    seen, links = numbers.witness_in(said.more), _links(context.store)
    if seen is None or links is None:
        return
    ours = links.link(seen.number)
    if ours == seen.digest:
        return
    row = WitnessRow(said.device, seen.number, seen.digest, ours or b"", context.now)
    if context.store.losses.testify(row, context.bounds.witnesses):
        log.warning("%s has seen entry %d of this centre's log, %s", said.device, seen.number, against(row))


def behind(store: Store, lineage: LineageRow, epoch: Epoch, said: Hello) -> str:
    """Return in what a state folder knows less than its own key has told the centre, or else; empty when it does not.

    A sound board never does: what it has sent it holds. It is an older copy of the folder, or a second board with a copy of it. A hello
    may be late or said again, so this proves something only of one that answers a challenge.
    """
    newest, head = store.lineages.current(lineage.id), store.lineages.head(lineage.id, epoch.epoch)
    if newest is not None and newest.epoch > epoch.epoch:
        return ""  # its epoch is closed, so it takes over nothing: it is told so at its next update
    if head is None or not head.version or said.epoch != epoch.epoch:
        return ""
    if said.version < head.version:
        return f"a folder that stands at @{said.version} speaks, and @{head.version} came before, signed with the same key"
    if said.version == head.version and said.commit != head.commit:
        return f"a folder speaks whose @{said.version} is another one than the one that came before, signed with the same key"
    return ""


def against(row: WitnessRow) -> str:
    """Return how a board's witness and the log are apart, as people read it."""
    return "which is another one here" if row.ours else "and the log ends before it"


def _links(store: Store) -> Links | None:
    return cast("Links | None", getattr(store, "log", None))  # a registry may keep no log


def _asked(context: Context, said: Hello, lineage: LineageRow) -> Iterator[tuple[str, int, int]]:
    """Yield (key, epoch, version) of the numbers that are asked about: what was given up first, and no more than are looked up at once.

    A number above the board's own head is none that it can have given up: it will use it yet.
    """
    left = context.bounds.looks
    for key in (numbers.LOST, numbers.DROPPED, numbers.UNSURE):
        for span in numbers.read(said.more, key):
            if span.last > said.version or span.last > lineage.last_version + REACH:
                continue
            for epoch, version in span:
                if left <= 0:
                    return
                left -= 1
                yield key, epoch, version


def _receipts(context: Context, lineage: LineageRow, epoch: int, version: int) -> list[Reply] | None:
    """Return the last words on what is held under a number, none while they are to come; None where nothing is held."""
    row = context.store.versions.numbered(lineage.id, version)
    held = row is not None and row.epoch == epoch
    out = [linking.current_receipt(context, row)] if row is not None and held and row.status is not Status.STORED else []
    for refusal in context.store.refusals.numbered(lineage.device, lineage.model, epoch, version):
        held = True
        out.append(linking.refused_receipt(context, linking.Subject.of_row(lineage, refusal), refusal.reason))
    return out if held else None


def _lose(context: Context, lineage: LineageRow, lost: list[LostRow]) -> None:
    """Note numbers as lost; what waits for its parent under one of them waits no more."""
    store, numbered = context.store, {(one.epoch, one.version) for one in lost}
    for orphan in store.inbox.orphans(lineage.device):
        if orphan.lineage == lineage.id and (orphan.epoch, orphan.version) in numbered:
            store.inbox.unpark(orphan.commit)
    store.lineages.used(lineage.id, max(one.version for one in lost))
    for one in lost:
        store.losses.note(one)
