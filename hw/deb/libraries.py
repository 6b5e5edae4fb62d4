"""Which packages of Debian the compiled files need, and in which release: read from the files themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .running import NotMade, run

# The package of each library, and from which of its versions of symbols the package's release is told.
PACKAGES = {
    "libc.so.6": "libc6", "libm.so.6": "libc6", "libpthread.so.0": "libc6", "libdl.so.2": "libc6", "librt.so.1": "libc6",
    "ld-linux-x86-64.so.2": "libc6", "ld-linux-aarch64.so.1": "libc6", "ld-linux-armhf.so.3": "libc6",
    "libstdc++.so.6": "libstdc++6", "libgcc_s.so.1": "libgcc-s1", "libz.so.1": "zlib1g",
}  # fmt: skip
# GCC's own page lists which release brought which version of symbols: GLIBCXX_3.4.N came with these.
GLIBCXX = {22: "6", 23: "7", 24: "7.2", 25: "8", 26: "9", 27: "9.2", 28: "9.3", 29: "11", 30: "12"}


def compiled(tree: Path) -> list[Path]:
    """Return the compiled files of a folder."""
    return sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink() and _magic(path) == b"\x7fELF")


def depends(files: Iterable[Path]) -> list[str]:
    """Return what the files need, as Debian writes it: `libc6 (>= 2.34)`. Raises NotMade for a library of a package unknown here."""
    needed: dict[str, tuple[int, ...]] = {}
    files = list(files)
    own = {path.name for path in files} | {link for path in files for link in _names(path)}
    for path in files:
        said = run(["readelf", "--wide", "--dynamic", "--version-info", path])
        for library in re.findall(r"\(NEEDED\).*\[(.*)\]", said):
            if library in own:
                continue
            if library not in PACKAGES:
                raise NotMade(f"{path.name} needs {library}, of which hw/deb/libraries.py knows no package")
            needed.setdefault(PACKAGES[library], ())
        for package, version in (("libc6", "GLIBC"), ("libstdc++6", "GLIBCXX")):
            for found in re.findall(rf"Name: {version}_([\d.]+)", said):
                needed[package] = max(needed.get(package, ()), tuple(map(int, found.split("."))))
    if len(newest := needed.get("libstdc++6", ())) == 3:
        release = GLIBCXX.get(newest[2], "12" if newest[2] > max(GLIBCXX) else "5")
        needed["libstdc++6"] = tuple(map(int, release.split(".")))
    return [f"{name} (>= {'.'.join(map(str, version))})" if version else name for name, version in sorted(needed.items())]


def _names(path: Path) -> list[str]:
    return re.findall(r"\(SONAME\).*\[(.*)\]", run(["readelf", "--wide", "--dynamic", path]))


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
