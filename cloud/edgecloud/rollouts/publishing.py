"""A variant's file for any web server: the file by its digest, and the list of its leaves, which proves each piece that a board fetches."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgecommon.files import write_named
from modelwire import merkle
from modelwire.errors import BadArgument


def publish(file: bytes, folder: Path) -> list[Path]:
    """Write FILE.tflite and FILE.leaves into a folder, each whole or not at all, and return where they are. FILE: SHA-256 in hex.

    The leaves come first: who finds the file finds them. Raises BadArgument or DiskUnwritable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArgument(reason=f"{folder} is no folder: {error.strerror}", fix="name a folder that a web server serves") from error
    name = hashlib.sha256(file).hexdigest()
    written = [folder / f"{name}.leaves", folder / f"{name}.tflite"]
    write_named(written[0], b"".join(merkle.leaves(file, merkle.LEAF_BYTES)))
    write_named(written[1], file)
    return written
