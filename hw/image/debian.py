"""Debian's packages for another architecture, by mmdebstrap: a system that was installed, or the files of packages alone."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hw import foreign

SUITE = "bookworm"
RELEASE = 1  # of how it is made here: raise it where that changes, and nothing kept is taken again
# Debian's part of an image does not depend on our commit, so that it is made once for many. 2026-01-01, UTC.
EPOCH = 1767225600
KEYRING = "debian-archive-keyring"
_SOURCES = Path("/etc/apt")
# No manuals and no translations on a board; what a package's licence is stays.
_DPKG = (
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/info/*", "force-unsafe-io",
)  # fmt: skip


def lines(components: Sequence[str] = ("main",), etc: Path = _SOURCES) -> list[str]:
    """Return this machine's own sources of Debian's suite, a line each, with the components asked for. Raises LookupError for none."""
    found: list[str] = []
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        for part in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", part, re.M))
            for suite in fields.get("Suites", "").split():
                found += [_line(uri, suite, fields.get("Signed-By", ""), components) for uri in fields.get("URIs", "").split()]
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        for options, uri, suite in re.findall(r"^deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s", path.read_text() if path.exists() else "", re.M):
            key = re.search(r"signed-by=(\S+)", options)
            found.append(_line(uri, suite, key[1] if key else "", components))
    ours = [one for one in dict.fromkeys(found) if one]
    if not ours:
        raise LookupError(f"apt on this machine has no source of Debian's {SUITE}; add one to {etc}, or make the image on Debian 12")
    return ours


def install(out: Path, arch: str, packages: Sequence[str], log: Path) -> None:
    """Write a tar of a system on which these packages were installed, their scripts run. Raises RuntimeError."""
    words = ["--variant=minbase", *(f"--dpkgopt={one}" for one in _DPKG), f"--include={','.join(packages)}"]
    # The mirror of the machine that makes the image is of no use on a board, and no business of its readers.
    words += ['--customize-hook=rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*']
    words += ['--customize-hook=rm -rf "$1"/var/log/apt "$1"/var/log/*.log "$1"/var/cache/ldconfig/aux-cache "$1"/var/lib/apt/lists/*']
    _mmdebstrap([*words, f"--architectures={arch}", SUITE, str(out), "-"], ("main",), log, private=True)


def extract(out: Path, arch: str, packages: Sequence[str], log: Path, components: Sequence[str] = ("main",)) -> None:
    """Write a tar of the files of packages and of what they depend on; nothing of them is run. Raises RuntimeError."""
    words = ["--variant=extract", f"--include={','.join(packages)}", f"--architectures={arch}", SUITE, str(out), "-"]
    _mmdebstrap(words, components, log, private=False)


@contextmanager
def apt_here(arch: str, components: Sequence[str], status: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Have an apt for another architecture, with lists of its own; give where these are, and the words of apt-get with its options.

    status: of the system that packages are chosen for. Raises RuntimeError where the mirror can't be asked.
    """
    with tempfile.TemporaryDirectory(prefix="apt-") as folder:
        place = Path(folder)
        for name in ("lists/partial", "archives/partial"):
            (place / name).mkdir(parents=True)
        (place / "status").touch()
        (place / "sources.list").write_text("\n".join(lines(components)) + "\n")
        options = {
            "Dir::State::lists": place / "lists", "Dir::State::status": status or place / "status", "Dir::Cache": place,
            "Dir::Etc::sourceparts": "-", "Dir::Etc::sourcelist": place / "sources.list", "APT::Architecture": arch,
            "APT::Architectures": arch, "Acquire::Languages": "none", "APT::Sandbox::User": "root", "Acquire::GzipIndexes": "false",
            "APT::Install-Recommends": "false",
        }  # fmt: skip
        words = ["apt-get", "-q", "-y", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        _apt([*words, "update"])
        yield place / "lists", words


def download(arch: str, packages: Sequence[str], status: Path, out: Path) -> list[Path]:
    """Fetch packages and what they need beside what a system has; return their files in the order of their names. Raises RuntimeError."""
    out.mkdir(parents=True)
    with apt_here(arch, ("main",), status) as (_, words):
        (out / "partial").mkdir()
        _apt([*words, "-o", f"Dir::Cache::archives={out}", "--download-only", "install", *packages])
    return sorted(out.glob("*.deb"))


def _apt(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode:
        raise RuntimeError(f"apt-get {words[-1]} failed: {(done.stderr or done.stdout).strip()[-600:]}")


def _mmdebstrap(words: list[str], components: Sequence[str], log: Path, private: bool) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8"}
    sources = "\n".join(lines(components)) + "\n"
    with tempfile.TemporaryDirectory(prefix="mmdebstrap-") as folder, log.open("w") as said:
        environment["TMPDIR"] = folder
        Path(folder).chmod(0o755)
        line = ["mmdebstrap", "--mode=root", *words]
        line = foreign.command("/", line) if private else line
        done = subprocess.run(line, input=sources, text=True, stdout=said, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-6:])
        raise RuntimeError(f"mmdebstrap failed ({done.returncode}); the whole of it stands in {log}:\n{tail}")


def _line(uri: str, suite: str, key: str, components: Sequence[str]) -> str:
    """Return a line of sources; empty for what is not of Debian's suite."""
    if suite not in (SUITE, f"{SUITE}-updates", f"{SUITE}-security") or (key and KEYRING not in key):
        return ""
    return f"deb {f'[signed-by={key}] ' if key else ''}{uri} {suite} {' '.join(components)}"
