"""Files that survive a power cut: written beside, flushed to the disk, then renamed; and the lock on a state folder."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from modelwire.errors import BadArgument, MissingFile, StateBusy, TooLarge
from modelwire.limits import DEFAULT

from . import disk

_SECRET = re.compile("edge-(claim|[a-z]+-key):")  # what a private key or a token begins with
_SAID = "put it into a file of mode 600 and name that; whoever could see this command's words knows it now"
PASSWORD_MAX = 65_535  # bytes, as MQTT has them
_written = [0]  # bytes, by `write` in this process
TEMPORARY = ".part"  # what a kill in the middle of a write leaves; swept at the next start


def write(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True, beside: Path | None = None) -> None:
    """Put `data` at `path` so that a reader, or a power cut, sees the old file or the new one, never a mixture.

    mode: one that shuts all others out holds whatever the umask. replace: False refuses a name that is taken.
    beside: what it is called until it is whole; needed where two may write one file. Raises DiskUnwritable, OSError.
    """
    beside = beside or path.with_name(path.name + TEMPORARY)
    try:
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            if not mode & 0o077:
                os.fchmod(handle, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            _written[0] += len(data)
            os.fsync(handle)
        finally:
            os.close(handle)
        put_in_place(beside, path, replace=replace)
    except OSError as e:
        with suppress(OSError):
            beside.unlink()  # on a full disk the half of it takes room that others need
        if (full := disk.unwritable(e, path, len(data))) is not None:
            raise full from e
        raise OSError(e.errno, e.strerror, str(path)) from None


def written() -> int:
    """Return the bytes that `write` has written in this process, for a kernel that counts none."""
    return _written[0]


def write_named(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """Write a file, as `write` does, where a person wants it. Raises DiskUnwritable; BadArgument when that is no place for a file."""
    if not path.name or (path.exists() and not path.is_file()):
        # A rename would put a file in the place of a device such as /dev/null.
        raise BadArgument(reason=f"{path} is no file that could be written", fix="name a file")
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        write(path, data, mode=mode, replace=replace, beside=beside)
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be written: {error.strerror}", fix="name another place, or see who may write") from error
    finally:
        with suppress(OSError):
            beside.unlink()  # it is there after Ctrl-C alone


@contextmanager
def streamed(path: Path, *, mode: int = 0o600, replace: bool = True) -> Iterator[Path]:
    """Give the name of an empty file beside `path`, which takes its place when the block has ended well; nothing is left otherwise.

    For what is too long to be held in memory. Raises as `write_named`. replace: False refuses a name that is taken.
    """
    if not replace and (path.exists() or path.is_symlink()):
        raise BadArgument(reason=f"{path} is there already", fix="name another file, or say --force to replace it")
    if not path.name or (path.exists() and not path.is_file()):
        raise BadArgument(reason=f"{path} is no file that could be written", fix="name a file")
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        make_private_file(beside)
        beside.chmod(mode)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        put_in_place(beside, path, replace=replace)
    except OSError as error:
        if (full := disk.unwritable(error, path)) is not None:
            raise full from error
        raise BadArgument(reason=f"{path} can't be written: {error.strerror}", fix="name another place, or make room there") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def put_in_place(partial: Path, path: Path, *, replace: bool) -> None:
    """Give a whole file its final name, durably. Raises DiskUnwritable; BadArgument when the name is taken and may not be replaced."""
    with disk.named(path):
        if replace:
            partial.replace(path)
        else:
            try:
                os.link(partial, path)  # unlike a rename it never replaces
            except FileExistsError:
                raise BadArgument(reason=f"{path} is there already", fix="name another file, or remove it first") from None
            partial.unlink()
        flush_folder(path.parent)


def point(link: Path, target: str) -> None:
    """Make the symbolic link `link` lead to `target`, in one step."""
    if link.is_symlink() and os.readlink(link) == target:
        return
    beside = link.with_name(link.name + TEMPORARY)
    with disk.named(link):
        beside.unlink(missing_ok=True)
        os.symlink(target, beside)
        os.replace(beside, link)
        flush_folder(link.parent)


def share(source: Path, target: Path) -> None:
    """Give the file `source` a second name, `target`; a copy where the file system has no hard links."""
    beside = target.with_name(target.name + TEMPORARY)
    with disk.named(target):
        beside.unlink(missing_ok=True)
        try:
            os.link(source, beside)
        except OSError:
            write(target, source.read_bytes())
            return
        os.replace(beside, target)
        beside.unlink(missing_ok=True)  # renaming one hard link of a file over another of the same file does nothing at all
        flush_folder(target.parent)


class NotPrivateError(OSError):
    """A file with a secret is open to others, is no file, or holds none. `fix` is what to do."""

    def __init__(self, path: Path, reason: str, fix: str) -> None:
        super().__init__(None, reason, str(path))
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def read_private(path: Path, most: int, *, group: bool = False) -> bytes:
    """Return the first `most` bytes of a file that holds a secret. Raises NotPrivateError when others may look at it, or it is no file.

    group: as `read_secret`.
    """
    data, fault = read_secret(path, most, group=group)
    if fault is not None:
        raise fault
    return data


def read_secret(path: Path, most: int, *, group: bool = False) -> tuple[bytes, NotPrivateError | None]:
    """Return the first `most` bytes of a file, and what keeps them from being a secret, if anything does.

    group: root may have handed it to a service through its group, which reads and does not write (mode 440, or 640).
    Raises NotPrivateError for what is no regular file, and, without its name, for a secret that was given in the place of one.
    """
    if _SECRET.match(path.name):
        raise NotPrivateError(Path("what was given"), "is the secret itself, and a file's name is asked for", _SAID)
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe that nobody writes to would be waited for
    try:
        found = os.fstat(handle)
        mode = found.st_mode
        if not stat.S_ISREG(mode):
            raise NotPrivateError(path, "is no regular file", "name a file that holds the secret alone")
        fault = None
        handed = group and os.geteuid() != 0 == found.st_uid and found.st_gid in {os.getegid(), *os.getgroups()}
        if stat.S_IMODE(mode) & (0o037 if handed else 0o077):
            fault = NotPrivateError(path, f"may be read by others than its owner (mode {stat.S_IMODE(mode):o})", close_line(path))
        return os.read(handle, most), fault
    finally:
        os.close(handle)


def read_password(path: Path) -> str:
    """Return the password that a file of mode 600 holds alone, without the end of its line. Raises OSError, NotPrivateError."""
    data = read_private(path, PASSWORD_MAX + 1, group=True)
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:  # what it says would quote the password
        text = ""
    if not text or not text.isprintable() or len(data) > PASSWORD_MAX:
        raise NotPrivateError(path, "holds no password that could be sent", "write the password alone into it, in one line of text")
    return text


def require_closed(path: Path, most: int = 0o640) -> None:
    """Raise NotPrivateError when others may do more with a file than `most` lets them: a service's group may read its TLS key."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & ~most & 0o777:
        raise NotPrivateError(path, f"is open to others (mode {mode:o}, {most:o} is the most)", close_line(path))


