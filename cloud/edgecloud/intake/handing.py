"""Hands a device what was sealed for it, in parts, as it asks for them: the update that a command `take` names, or the base that its
newest `desired` names, where that gives no address. Nobody else, and nothing else.

The operator's command, or the director's word, is the authority: without an open one that names these bytes none of them goes out. What is
read of a blob is proven by the tree before it is said, so the whole is read once, and not for each word of a device.
"""

from __future__ import annotations

import logging

from edgecloud.registry import Base, DesiredRow, Store
from modelwire import merkle
from modelwire.deploying.terms import terms_of
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged
from modelwire.update.manifest import parse_manifest
from modelwire.wire import parts, records
from modelwire.wire.commands import Take, task_of
from modelwire.wire.parts import BASES_AT_ONCE, WANTED_AT_ONCE, Outgoing
from modelwire.wire.records import Command, Desired, Signed, Transfer, Wanted

from .decision import BASES, READING, TREES, Context, Decision, Reply, Result, clean, require_known

PART = 32 * 1024  # bytes of each part: it goes through the smallest brokers, and eight of them into the smallest boards
BASE_PART = merkle.LEAF_BYTES  # of a base: its parts are the leaves of the tree that the root key has vouched for
READ = 64 * 1024 * 1024  # bytes of a base that are read at one word of a device until its tree is known: others are served in between
log = logging.getLogger("edgecloud.ingest")


def described(context: Context, command: Command) -> tuple[Reply, ...]:
    """Return the word on how the update is cut that a command names; none where it names none, or its bytes are not what it says."""
    task = _take_of(command)
    if task is None:
        return ()
    try:
        return (Reply("part", _cut(context, command, task).transfer),)
    except (RegistryDamaged, BadArgument) as error:
        log.error("%s/%s is to take an update that can't be read: %s", command.device, command.model, error)
        return ()  # all others are served


