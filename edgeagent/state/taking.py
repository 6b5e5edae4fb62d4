"""Takes in the update that a command `take` names, part by part: what is here survives a kill, and only what the tree proves is kept.

The command and which parts are here stand in the database, the parts themselves in one file beside the model. docs/protocol.md, "Commands".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from edgecommon import disk
from edgecommon.files import flush_folder
from edgecommon.sqlite import Database
from modelwire.errors import DigestMismatch
from modelwire.update.manifest import Manifest
from modelwire.wire import parts, records
from modelwire.wire.commands import TAKE_MAX, Take, task_of
from modelwire.wire.parts import Part
from modelwire.wire.records import Command, Transfer

FILE = "incoming"
TRIES = 3  # times that a whole file may be another than the one named: then its sender lies, or the disk does
_ROOM, _WEIGHT = 64 * 1024, 16  # bytes that an update may have, and more for each weight: no honest one comes near


@dataclass(frozen=True, slots=True)
class Taking:
    """A command whose update is on its way."""

    command: Command
    task: Take
    transfer: Transfer | None  # None: nobody has described it yet
    held: frozenset[int]  # parts
    tries: int  # times that all parts were here and the file was another

    @property
    def count(self) -> int:
        """How many parts there are; 0 before it is described."""
        return parts.count(self.transfer) if self.transfer is not None else 0

    @property
    def whole(self) -> bool:
        return self.transfer is not None and len(self.held) == self.count

    @property
    def have(self) -> bytes:
        """The parts that are here, as a `wanted` says it."""
        return parts.bitmap(set(self.held), self.count)

    @property
    def bytes(self) -> int:
        """How many bytes are here."""
        if self.transfer is None:
            return 0
        size, last = self.transfer.part_size, self.count - 1
        return sum(size if n < last else self.task.size - last * size for n in self.held)


def most_bytes(manifest: Manifest) -> int:
    """Return more bytes than any update of this model has that is worth taking."""
    return min(TAKE_MAX, _ROOM + _WEIGHT * manifest.schema.size)


class Takings:
    """What one model takes in: one update at a time."""

    def __init__(self, database: Database, model: str, folder: Path) -> None:
        self._db, self._model = database, model
        self.file = folder / FILE

    def current(self) -> Taking | None:
        """Return what is on its way; None when nothing is."""
        row = self._db.maybe("SELECT * FROM taking WHERE model=?", self._model)
        if row is None:
            return None
        command = records.expect(records.parse(row["command"]), Command)  # proven when it came
        task = task_of(command)
        assert isinstance(task, Take)  # as `begin` was given it
        transfer = records.expect(records.parse(row["transfer"]), Transfer) if row["transfer"] else None
        count = parts.count(transfer) if transfer is not None else 0
        held = set(range(count)) - set(parts.missing(row["have"], count)) if transfer is not None else set()
        return Taking(command, task, transfer, frozenset(held), row["tries"])

    def begin(self, sealed: bytes, number: int) -> None:
        """Note a command whose update is to come, in the place of any other. sealed: the record, as it came and was proven."""
        self._remove()
        with self._db.transaction():
            self._db.run("DELETE FROM taking WHERE model=?", self._model)
            self._db.insert("taking", model=self._model, number=number, command=sealed)

    def describe(self, transfer: Transfer, record: bytes) -> bool:
        """Note how the update that is to come is cut, and return whether it is that one's. Raises WireError for what it can't be.

        The newest word counts: where it is another one, the parts of the older cut go. record: what `transfer` was parsed from.
        """
        taking = self.current()
        if taking is None or transfer.id != taking.task.id:
            return False
        taking.task.check(transfer)
        count, known = parts.count(transfer), taking.transfer
        if known is None or (known.part_size, known.tree) != (transfer.part_size, transfer.tree):
            have = bytes(-(-count // 8))
            self._db.run("UPDATE taking SET transfer=?, have=? WHERE model=?", record, have, self._model)
        return True

    def keep(self, part: Part) -> bool:
        """Keep a part, down to the disk, and return whether it is news. Raises WireError for one that the tree does not prove."""
        taking = self.current()
        if taking is None or taking.transfer is None or part.id != taking.task.id or part.index in taking.held:
            return False
        parts.check(taking.transfer, part)
        with disk.named(self.file, len(part.data)):
            self._write(memoryview(part.data), part.index * taking.transfer.part_size)
            if not taking.held:
                flush_folder(self.file.parent)
        have = parts.bitmap({*taking.held, part.index}, taking.count)
        self._db.run("UPDATE taking SET have=? WHERE model=?", have, self._model)
        return True

    def join(self) -> bytes:
        """Return the update, whose parts are all here. Raises DigestMismatch for another than the one named: all of it is gone then."""
        taking = self.current()
        assert taking is not None and taking.whole, "asked for before all parts were here"
        data = b""
        with contextlib.suppress(FileNotFoundError):
            data = self.file.read_bytes()[: taking.task.size]
        if hashlib.sha256(data).digest() == taking.task.id:
            return data
        self._db.run("UPDATE taking SET transfer=x'', have=x'', tries=tries+1 WHERE model=?", self._model)
        self._remove()
        raise DigestMismatch(what="the update that came in parts")

    def _write(self, view: memoryview, at: int) -> None:
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while view:
                done = os.pwrite(descriptor, view, at)
                view, at = view[done:], at + done
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove(self) -> None:
        with disk.named(self.file):
            self.file.unlink(missing_ok=True)

    def tidy(self) -> list[str]:
        """Remove the bytes of an update whose command was answered, and return what is gone."""
        if not self.file.exists() or self._db.maybe("SELECT 1 FROM taking WHERE model=?", self._model) is not None:
            return []
        self._remove()
        return [FILE]
