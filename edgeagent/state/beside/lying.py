"""Whether the files of a base beside the served one are those that its row names. They are read by pieces: a base may be large."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgecommon import disk

from .rows import Lies, PlacedBase

PIECE = 1 << 20  # bytes


def fault(folder: Path, placed: PlacedBase) -> str:
    """Return what is wrong with the files of a base, mostly nothing. folder: the model's."""
    place = folder / placed.place
    files = [(place / "base.tflite", placed.parsed().file_sha256)]
    if placed.slot:
        files += [(place / placed.slot / "model.tflite", placed.file_sha256), (place / placed.slot / "private", placed.private_sha256)]
    for path, wanted in files:
        try:
            found = digest_of(path)
        except OSError as e:
            return f"{path}: {e.strerror}"
        if found != wanted:
            return f"{path}: its bytes are not those that the database names"
    return ""


def incomplete(folder: Path, placed: PlacedBase) -> bool:
    """Return whether a kill came between the row of a base and its file: it was never laid down, and is no damage."""
    return placed.lies is Lies.STAGED and not placed.slot and not (folder / placed.place / "base.tflite").exists()


def digest_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raises OSError, DiskUnwritable for a disk that fails."""
    digest = hashlib.sha256()
    with disk.named(path), path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.digest()
