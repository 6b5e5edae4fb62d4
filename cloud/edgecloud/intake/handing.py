"""Hands a device the update that a sealed command `take` names, in parts, as it asks for them; nobody else, and nothing else.

The operator's command is the authority: without an open one that names these bytes none of them goes out. What is read of a blob is
proven by the tree before it is said, so the whole is read once, and not for each word of a device.
"""

from __future__ import annotations

import logging

from edgecloud.registry import Store
from modelwire import merkle
from modelwire.errors import BadArgument, ModelWireError, RegistryDamaged
from modelwire.wire import parts, records
from modelwire.wire.commands import Take, task_of
from modelwire.wire.parts import WANTED_AT_ONCE, Outgoing
from modelwire.wire.records import Command, Signed, Transfer, Wanted

from .decision import TREES, Context, Decision, Reply, Result, clean, require_known

PART = 32 * 1024  # bytes of each part: it goes through the smallest brokers, and eight of them into the smallest boards
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
    found = _open_take(store, lineage.id, said.id, context.now) if lineage is not None else None
    if lineage is None or found is None:
        return Decision(Result.DROPPED, said.device, said.model, reason="it asks for parts of what no open command has named to it")
    try:
        out = _cut(context, *found)
        missing = parts.missing(said.have, out.count)
        now = missing[: context.handed.room(lineage.id, context.now, min(len(missing), WANTED_AT_ONCE))]
        replies = tuple(Reply("part", out.transfer, _part(store, out, index)) for index in now)
    except (RegistryDamaged, BadArgument) as error:  # of one blob: not a reason to serve nobody
        return Decision(Result.DROPPED, said.device, said.model, reason=clean(str(error)))
    reason = f"{len(now)} parts go down; it had {out.count - len(missing)} of {out.count}"
    return Decision(Result.NOTED, said.device, said.model, reason=reason, replies=replies)


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