def close_line(path: Path, mode: int = 0o600) -> str:
    """Return the line for a shell that shuts others out of a file."""
    import shlex  # for those who read it

    return f"chmod {mode:o} {shlex.quote(str(path))}"


def make_private_folder(path: Path) -> None:
    """Make a folder that its owner alone may look into, whatever the umask; one that is there stays as it is."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o700)


def make_private_file(path: Path) -> None:
    """Make an empty file that its owner alone may read, whatever the umask. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)


def open_regular(path: Path) -> BinaryIO:
    """Open a file that a person named. Raises OSError, for a pipe, which would be waited for, or a device without an end, too."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(mode := os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"it is a {_kind(mode)}, and a file is asked for", str(path))
    except OSError:
        os.close(handle)
        raise


def read_model_file(path: Path, what: str) -> bytes:
    """Return the bytes of a model's file that a person named. Raises MissingFile, TooLarge, BadArgument for what is no file to be read."""
    limit = DEFAULT.model_file
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            # Not read(limit): that sets the whole limit aside first, which a board of 512 MB does not have.
            data = file.read(size) if size <= limit else b""
    except FileNotFoundError:
        raise MissingFile(path=path, what=what) from None
    except OSError as error:
        raise BadArgument(reason=f"{path} can't be read: {error.strerror}", fix="name a .tflite file") from error
    if size > limit:
        raise TooLarge(what=str(path), size=size, limit=limit)
    return data


def require_regular(path: Path) -> None:
    """Raise OSError for what others would open by its name and is no regular file, as `open_regular` does."""
    open_regular(path).close()


def _kind(mode: int) -> str:
    known = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return next((name for is_one, name in known if is_one(mode)), "device")


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """Map a file for reading: what is looked at takes memory, not the whole."""
    with path.open("rb") as f:
        data = mmap(f.fileno(), 0, access=ACCESS_READ)
    view = memoryview(data)
    try:
        yield view
    finally:
        with suppress(BufferError):  # the frames of an error that is on its way may look into it still: it goes with them
            view.release()
            data.close()


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries: a rename is durable only then."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for as long as the block runs; a kill releases it. Raises StateBusy, DiskUnwritable.

    One that is there is held on a read-only file system, too: whoever waits for its disk is the one who waits.
    """
    with disk.named(path):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:
            if e.errno != errno.EROFS or not path.exists():
                raise
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StateBusy(path=path.parent) from None
    try:
        with suppress(OSError):  # the number is for people; a full disk must not keep a start from sweeping files away
            os.ftruncate(handle, os.pwrite(handle, f"{os.getpid()}\n".encode(), 0))  # in this order the room of an older one is kept
        yield
    finally:
        with suppress(OSError):
            os.ftruncate(handle, 0)
        os.close(handle)


def holder(path: Path) -> int | None:
    """Return the process that holds the lock file `path`, or None. For people: whoever needs to know takes the lock."""
    if (known := _locked_by(path)) is not None:
        return known  # the kernel's word: a full disk may have had no room for the number
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = os.read(handle, 20).strip()
        return int(pid) if pid.isdigit() and holds_locks(int(pid)) else None
    except OSError:
        return None
    finally:
        os.close(handle)


def _locked_by(path: Path) -> int | None:
    """Return the process that holds a lock file, as the kernel tells everyone who may see the file; None where it does not."""
    with suppress(OSError, ValueError, IndexError):
        found = path.stat()
        name = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5] == name and int(words[4]) > 0:
                return int(words[4])
    return None


def holds_locks(pid: int) -> bool:
    """Return whether this process is there and holds locks of files. Asked without the lock, which who just starts may want.

    A kill leaves its number behind, and after a restart of the machine another process may have it.
    """
    try:
        lines = [line.replace("-> ", "").split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        lines = []
    if not lines:  # it is not told here
        return _is_alive(pid)
    # N: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END. The file is not looked at: some file systems tell stat another one.
    return any(one[1:2] == ["FLOCK"] and one[4:5] == [str(pid)] for one in lines)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is alive and another user's
    return True
