"""Backups that only the holder of a key can read: in the format of age (age-encryption.org/v1), by the package `pyrage`, in a stream.

A copy of a registry can't be written in a stream: it is made whole beside the registry, where no more than the registry is to be seen, and
goes to its place encrypted. The same way back, the other way round.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecommon.files import NotPrivateError, open_regular, put_in_place, read_private
from modelwire.errors import BadArgument, DigestMismatch, MissingFile

from .backup import Progress, backup, restore

MAGIC = b"age-encryption.org/v1\n"
PUBLIC, PRIVATE = "age1", "AGE-SECRET-KEY-1"  # how the keys begin
_KEY_MAX = 64 * 1024
_FIX = "edgecloud keys backup makes a pair"


def made_backup_key() -> tuple[str, str]:
    """Return a new private key and its public key, as lines of text."""
    made = _age().x25519.Identity.generate()
    return str(made), str(made.to_public())


def is_encrypted(path: Path) -> bool:
    """Return whether a file is a backup that a key opens."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_recipients(said: Sequence[str]) -> list[object]:
    """Return whom a backup is for: public keys, or files with public keys in lines. Raises BadArgument for what is none."""
    age, out = _age(), []
    for one in said:
        lines = [one]
        if not one.startswith(PUBLIC):
            try:
                with open_regular(Path(one)) as file:
                    lines = file.read(_KEY_MAX).decode("ascii", errors="replace").split("\n")
            except OSError as error:
                fix = "write age1..., or name a file with such lines; edgecloud keys backup makes a pair"
                raise BadArgument(reason=f"--encrypt-to: {one!r} is no public key, and as a file: {error.strerror}", fix=fix) from None
        found = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        for line in found:
            if line.upper().startswith(PRIVATE):
                raise BadArgument(reason=f"--encrypt-to: {one} holds a private key", fix="a backup needs the public one alone: age1...")
            try:
                out.append(age.x25519.Recipient.from_str(line))
            except age.RecipientError:
                raise BadArgument(reason=f"--encrypt-to: {line[:80]!r} is no public key", fix=_FIX) from None
        if not found:
            raise BadArgument(reason=f"--encrypt-to: {one} holds no public key", fix=_FIX)
    return out


def read_identities(path: Path) -> list[object]:
    """Return the private keys in a file, that its owner alone may read. Raises BadArgument or MissingFile."""
    age = _age()
    try:
        text = read_private(path, _KEY_MAX).decode("ascii", errors="replace")
    except FileNotFoundError:
        raise MissingFile(path=path, what="the key of the backup") from None
    except NotPrivateError as error:
        raise BadArgument(reason=str(error), fix=error.fix) from None
    except OSError as error:
        raise BadArgument(reason=f"{path}: {error.strerror}", fix=f"check who owns it: ls -l {path}") from None
    lines = [line.strip() for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]
    try:
        out = [age.x25519.Identity.from_str(line) for line in lines]
    except age.IdentityError:  # what it says would quote the key
        out = []
    if not out:
        raise BadArgument(reason=f"{path} holds no key of backups", fix="it is what edgecloud keys backup wrote: AGE-SECRET-KEY-1...")
    return out


def backup_encrypted(source: Path, target: Path, recipients: Sequence[object], *, progress: Progress, replace: bool = False) -> int:
    """Write a registry into one file that the holders of the recipients' private keys can read, and return its size in bytes.

    Raises as `backup`.
    """
    if target.exists() and (not replace or (source.exists() and target.samefile(source))):
        raise BadArgument(reason=f"{target} is there already", fix="name another file, or say --force to replace a backup")
    with _beside(source.resolve(), "copy") as plain, _beside(target, "partial") as partial:
        backup(source, plain, progress=progress)
        with plain.open("rb") as clear, _private(partial) as sealed:
            _age().encrypt_io(clear, sealed, list(recipients))
            sealed.flush()
            os.fsync(sealed.fileno())
        size = partial.stat().st_size
        put_in_place(partial, target, replace=replace)
        return size


def restore_encrypted(
    source: Path, target: Path, identities: Sequence[object], *, progress: Progress, replace: bool = False,
    prepare: Callable[[Path], None] = lambda copy: None,
) -> Path | None:  # fmt: skip
    """Put an encrypted copy in the place of a registry, as `restore` does, once all of it was read and proven.

    Raises DigestMismatch for one that was damaged, cut or changed, BadArgument for one that no key of these opens: nothing is changed then.
    """
    if not source.exists():
        raise MissingFile(path=source, what="the copy")
    if target.exists() and not replace:
        raise BadArgument(reason=f"{target} is there already", fix="name another file, or say --force to replace it")
    with _beside(target.resolve(), "opened") as plain:
        decrypt(source, plain, identities)
        return restore(plain, target, progress=progress, replace=replace, prepare=prepare)


def decrypt(source: Path, plain: Path, identities: Sequence[object]) -> None:
    """Write what an encrypted backup holds into a new file. Raises as `restore_encrypted`; then the file is not to be used."""
    age = _age()
    with source.open("rb") as sealed, _private(plain) as clear:
        watched = _Watched(clear)
        try:
            age.decrypt_io(sealed, watched, list(identities))
        except age.DecryptError as error:
            if "No matching keys" in str(error):
                fix = "name the key that it was encrypted to with --backup-key"
                raise BadArgument(reason=f"{source}: none of the keys given opens this backup", fix=fix) from None
            raise DigestMismatch(what=f"the backup {source}") from None
        except OSError:
            if watched.failed is not None:
                raise watched.failed from None
            raise DigestMismatch(what=f"the backup {source}") from None
        clear.flush()
        os.fsync(clear.fileno())


class _Watched:
    """A file that remembers its own fault: a full disk is not a damaged backup."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return int(self._file.write(data))
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


@contextmanager
def _beside(path: Path, end: str) -> Iterator[Path]:
    """Give a name for a file beside another one, that is gone afterwards."""
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}.{end}")
    try:
        yield made
    finally:
        for extra in ("", "-wal", "-shm", "-journal"):
            made.with_name(made.name + extra).unlink(missing_ok=True)


def _age() -> ModuleType:
    try:
        return import_module("pyrage")
    except ImportError:
        raise BadArgument(reason="encrypted backups need the package pyrage", fix="pip install 'edgeagent[backup]'") from None