def wanted(context: Context, signed: Signed, data: bytes) -> Decision:
    """Return some of the parts that a device lacks of the update that an open command of its own names."""
    store = context.store
    said = records.expect(signed, Wanted)
    require_known(context, said.device, lambda key: signed.verify(key, store.identity.id, said.device))
    store.lineages.heard(said.device, said.model, context.now)
    lineage = store.lineages.get(said.device, said.model)
    try:
        out = _handed_out(context, lineage.id, said) if lineage is not None else None
        if lineage is None or out is None:
            reason = "it asks for parts of what neither an open command nor what it is to run has named to it"
            return Decision(Result.DROPPED, said.device, said.model, reason=reason)
        if not out.levels:
            return Decision(Result.NOTED, said.device, said.model, reason="the base that it is to run is still being read")
        is_base, handed = out.transfer.what == "base", context.handed
        if is_base and len(said.have) != -(-out.count // 8):  # it has another cut in mind
            return Decision(Result.NOTED, said.device, said.model, reason="it is told the cut", replies=(Reply("part", out.transfer),))
        missing, most = parts.missing(said.have, out.count), WANTED_AT_ONCE
        if is_base:
            most = max(0, BASES_AT_ONCE - handed.on_the_way(lineage.id, missing, context.now))
        now = missing[: handed.room(lineage.id, context.now, min(len(missing), most))]
        replies = tuple(Reply("part", out.transfer, _part(store, out, index)) for index in now)
    except (RegistryDamaged, BadArgument) as error:  # of one blob: not a reason to serve nobody
        return Decision(Result.DROPPED, said.device, said.model, reason=clean(str(error)))
    if is_base:
        handed.go(lineage.id, now, context.now)
    reason = f"{len(now)} parts go down; it had {out.count - len(missing)} of {out.count}"
    return Decision(Result.NOTED, said.device, said.model, reason=reason, replies=replies)


def _handed_out(context: Context, lineage: int, said: Wanted) -> Outgoing | None:
    """Return what a device may be handed of what it asks for; None where nothing sealed names it. Raises RegistryDamaged."""
    found = _open_take(context.store, lineage, said.id, context.now)
    if found is not None:
        return _cut(context, *found)
    row = context.store.rollouts.desired_for_hello(lineage, context.now)
    base = context.store.bases.recall(row.variant) if row is not None else None
    if row is None or base is None or base.file != said.id or not _comes_in_parts(row):
        return None
    about = said.fleet, said.device, said.model, context.now
    tree = parse_manifest(base.manifest).file_tree if base.file not in context.handed.bases else b""
    levels = _base_levels(context, base, tree)
    top = levels[-1][0] if levels else bytes(32)
    return Outgoing(Transfer(*about, base.file, base.size, BASE_PART, "base", top, b""), b"", levels)


def _comes_in_parts(row: DesiredRow) -> bool:
    """Return whether a device is to have a base's file over the link: not where it is given an address, nor on the way back."""
    try:
        terms = terms_of(records.expect(records.parse(row.record), Desired))
    except ModelWireError:
        return False  # a row that holds none
    return terms is not None and not terms.back and not terms.urls


def _base_levels(context: Context, base: Base, tree: bytes) -> list[list[bytes]]:
    """Return the tree over a base's leaves; empty while it is still read. tree: of its manifest. Raises RegistryDamaged."""
    known, reading = context.handed.bases, context.handed.reading
    if base.file in known:
        known.move_to_end(base.file)
        return known[base.file]
    leaves, count = reading.setdefault(base.file, []), -(-base.size // BASE_PART)
    while len(reading) > READING:
        reading.popitem(last=False)
    for _ in range(READ // BASE_PART):
        if len(leaves) == count:
            break
        leaves.append(merkle.leaf(context.store.blobs.piece(base.file, len(leaves) * BASE_PART, BASE_PART)))
    if len(leaves) < count:
        return []
    del reading[base.file]
    levels = merkle.tree_levels(leaves)
    if levels[-1][0] != tree:
        raise RegistryDamaged(path="the registry", reason=f"the bytes {base.file.hex()[:16]} of the base {base.name} have changed")
    known[base.file] = levels
    while len(known) > BASES:
        known.popitem(last=False)
    return levels


def _take_of(command: Command) -> Take | None:
    try:
        task = task_of(command)
    except ModelWireError:
        return None
    return task if isinstance(task, Take) else None


def _open_take(store: Store, lineage: int, id: bytes, now: int) -> tuple[Command, Take] | None:
    epoch = store.lineages.current(lineage)
    for request in store.requests.open(now, lineage):
        try:
            command = records.expect(records.parse(request.record), Command)
        except ModelWireError:
            continue  # a row that holds none
        task = _take_of(command)
        if task is not None and task.id == id and epoch is not None and command.state == epoch.state:
            return command, task
    return None


def _cut(context: Context, command: Command, task: Take) -> Outgoing:
    """Return how an update is cut for a device. Raises RegistryDamaged when its bytes are not those that the command names."""
    trees = context.handed.trees
    if task.id not in trees:
        data = context.store.blobs.get(task.id)  # proven by its digest
        if len(data) != task.size:
            raise RegistryDamaged(path="the registry", reason=f"the update {task.id.hex()[:16]} is not what a command says of it")
        trees[task.id] = merkle.tree_levels(merkle.leaves(data, PART))
        while len(trees) > TREES:
            trees.popitem(last=False)
    trees.move_to_end(task.id)
    levels, about = trees[task.id], (command.fleet, command.device, command.model, context.now)
    return Outgoing(Transfer(*about, task.id, task.size, PART, "update", levels[-1][0], command.parent), b"", levels)


def _part(store: Store, out: Outgoing, index: int) -> bytes:
    """Return the message with one part, read from its place and proven. Raises RegistryDamaged."""
    size = out.transfer.part_size
    data = store.blobs.piece(out.transfer.id, index * size, size)
    if merkle.leaf(data) != out.levels[0][index]:
        raise RegistryDamaged(path="the registry", reason=f"the bytes {out.transfer.id.hex()[:16]} have changed")
    return out.message(index, data)
