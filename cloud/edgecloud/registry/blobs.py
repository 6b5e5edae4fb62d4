"""The BlobStore seam: bytes by their SHA-256, write-once. In the database for what is small, files for what is large."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgecommon import disk
from edgecommon.files import flush_folder, make_private_folder, write
from edgecommon.sqlite import Database
from modelwire.errors import BadArgument, DigestMismatch, Malformed, MissingFile, RegistryDamaged
from modelwire.limits import Limits

from . import mapping

if TYPE_CHECKING:
    from modelwire.update.container import Container

PARTIAL = ".partial"
BACK = "edgecloud restore BACKUP"  # the path of an error here is of one file, and not of the registry


class BlobStore(Protocol):
    """Content-addressed bytes. What `put` has returned from is durable when the transaction around it is."""

    def put(self, data: bytes) -> bytes:
        """Keep `data` and return its digest. Keeping the same bytes again changes nothing."""

    def get(self, digest: bytes) -> bytes:
        """Return the bytes. Raises RegistryDamaged when they are gone or are not what the digest says."""

    def piece(self, digest: bytes, start: int, size: int) -> bytes:
        """Return some of the bytes, unproven: whoever asks has another proof of them. Raises RegistryDamaged when they are gone."""

    def container(self, digest: bytes, limit: Limits) -> Container:
        """Return the container that is kept there. Its own digest is proven; its stream may be read later, from a file.

        Raises RegistryDamaged when it is gone, and what `parse` raises.
        """

    def has(self, digest: bytes) -> bool: ...

    def digests(self) -> Iterator[bytes]: ...

    def drop(self, digest: bytes) -> None:
        """Forget bytes that nobody needs; nothing happens where they are gone. Raises LineageError for what is not on the list of those."""


class DatabaseBlobs:
    """Bytes in the registry's own file: one commit covers them and their row. Best below a megabyte (6 to 14 times files)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).digest()
        self._database.run("INSERT INTO blob (sha256, size, bytes) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", digest, len(data), data)
        return digest

    def get(self, digest: bytes) -> bytes:
        data = self.find(digest)
        if data is None:
            raise _gone(digest, self._database.path)
        return data

    def find(self, digest: bytes) -> bytes | None:
        """Return the bytes, None where they are not. Raises RegistryDamaged when they are not what the digest says."""
        row = self._database.maybe("SELECT bytes FROM blob WHERE sha256 = ?", digest)
        return None if row is None else _proven(digest, bytes(row[0]), self._database.path)

    def piece(self, digest: bytes, start: int, size: int) -> bytes:
        row = self._database.maybe("SELECT rowid FROM blob WHERE sha256 = ?", digest)
        if row is None:
            raise _gone(digest, self._database.path)
        return self._database.piece("blob", "bytes", int(row[0]), start, size)

    def container(self, digest: bytes, limit: Limits) -> Container:
        return _parse(self.get(digest), limit)

    def has(self, digest: bytes) -> bool:
        return self._database.maybe("SELECT 1 FROM blob WHERE sha256 = ?", digest) is not None

    def digests(self) -> Iterator[bytes]:
        for (digest,) in self._database.all("SELECT sha256 FROM blob ORDER BY sha256"):
            yield bytes(digest)

    def drop(self, digest: bytes) -> None:
        self._database.run("DELETE FROM blob WHERE sha256 = ?", digest)


_PIECE = 1 << 20  # bytes that are compared at once


def _holds(path: Path, data: bytes) -> bool:
    """Return whether a file holds these bytes. What a disk has lost or changed under its name is written anew by who has it."""
    whole = memoryview(data)
    try:
        with path.open("rb") as file:
            return all(file.read(_PIECE) == whole[at : at + _PIECE] for at in range(0, len(data), _PIECE)) and not file.read(1)
    except OSError:
        return False


