"""Reads the names of classes that a file brings along in a zip behind the model, as TFLite's metadata tools append them.

The zip is hostile until it is read: what is looked at of it is bounded before it is opened, and what is unpacked while it is.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

ENTRIES, DIRECTORY, UNPACKED, LABELS = 64, 64 * 1024, 1 << 20, 65_536  # files, bytes of their list, bytes of all, lines of one
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as metadata tools write them; others may ask for gigabytes to be unpacked
_END = struct.Struct("<4s4H2LH")


def _opened(data: bytes) -> zipfile.ZipFile | None:
    """Return the zip at the end of the file, None where there is none or one larger than any that holds labels."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - (1 << 16) - _END.size))
    if at < 0 or at + _END.size > len(data):
        return None
    _, _, _, _, entries, directory, _, comment = _END.unpack_from(data, at)
    larger = data[max(0, at - 20) : at][:4] == b"PK\x06\x07"  # of the form with 64-bit sizes, which would take the place of these
    if larger or entries > ENTRIES or directory > DIRECTORY or at + _END.size + comment != len(data):
        return None
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error):
        return None


def without_zip(data: bytes) -> bytes:
    """Return the file without a zip that was appended to it."""
    archive = _opened(data)
    if archive is None or not archive.infolist():
        return data
    start = min(entry.header_offset for entry in archive.infolist())
    return data[:start] if start > 8 and data[start : start + 4] == b"PK\x03\x04" else data


def labels_of(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the lines of each text file in the zip behind a model, by the file's name."""
    archive = _opened(data)
    out: dict[str, tuple[str, ...]] = {}
    left = UNPACKED  # of all files together
    for entry in archive.infolist() if archive is not None else ():
        if not entry.filename.lower().endswith(".txt") or entry.flag_bits & 1 or entry.file_size > left:
            continue
        if entry.compress_type not in _PACKED:
            continue
        try:
            with archive.open(entry) as stream:  # type: ignore[union-attr]
                raw = stream.read(left + 1)
            left = max(0, left - len(raw))
            lines = raw.decode().splitlines()
        except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError, OSError, RuntimeError, struct.error):
            continue
        if 0 < len(lines) <= LABELS:
            out[entry.filename] = tuple(line.strip() for line in lines)
    return out
