"""The models on this device: base, two slots written in turn, the served file, and the last versions for those who want them.

A slot holds a whole model.tflite and the device's private part (units and residual). The inactive slot is written and flushed
first; one database transaction then moves the head to it; `served.tflite` follows. At start the database decides.

Base and slots lie in a *place*: the model's own folder, or one under `bases/` for each base that was deployed later. What is one for the
model, whatever base it is on, stays in its folder: the served file, the history, the journal of a round.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecommon import disk, files
from modelwire.errors import Malformed, StateDamaged
from modelwire.lattice.candidates import Residual
from modelwire.lattice.state import ModelState
from modelwire.tensors import I32
from modelwire.tflite.file import read_weights, write_weights
from modelwire.update.manifest import Manifest

from .beside.rows import BASES, FIRST

SLOTS = ("a", "b")
MODELS = "models"  # the part of what the agent writes that slots are
SENT = 64  # commits that are remembered beside the database; a disk that loses its last words loses no more
_MAGIC = b"\x89EAR\r\n\x1a\n"
_HEAD = struct.Struct("<8sI")  # magic, tensors
_SERVED = re.compile(rf"({BASES}/[^/]+/)?[{''.join(SLOTS)}]/model\.tflite")  # where the link to the served file may lead


@dataclass(frozen=True, slots=True)
class Written:
    """A slot whose files are on the disk, not yet the head's."""

    slot: str
    file_sha256: bytes
    private_sha256: bytes


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model as it was read from its slot."""

    state: ModelState
    residual: Residual
    file: bytes


class ModelStore:
    """The files of one model, on the base that lies at one place."""

    def __init__(self, folder: Path, manifest: Manifest, place: str = FIRST) -> None:
        """folder: the model's; place: of the base and its slots, relative to it."""
        self.folder, self.manifest, self.place = folder, manifest, place

    @classmethod
    def create(cls, folder: Path, base: bytes, manifest: Manifest, residual: Residual) -> tuple[ModelStore, Written]:
        """Make the folder of a new model, with the base in its first slot."""
        made = cls(folder, manifest)
        with disk.named(folder):
            for part in (folder, *(folder / s for s in SLOTS)):
                part.mkdir(mode=0o755)
        files.write(folder / "base.tflite", base)
        blank = [np.zeros(manifest.schema.tensors[t].size, np.int32) for t in manifest.kept]
        written = made._write(SLOTS[0], base, pack(manifest.exponents, residual, blank))
        files.point(folder / "served.tflite", f"{SLOTS[0]}/model.tflite")
        return made, written

    def at(self, place: str, manifest: Manifest) -> ModelStore:
        """Return the files of the same model on another base."""
        return ModelStore(self.folder, manifest, place)

    def slot(self, name: str) -> Path:
        """Return the folder of a slot."""
        return self.folder / self.place / name

    @property
    def base_file(self) -> Path:
        return self.folder / self.place / "base.tflite"

    @property
    def served(self) -> Path:
        """The file that the application opens; it changes to another whole file at once."""
        return self.folder / "served.tflite"

    def base(self) -> bytes:
        """Return the base's file. Raises StateDamaged."""
        return self._read(self.base_file, self.manifest.file_sha256)

    def load(self, slot: str, file_sha256: bytes, private_sha256: bytes) -> StoredModel:
        """Return the model of `slot`, proven against the digests that the database holds. Raises StateDamaged."""
        path = self.slot(slot)
        file = self._read(path / "model.tflite", file_sha256)
        private = self._read(path / "private", private_sha256)
        schema = self.manifest.schema
        try:
            exponents, residual, integers = unpack(private, self.manifest)
            base, now = schema.flat(read_weights(self.base())), schema.flat(read_weights(file))
            state = ModelState.of_weights(self.manifest, base, now, exponents, integers)
        except Malformed as e:
            raise StateDamaged(path=path, reason=e.message) from None
        return StoredModel(state, residual, file)

    def other_file(self, active: str) -> bytes | None:
        """Return the model that lies in the slot that is not `active`: the one before the head, until a restart. None: there is none.

        Nothing has looked at its bytes.
        """
        try:
            return (self.slot(SLOTS[1 - SLOTS.index(active)]) / "model.tflite").read_bytes()
        except OSError:
            return None

    def write(self, active: str, state: ModelState, residual: Residual) -> Written:
        """Write the slot that is not `active`, down to the disk. The head does not change."""
        return self._write(SLOTS[1 - SLOTS.index(active)], *self.contents(state, residual))

    def contents(self, state: ModelState, residual: Residual) -> tuple[bytes, bytes]:
        """Return a slot's two files, (model, private part)."""
        file = write_weights(self.base(), state.named())
        return file, pack(state.exponents, residual, [state.integers[t] for t in self.manifest.kept])

    def lead(self, slot: str) -> None:
        """Let `served.tflite` lead to `slot` of this place."""
        files.point(self.served, str(Path(self.place) / slot / "model.tflite"))

    def keep(self, slot: str, version: int, history: int) -> None:
        """Keep the file of `slot` as `version` where history is kept, and let go of what is older. Done again at each start."""
        past = self.folder / "history"
        if history:
            with disk.named(past):
                past.mkdir(mode=0o755, exist_ok=True)
            if not (past / f"{version}.tflite").exists():
                files.share(self.slot(slot) / "model.tflite", past / f"{version}.tflite")
        if past.is_dir():
            numbered = sorted((p for p in past.iterdir() if p.stem.isdigit()), key=lambda p: int(p.stem))
            for path in numbered[: max(0, len(numbered) - history)]:
                with disk.named(path):
                    path.unlink()

    def mend_served(self) -> str:
        """Make room for the link to the served model where another thing stands in its place; return what was wrong, mostly nothing.

        A link to a slot is none: a kill may have come before it followed the head.
        """
        if self.served.is_symlink():
            target = os.readlink(self.served)
            return "" if _SERVED.fullmatch(target) else f"{self.served} led to {target!r}; the link was made anew"
        if not os.path.lexists(self.served):
            return f"{self.served} was not there; the link was made anew"
        aside = self.served.with_name(f"{self.served.name}.aside")
        for number in range(2, 1000):
            if not os.path.lexists(aside):
                break
            aside = self.served.with_name(f"{self.served.name}.aside{number}")
        with disk.named(self.served):
            os.rename(self.served, aside)
        return f"{self.served} was no link; what stood there is {aside.name} now, and the link was made anew"

    def note_sent(self, commit: bytes) -> None:
        """Keep the commit of an update that is about to leave, with those before it.

        A disk that lies about what it wrote may lose the last words of the database; then these tell that the folder is no copy.
        """
        with suppress(OSError):  # where there is no room for them, there is one memory instead of two
            last = [one for one in self._sent() if one != commit][-(SENT - 1) :]
            files.write(self.folder / "sent", b"".join([*last, commit]))

    def sent(self) -> frozenset[bytes]:
        """Return the commits that left last."""
        return frozenset(self._sent())

    def last_sent(self) -> bytes:
        """Return the commit that left last; empty where none did, or none is remembered."""
        return next(reversed(self._sent()), b"")

    def _sent(self) -> list[bytes]:
        try:
            with (self.folder / "sent").open("rb") as file:
                data = file.read(SENT * 32)
        except OSError:
            return []
        return [data[i : i + 32] for i in range(0, len(data) // 32 * 32, 32)]

    def tidy(self, named: Mapping[str, Set[str]]) -> list[str]:
        """Remove what nothing leads to, and return its names. named: the slots that are in use, by place; no other place is.

        That are the other slots' files, bases that no row names, and what a kill left half-written. An empty slot stays where its base
        does, and is made anew: programs that copy folders leave empty ones out.
        """
        for place in named:
            for slot in SLOTS:
                with disk.named(folder := self.folder / place / slot):
                    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        gone = self.sweep(named)
        idle = {self.folder / place / slot for place, used in named.items() for slot in SLOTS if slot not in used}
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = Path(root) / name
                stray = path.parent in idle
                if stray or name.endswith(files.TEMPORARY):
                    with disk.named(path):
                        path.unlink()
                    gone.append(str(path.relative_to(self.folder)))
        return sorted(gone)

    def empty(self, used: Set[str]) -> None:
        """Remove the files of the slots of this place that are not in use."""
        for slot in set(SLOTS) - set(used):
            for path in (self.slot(slot) / "model.tflite", self.slot(slot) / "private"):
                with disk.named(path):
                    path.unlink(missing_ok=True)

    def sweep(self, places: Iterable[str]) -> list[str]:
        """Remove the bases that lie at no place of these, with their slots, and return the names of the files."""
        gone, kept, bases = list[str](), set(places), self.folder / BASES
        left = [folder for folder in sorted(bases.iterdir()) if f"{BASES}/{folder.name}" not in kept] if bases.is_dir() else []
        if FIRST not in kept:
            left += [self.folder / name for name in (*SLOTS, "base.tflite") if os.path.lexists(self.folder / name)]
        for one in left:
            for path in (*sorted(one.rglob("*"), reverse=True), one) if one.is_dir() and not one.is_symlink() else (one,):
                with disk.named(path):
                    if path.is_dir() and not path.is_symlink():
                        path.rmdir()
                        continue
                    path.unlink()
                gone.append(str(path.relative_to(self.folder)))
        if bases.is_dir() and not any(bases.iterdir()):
            with disk.named(bases):
                bases.rmdir()
        return gone

    def _write(self, slot: str, file: bytes, private: bytes) -> Written:
        with disk.writing(MODELS):
            files.write(self.slot(slot) / "model.tflite", file)
            files.write(self.slot(slot) / "private", private, mode=0o600)
        return Written(slot, hashlib.sha256(file).digest(), hashlib.sha256(private).digest())

    def _read(self, path: Path, sha256: bytes) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as e:
            raise disk.unwritable(e, path) or StateDamaged(path=path, reason=e.strerror) from None
        if hashlib.sha256(data).digest() != sha256:
            raise StateDamaged(path=path, reason="its bytes are not those that the database names")
        return data


def pack(exponents: Sequence[int], residual: Residual, integers: Sequence[I32] = ()) -> bytes:
    """Return the private part of a model: a unit's exponent and a residual a tensor, and Q of those where it has to be kept."""
    parts = [_HEAD.pack(_MAGIC, len(residual)), struct.pack(f"<{len(exponents)}b", *exponents)]
    parts += [r.astype("<u2", copy=False).tobytes() for r in residual]
    return b"".join([*parts, *(q.astype("<i4", copy=False).tobytes() for q in integers)])


def unpack(data: bytes, manifest: Manifest) -> tuple[list[int], Residual, dict[int, I32]]:
    """Return (exponents, residual, Q by tensor). Raises Malformed unless `data` is the private part of a model with this manifest."""
    tensors = manifest.schema.tensors
    sizes = [s.size if manifest.lattice(t) else 0 for t, s in enumerate(tensors)]
    n = len(sizes)
    whole = _HEAD.size + n + 2 * sum(sizes) + 4 * sum(sizes[t] for t in manifest.kept)
    if len(data) != whole or _HEAD.unpack_from(data) != (_MAGIC, n):
        raise Malformed(what="private part", reason="it is not one of this model")
    exponents = list(struct.unpack_from(f"<{n}b", data, _HEAD.size))
    offset, residual, integers = _HEAD.size + n, [], {}
    for size in sizes:
        residual.append(np.frombuffer(data, "<u2", size, offset).astype(np.uint16))
        offset += 2 * size
    for t in manifest.kept:
        integers[t] = np.frombuffer(data, "<i4", sizes[t], offset).astype(np.int32)
        offset += 4 * sizes[t]
    return exponents, residual, integers