class FileBlobs:
    """Bytes as files named by their digest. A file has its name only when it is whole and on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).digest()
        path = self._path(digest)
        try:
            for folder in (self.folder, path.parent):
                make_private_folder(folder)
            if not _holds(path, data):
                write(path, data, mode=0o600, beside=path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"))
            # Also when it was there: whoever wrote it may have been killed before this line.
            for folder in (path.parent, self.folder, self.folder.parent):
                flush_folder(folder)
        except OSError as error:
            # The place is at fault, never the message that brought the bytes.
            if (full := disk.unwritable(error, path, len(data))) is not None:
                raise full from error
            raise BadArgument(reason=f"{path} can't be written: {error.strerror}", fix="check who may write there") from error
        return digest

    def get(self, digest: bytes) -> bytes:
        path = self._path(digest)
        try:
            return _proven(digest, path.read_bytes(), path)
        except FileNotFoundError:
            return _proven(digest, None, path)
        except OSError as error:
            raise _unreadable(path, error) from error

    def piece(self, digest: bytes, start: int, size: int) -> bytes:
        path = self._path(digest)
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:
            raise _gone(digest, path) from None
        except OSError as error:
            raise _unreadable(path, error) from error

    def container(self, digest: bytes, limit: Limits) -> Container:
        path = self._path(digest)
        try:
            return mapping.open_container(path, limit)
        except MissingFile:
            raise _gone(digest, path) from None
        except (Malformed, DigestMismatch) as error:
            raise RegistryDamaged(path=path, reason=f"the bytes {digest.hex()[:16]} have changed: {error.message}", fix=BACK) from None

    def has(self, digest: bytes) -> bool:
        return self._path(digest).exists()

    def digests(self) -> Iterator[bytes]:
        for path in sorted(self.folder.glob("??/*")):
            if not path.name.endswith(PARTIAL):
                yield bytes.fromhex(path.name)

    def drop(self, digest: bytes) -> None:
        path = self._path(digest)
        try:
            path.unlink()
            flush_folder(path.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadArgument(reason=f"{path} can't be removed: {error.strerror}", fix="check who may write there") from error

    def remove(self, digest: bytes) -> None:
        """Let bytes go: of derived data alone. What is gone already stays so."""
        self._path(digest).unlink(missing_ok=True)

    def sweep(self, before: float) -> int:
        """Remove what a killed writer left half written before this time (Unix seconds), and return how many files that were."""
        strays = [p for p in self.folder.glob(f"??/*{PARTIAL}") if p.stat().st_mtime < before]
        for path in strays:
            path.unlink()
        return len(strays)

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / name[:2] / name


class TieredBlobs:
    """Bytes in the database below `files_from` bytes, in files from there on."""

    def __init__(self, database: DatabaseBlobs, files: FileBlobs, files_from: int) -> None:
        self.database, self.files, self._files_from = database, files, files_from

    def put(self, data: bytes) -> bytes:
        return (self.files if len(data) >= self._files_from else self.database).put(data)

    def get(self, digest: bytes) -> bytes:
        # A restored registry has everything in the database, whatever its size.
        return (self.database if self.database.has(digest) else self.files).get(digest)

    def piece(self, digest: bytes, start: int, size: int) -> bytes:
        return (self.database if self.database.has(digest) else self.files).piece(digest, start, size)

    def container(self, digest: bytes, limit: Limits) -> Container:
        # Each rebuild of a small update asks for one: once, then, and not first whether it is there.
        data = self.database.find(digest)
        return self.files.container(digest, limit) if data is None else _parse(data, limit)

    def has(self, digest: bytes) -> bool:
        return self.database.has(digest) or self.files.has(digest)

    def digests(self) -> Iterator[bytes]:
        yield from sorted({*self.database.digests(), *self.files.digests()})

    def drop(self, digest: bytes) -> None:
        self.database.drop(digest)
        self.files.drop(digest)


def _parse(data: bytes, limit: Limits) -> Container:
    from modelwire.update.container import parse  # who reads rows alone does without it, and without numpy

    return parse(data, limit)


def _proven(digest: bytes, data: bytes | None, where: Path) -> bytes:
    if data is None:
        raise _gone(digest, where)
    if hashlib.sha256(data).digest() != digest:
        raise RegistryDamaged(path=where, reason=f"the bytes {digest.hex()[:16]} have changed", fix=BACK)
    return data


def _unreadable(path: Path, error: OSError) -> BadArgument:
    return BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="check who may read it")


def _gone(digest: bytes, where: Path) -> RegistryDamaged:
    return RegistryDamaged(path=where, reason=f"the bytes {digest.hex()[:16]} are gone", fix=BACK)
