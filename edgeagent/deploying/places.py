"""Where the base of a variant is laid down on this board: proven, in a folder of its own beside what is served, and let go of again.

The row is written first and the file renamed to its place then: a kill between the two leaves a row without a file, which the next start
drops, and the file where it was received; done again it comes to the same.
"""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from edgeagent.state.beside import lying
from edgeagent.state.beside.rows import BASES, Lies, PlacedBase
from edgeagent.state.lineage import Lineage
from edgecommon import disk, files
from modelwire.deploying.variants import Variant
from modelwire.errors import DigestMismatch, LineageError, ShapeMismatch, StateDamaged
from modelwire.tflite import file as tflite_file
from modelwire.tflite.graph import Contract
from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import Manifest, manifest_of

SPARE = 1 << 20  # bytes that stay free beside what a base takes: the database grows, too
_PRIVATE = 7  # bytes a weight, at most: residual, Q where it is kept, and a tensor's own
_NAMED = 12  # digits of a commit in the name of its folder


def found(lineage: Lineage, commit: bytes) -> PlacedBase | None:
    """Return the base with this commit that lies beside the served one, the one under way before the passive one; None where none does."""
    return next((placed for placed in lineage.beside.all() if placed.commit == commit), None)


def room_for(size: int, weights: int) -> int:
    """Return the bytes that one slot of a model takes: its file, and what is this board's own."""
    return size + _PRIVATE * weights + SPARE


def require_room(lineage: Lineage, needed: int) -> None:
    """Raise DiskUnwritable, which names the file system and what is free, where so many bytes have no room beside a model."""
    folder = lineage.store.folder
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < needed:
        raise disk.of(errno.ENOSPC, folder, needed)


def stage(lineage: Lineage, variant: Variant, received: Path, *, number: int, now: int) -> PlacedBase:
    """Lay down a variant's base, in the place of any other that is staged, and return it; `received` is no more then.

    received: the file as it came, on the disk of the state folder; it is not looked at where the base lies here already. number: of the
    desired; now: Unix seconds. Raises DigestMismatch for another file than the variant's, ShapeMismatch where samples don't fit it,
    NotTrainable, Malformed where it makes another manifest, LineageError for the base that the model is on, DiskUnwritable, StateDamaged
    for one that lay here and is not whole any more, where nothing was received: it is dropped.
    """
    if variant.commit == lineage.base_commit:
        raise LineageError(reason=f"{lineage.name} is on the base {variant.commit.hex()[:_NAMED]} already")
    under_way, passive = lineage.beside.under_way(), lineage.beside.passive()
    if under_way is not None and under_way.lies is Lies.SOAKING:
        raise LineageError(reason=f"the base {under_way.commit.hex()[:_NAMED]} is served on trial: it is taken back first")
    for known in (under_way, passive):
        if known is None or known.commit != variant.commit:
            continue
        if not (wrong := lying.fault(lineage.store.folder, known)):
            placed = PlacedBase(Lies.STAGED, number, known.commit, known.manifest, known.place, now)
            with lineage.outbox.transaction():
                lineage.beside.put(placed)
            free(lineage)
            return placed
        if not received.exists():
            with lineage.outbox.transaction():
                lineage.beside.drop(known)
            free(lineage)
            raise StateDamaged(path=lineage.store.folder / known.place, reason=f"it is let go of, and comes anew: {wrong}")
    manifest = prove(received, variant, like=_contract(lineage))
    require_room(lineage, room_for(variant.size, manifest.schema.size))
    placed = PlacedBase(Lies.STAGED, number, variant.commit, manifest.encode(), _place_for(lineage, variant.commit), now)
    folder = lineage.store.folder / placed.place
    with disk.named(folder):
        for path in (folder.parent, folder, folder / "a", folder / "b"):
            path.mkdir(mode=0o755, exist_ok=True)
        for path in (folder, folder.parent, folder.parent.parent):
            files.flush_folder(path)
        with received.open("rb") as file:
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
    with lineage.outbox.transaction():
        lineage.beside.put(placed)
    files.put_in_place(received, folder / "base.tflite", replace=True)
    free(lineage)
    return placed


def prove(received: Path, variant: Variant, *, like: Contract) -> Manifest:
    """Return the manifest that a received file makes, having proven that it is the variant's and that the samples fit it.

    The file is mapped: what is held is its weights, once. like: of the model's own file. Raises as `stage`.
    """
    what = f"the file of the variant {variant.name}"
    with disk.named(received):
        if received.stat().st_size != variant.size:
            raise DigestMismatch(what=what)
        with files.mapped(received) as data:
            digest = hashlib.sha256()
            for start in range(0, len(data), lying.PIECE):
                digest.update(data[start : start + lying.PIECE])
            if digest.digest() != variant.file:
                raise DigestMismatch(what=what)
            tflite_file.check_trainable(data, model=variant.model)
            notes_of(data, model=variant.model)
            _check_fits(variant.model, tflite_file.contract(data, model=variant.model), like)
            manifest = manifest_of(data, exact=variant.exact)
    variant.require_manifest(manifest)
    return manifest


def unstage(lineage: Lineage) -> None:
    """Let go of what is staged. Nothing happens where nothing is."""
    placed = lineage.beside.under_way()
    if placed is not None and placed.lies is Lies.STAGED:
        with lineage.outbox.transaction():
            lineage.beside.drop(placed)
    free(lineage)


def back(lineage: Lineage, commit: bytes, *, number: int, now: int) -> PlacedBase | None:
    """Stage the way back: the passive base as it lies, with the model that was served; no byte is copied. None where it is not there.

    A damaged one is dropped here. number: of the desired; now: Unix seconds.
    """
    passive, under_way = lineage.beside.passive(), lineage.beside.under_way()
    if under_way is not None and under_way.lies is Lies.SOAKING:
        raise LineageError(reason=f"the base {under_way.commit.hex()[:_NAMED]} is served on trial: it is taken back first")
    if passive is None or passive.commit != commit:
        return None
    if lying.fault(lineage.store.folder, passive):
        with lineage.outbox.transaction():
            lineage.beside.drop(passive)
        free(lineage)
        return None
    placed = replace(passive, lies=Lies.STAGED, number=number, at=now)
    with lineage.outbox.transaction():
        lineage.beside.put(placed)
    free(lineage)
    return placed


def free(lineage: Lineage) -> list[str]:
    """Remove the files of bases that nothing names any more, and return their names."""
    return lineage.store.sweep(lineage.named())


def _place_for(lineage: Lineage, commit: bytes) -> str:
    """Return the folder of a base: by the first digits of its commit, and by all of them where another one has those."""
    taken = {lineage.head().place: lineage.base_commit} | {placed.place: placed.commit for placed in lineage.beside.all()}
    short = f"{BASES}/{commit.hex()[:_NAMED]}"
    return short if taken.get(short, commit) == commit else f"{BASES}/{commit.hex()}"


def _contract(lineage: Lineage) -> Contract:
    with files.mapped(lineage.store.base_file) as data:
        return tflite_file.contract(data, model=lineage.name)


def _check_fits(model: str, got: Contract, expected: Contract) -> None:
    """Raise ShapeMismatch unless a file takes the samples that the model's own file takes."""
    said = [f"x {list(c.x_shape)}, y {list(c.y_shape)}{f', {c.codes.said}' if c.codes else ''}" for c in (expected, got)]
    if said[0] != said[1] or got.codes != expected.codes:
        raise ShapeMismatch(tensor=f"the samples of {model}", expected=said[0], got=said[1])
