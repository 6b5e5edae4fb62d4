"""Carries out what the operator asks of one model, each command once: whether it still holds is looked at before what it asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from edgeagent.samples.spool import Spool
from modelwire import storage
from modelwire.errors import DigestMismatch, DiskUnwritable, Malformed, ModelWireError, NotUnderstood, TooLarge
from modelwire.identity import tensor_leaves
from modelwire.merkle import LEAF_BYTES, leaf
from modelwire.tensors import Held, TensorSpec
from modelwire.tflite.file import read_tensors
from modelwire.wire.commands import LEAVES_MAX, PIECE_MAX, Adopt, Leaf, Leaves, Take, task_of
from modelwire.wire.records import NOT_UNDERSTOOD, Command

from . import forgetting
from .answers import Answered
from .lineage import Lineage
from .taking import TRIES, Taking, most_bytes

_log = logging.getLogger("edgeagent.commands")


@dataclass(frozen=True, slots=True)
class Present:
    """What a command is held against, and what it may reach."""

    state: bytes  # of this state folder
    time: int  # the newest Unix seconds of the centre
    wall: int  # Unix seconds of this board, for what is written down
    spool: Spool
    interrupt: Callable[[], None]  # gives up the round under way: it stands on what is to be changed


def answer(lineage: Lineage, asked: Command, sealed: bytes, present: Present) -> Answered | None:
    """Return the answer to a command that the right key said: the one that it was given before, or what comes of it now.

    None: its update comes in parts, and `proceed` answers it when they are here; or it has overtaken the welcome to its epoch, and is
    answered when it comes again. sealed: the record that `asked` was parsed from.
    """
    given = lineage.answers.given(asked.number)
    if given is not None:
        return given
    taking, last = lineage.takings.current(), lineage.answers.last()
    if taking is not None and taking.command.number == asked.number:
        return proceed(lineage, present)  # under way; whether it still holds is looked at anew
    if asked.number < last:
        return Answered(asked.number, False, f"it came after command {last}, which has a higher number")  # and so it will the next time
    against = _against(lineage, asked, present)
    if against and asked.epoch and not lineage.head().epoch and asked.state == present.state and present.time <= asked.expiry:
        _log.info("%s: command %d is for epoch %d, of which nothing was heard yet; it comes again", lineage.name, asked.number, asked.epoch)
        return None  # whoever said it has granted that epoch
    if against:
        return _kept(lineage, Answered(asked.number, False, against))
    try:
        task = task_of(asked)
    except NotUnderstood:
        return _kept(lineage, Answered(asked.number, False, NOT_UNDERSTOOD))
    except (Malformed, TooLarge) as error:
        return _kept(lineage, Answered(asked.number, False, error.message))
    if isinstance(task, Take):
        return _take(lineage, asked, task, sealed, taking)
    if isinstance(task, Adopt):
        done = _adopt(lineage, asked, task, present)
    else:
        done = _read(lineage, asked, task) if isinstance(task, (Leaves, Leaf)) else _snapshot(lineage, asked, present)
    _log.log(logging.INFO if done.ok else logging.WARNING, "%s: command %d: %s", lineage.name, asked.number, done.text)
    return done


def proceed(lineage: Lineage, present: Present) -> Answered | None:
    """Carry out a command `take` whose parts are all here, or find that it holds no more. None: it goes on, or there is none."""
    taking = lineage.takings.current()
    if taking is None:
        return None
    asked = taking.command
    against = _against(lineage, asked, present)
    moved = None if against else _moved_on(lineage, asked)
    if against or moved:
        done = _kept(lineage, moved or Answered(asked.number, False, against))
    elif not taking.whole:
        return None
    else:
        try:
            update = forgetting.read_parts(lineage, asked, lineage.takings.join())
        except DigestMismatch as e:
            if taking.tries + 1 < TRIES:
                _log.warning("%s: command %d: %s; all parts are asked for again", lineage.name, asked.number, e.message)
                return None
            done = _kept(lineage, Answered(asked.number, False, f"{e.message}, {TRIES} times"))
        except DiskUnwritable:
            raise  # the command is as good as before
        except ModelWireError as e:
            done = _kept(lineage, Answered(asked.number, False, e.message[: forgetting.TEXT_MAX]))
        else:
            present.interrupt()
            done = forgetting.adopt(lineage, asked, update, None, 0, present.wall)
    lineage.takings.tidy()
    _log.log(logging.INFO if done.ok else logging.WARNING, "%s: command %d: %s", lineage.name, asked.number, done.text)
    return done


def _take(lineage: Lineage, asked: Command, task: Take, sealed: bytes, taking: Taking | None) -> Answered | None:
    """Note that an update is to come; nothing of it is kept before its command and its size hold."""
    if moved := _moved_on(lineage, asked):
        return _kept(lineage, moved)
    most = most_bytes(lineage.manifest)
    if task.size > most:
        text = f"its update has {task.size} bytes, and one of this model has at most {most}"
        return _kept(lineage, Answered(asked.number, False, text))
    if taking is not None:
        if asked.number < taking.command.number:
            return _kept(lineage, Answered(asked.number, False, f"command {taking.command.number} is under way, which has a higher number"))
        _kept(lineage, Answered(taking.command.number, False, f"command {asked.number} took its place"))
    lineage.takings.begin(sealed, asked.number)
    _log.info("%s: command %d: an update of %d bytes is to come in parts", lineage.name, asked.number, task.size)
    return None


def _against(lineage: Lineage, asked: Command, present: Present) -> str:
    """Return why a command does not hold here, or no more; empty when it does."""
    epoch = lineage.head().epoch
    if present.time > asked.expiry:
        return f"it expired at {asked.expiry}, and the centre's clock said {present.time}"
    if asked.state != present.state:
        return "it is for another state folder of this device"
    if asked.epoch != epoch:
        return f"it is for epoch {asked.epoch}, and this is epoch {epoch}"
    return "" if epoch else "the centre has granted no epoch yet"


def _snapshot(lineage: Lineage, asked: Command, present: Present) -> Answered:
    if moved := _moved_on(lineage, asked):
        return _kept(lineage, moved)
    try:
        version = lineage.snapshot(present.wall, note=f"asked for by command {asked.number}", command=asked.number)
    except TooLarge as e:
        return _kept(lineage, Answered(asked.number, False, e.message[: forgetting.TEXT_MAX]))
    return Answered(asked.number, True, f"snapshot @{version}")


def _adopt(lineage: Lineage, asked: Command, task: Adopt, present: Present) -> Answered:
    try:
        update, forgotten = forgetting.read(lineage, asked, task.update)
    except DiskUnwritable:
        raise
    except ModelWireError as e:
        return _kept(lineage, Answered(asked.number, False, e.message[: forgetting.TEXT_MAX]))
    dropped = forgetting.drop(lineage, present.spool, forgotten)
    present.interrupt()
    return forgetting.adopt(lineage, asked, update, forgotten, dropped, present.wall)


def _read(lineage: Lineage, asked: Command, task: Leaves | Leaf) -> Answered:
    return _leaf(lineage, asked, task) if isinstance(task, Leaf) else _leaves(lineage, asked, task)


def _leaf(lineage: Lineage, asked: Command, task: Leaf) -> Answered:
    """Answer with bytes of the leaf that has this digest: of the head, or of the model before it while that lies in the other slot.

    Good answers are not kept: they are long, nothing was changed, and asked again the same bytes are read again.
    """
    if moved := _moved_on(lineage, asked):
        return _kept(lineage, moved)
    schema = lineage.manifest.schema
    if task.tensor >= len(schema.tensors):
        return _kept(lineage, Answered(asked.number, False, f"it names none of {len(schema.tensors)} tensors"))
    spec, head = schema.tensors[task.tensor], lineage.head()
    data = _bytes_of(spec, lineage.load().state.weights[task.tensor], task)
    if data is None and (file := lineage.store.other_file(head.slot)) is not None:
        try:
            data = _bytes_of(spec, read_tensors(file)[1][task.tensor], task)
        except (ModelWireError, IndexError) as e:
            _log.warning("%s: command %d: the model before the head can't be read: %s", lineage.name, asked.number, e)
    if data is None:
        return _kept(lineage, Answered(asked.number, False, f"no model here has this leaf of tensor {task.tensor}"))
    if task.start >= len(data):
        return _kept(lineage, Answered(asked.number, False, f"the leaf has {len(data)} bytes"))
    piece = data[task.start : task.start + PIECE_MAX]
    return Answered(asked.number, True, f"{len(piece)} bytes of {len(data)}", {"bytes": piece, "of": len(data)})


def _bytes_of(spec: TensorSpec, weights: Held, task: Leaf) -> bytes | None:
    """Return the leaf of a tensor, when it is the one that is asked for."""
    entries = LEAF_BYTES // spec.dtype.width
    held = weights[task.leaf * entries : (task.leaf + 1) * entries] if task.leaf * entries < len(weights) else weights[:0]
    data = storage.to_bytes(spec.dtype, held)
    return data if data and leaf(data) == task.digest else None


def _leaves(lineage: Lineage, asked: Command, task: Leaves) -> Answered:
    """Answer with the digests of a tensor's leaves, from `first` on: by them the centre finds where two models are apart."""
    if moved := _moved_on(lineage, asked):
        return _kept(lineage, moved)
    tensor, first, schema = task.tensor, task.first, lineage.manifest.schema
    if tensor >= len(schema.tensors):
        return _kept(lineage, Answered(asked.number, False, f"it names none of {len(schema.tensors)} tensors"))
    leaves = tensor_leaves(schema.tensors[tensor], lineage.load().state.weights[tensor])
    if first and first >= len(leaves):
        return _kept(lineage, Answered(asked.number, False, f"tensor {tensor} has {len(leaves)} leaves"))
    part = leaves[first : first + LEAVES_MAX]
    text = f"{len(part)} leaves of {len(leaves)}"
    return _kept(lineage, Answered(asked.number, True, text, {"leaves": b"".join(part), "of": len(leaves)}))


def _moved_on(lineage: Lineage, asked: Command) -> Answered | None:
    head = lineage.head()
    if asked.parent in (b"", head.commit):
        return None
    lineage.plans.release()  # else the centre could not ask before it is time for what waits
    return Answered(asked.number, False, f"the head has moved on to @{head.version}; ask again")


def _kept(lineage: Lineage, answered: Answered) -> Answered:
    lineage.answers.keep(answered)
    return answered
