"""The initrd: busybox, the modules that mount a card, and the scripts that choose a system. Made here, with nothing of the board run."""

from __future__ import annotations

import gzip
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDERS = ("bin", "dev", "m", "proc", "root", "run", "sys")
ONBOARD = Path(__file__).parent / "onboard"


def build(kernel: Path, version: str, modules: Iterable[str], epoch: int) -> bytes:
    """Return a gzipped cpio. kernel: a folder with bin/busybox and lib/modules/VERSION, its modules.dep made. The same bytes each time."""
    found = ordered(kernel / "lib/modules" / version, modules)
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(FOLDERS, (stat.S_IFDIR | 0o755, b""))
    files["bin/busybox"] = (stat.S_IFREG | 0o755, (kernel / "bin/busybox").read_bytes())
    files["init"] = (stat.S_IFREG | 0o755, (ONBOARD / "init").read_bytes())
    for name in ("slots.sh", "mounting.sh"):
        files[name] = (stat.S_IFREG | 0o644, (ONBOARD / name).read_bytes())
    for n, path in enumerate(found):
        files[f"m/{n:02}-{path.name}"] = (stat.S_IFREG | 0o644, path.read_bytes())
    return gzip.compress(b"".join(_cpio(files, epoch)), 9, mtime=0)


def ordered(folder: Path, modules: Iterable[str]) -> list[Path]:
    """Return the files of modules and of what they need, in the order in which they are loaded. Raises LookupError for an unknown one."""
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[_plain(path)] = (path, rest.split())
    built_in = {_plain(line) for line in (folder / "modules.builtin").read_text().split()}
    out: list[Path] = []

    def add(name: str) -> None:
        path, before = needs[name]
        # modules.dep lists what is needed last first; each has a line of its own, too
        for one in reversed(before):
            add(_plain(one))
        if folder / path not in out:
            out.append(folder / path)

    for name in map(_plain, modules):
        if name in needs:
            add(name)
        elif name not in built_in:
            raise LookupError(f"this kernel has no module {name}, built in or beside it")
    return out


def _plain(path: str) -> str:
    return re.sub(r"\.ko(\.xz|\.zst|\.gz)?$", "", path.rsplit("/", 1)[-1]).replace("-", "_")


def _cpio(files: dict[str, tuple[int, bytes]], epoch: int) -> Iterator[bytes]:
    """Yield an archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    for number, (name, (mode, data)) in enumerate(sorted(files.items()), 1):
        yield _entry(name, number, mode, epoch, data)
    yield _entry("TRAILER!!!", 0, 0, 0, b"")


def _entry(name: str, number: int, mode: int, epoch: int, data: bytes) -> bytes:
    raw = name.encode() + b"\0"
    words = (number, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, epoch, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % one for one in words) + raw
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
