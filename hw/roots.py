"""Debian roots of the three architectures, as archives in the cache: made once, from the machine's own package sources.

    python -m hw.roots ARCHITECTURE [PACKAGE...]    # arm64, armhf or amd64; prints where the archive lies

A root is Debian's smallest system with Python, its packages set up by their own scripts under the emulator. With packages named, it is
the same root with these installed besides. An archive is whole or not there; two who ask at once wait for one.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hw import foreign

SUITE = "bookworm"  # Debian 12
ARCHITECTURES = ("arm64", "armhf", "amd64")
SMALLEST = ("python3", "python3-venv", "ca-certificates", "adduser")
# Nobody reads a manual there, and no power is cut while a root is made.
OPTIONS = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")] + ["--dpkgopt=force-unsafe-io"]


def cache() -> Path:
    """Return the folder where downloads and roots are kept: HW_CACHE, else build/hw/cache."""
    folder = Path(os.environ.get("HW_CACHE") or Path(__file__).resolve().parents[1] / "build" / "hw" / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def sources(suite: str = SUITE) -> list[str]:
    """Return where this machine gets a Debian release's packages from, a line each as sources.list has them.

    Raises CannotRun where apt is not here, or knows no source of that release.
    """
    if shutil.which("apt-get") is None:
        raise foreign.CannotRun("roots are made of Debian's packages: this machine has no apt-get")
    shown = "$(CREATED_BY) $(SITE) $(RELEASE) $(COMPONENT) $(SIGNED_BY)"
    said = subprocess.run(["apt-get", "indextargets", "--format", shown], capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        made_by, site, release, component, *key = line.split(" ", 4)
        if made_by == "Packages" and release == suite and component == "main":
            signed = f"[signed-by={key[0]}] " if key and key[0].startswith("/") else ""
            found[site, release] = f"deb {signed}{site} {release} {component}"
    if not found:
        raise foreign.CannotRun(f"this machine's package sources have no Debian {suite}: name one in /etc/apt/sources.list, apt-get update")
    return sorted(found.values())


def archive(architecture: str, packages: Sequence[str] = ()) -> Path:
    """Return the archive (tar) of a root, made when it is not there yet. packages: Debian packages installed besides."""
    if architecture not in ARCHITECTURES:
        raise foreign.CannotRun(f"no root of {architecture}: {', '.join(ARCHITECTURES)} can be made")
    mark = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:12]
    made = cache() / "roots" / (f"{architecture}-{mark}.tar" if packages else f"{architecture}.tar")
    with one_at_a_time(made):
        if not made.exists() or not _whole(made).exists():
            start = archive(architecture) if packages else None
            _say(f"making the root {made.name}: {' '.join(packages) or 'Debian with Python'}; minutes, the first time")
            _make(made, architecture, packages or SMALLEST, start)
    return made


def sysroot(architecture: str, packages: Sequence[str]) -> Path:
    """Return a folder with what packages hold, not set up: headers and libraries to compile against. Needs no emulator."""
    made = _sysroot(architecture, packages)
    with one_at_a_time(made):
        if not made.exists():
            _say(f"fetching for {architecture}: {' '.join(packages)}")
            part = made.with_suffix(f".{os.getpid()}.part")
            _bootstrap(architecture, ["--variant=extract", f"--include={','.join(packages)}"], part, emulated=False)
            part.rename(made)
    return made


def made_sysroot(architecture: str, packages: Sequence[str]) -> Path | None:
    """Return the folder of `sysroot` where it has been made already, else None."""
    made = _sysroot(architecture, packages)
    return made if made.exists() else None


def _sysroot(architecture: str, packages: Sequence[str]) -> Path:
    return cache() / "sysroots" / f"{architecture}-{hashlib.sha256(' '.join(sorted(packages)).encode()).hexdigest()[:12]}"


def unpacked(made: Path, folder: Path) -> Path:
    """Unpack the archive of a root into a folder that is not there yet, and return it. Needs root, for the files' owners."""
    folder.mkdir(parents=True)
    subprocess.run(["tar", "--numeric-owner", "--exclude=./dev/*", "-xpf", str(made), "-C", str(folder)], check=True)
    return folder


@contextmanager
def one_at_a_time(made: Path) -> Iterator[None]:
    """Hold what makes a file or folder of the cache, against others who would make it, too."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with open(made.parent / f".{made.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(made: Path, architecture: str, packages: Sequence[str], start: Path | None) -> None:
    part = made.with_name(f".{made.stem}.{os.getpid()}.tar")
    options = ["--variant=minbase" if start is None else "--variant=custom", f"--include={','.join(packages)}"]
    if start is not None:  # packages besides: only these are set up under the emulator
        options += ["--skip=check/empty", f"--setup-hook=tar --numeric-owner -xpf '{start}' -C \"$1\""]
    try:
        _bootstrap(architecture, options, part, emulated=True)
        part.rename(made)
        _whole(made).touch()
    finally:
        part.unlink(missing_ok=True)


def _bootstrap(architecture: str, options: Sequence[str], target: Path, *, emulated: bool) -> None:
    if shutil.which("mmdebstrap") is None:
        raise foreign.CannotRun("no mmdebstrap here: apt-get install mmdebstrap qemu-user-static")
    words = ["mmdebstrap", "--mode=root", f"--architectures={architecture}", *OPTIONS, *options, SUITE, str(target), *sources()]
    if emulated:
        words = foreign.command("/", words)
    with tempfile.TemporaryDirectory(prefix="edgeagent-root-") as folder:  # in which nothing of it is left when it is ended
        environment = {**os.environ, "TMPDIR": folder}
        os.chmod(folder, 0o755)  # apt reads there as a user of its own
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment
        )
    if done.returncode:
        raise foreign.CannotRun(f"mmdebstrap made no {target.name}:\n{done.stdout[-2000:]}")


def _whole(made: Path) -> Path:
    return made.with_name(made.name + ".ok")


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="hw.roots", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=ARCHITECTURES)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    args = parser.parse_args(arguments)
    try:
        print(archive(args.architecture, args.packages))
    except foreign.CannotRun as error:
        print(f"hw.roots: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
