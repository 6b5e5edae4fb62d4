"""`make wheels`: builds the wheels of a release for boards and centres, holds each to its tag, and runs it on a Debian of its processor.

    python -m hw.wheels [--out build/wheels] [--machine aarch64]... [--build-only] [--twice] [--every]

Cross-builds from the source distribution; needs root for the boards, Debian's cross compilers, mmdebstrap, qemu-user-static and a package
index. The wheels, the source distribution and wheels.json are in build/wheels when all of it holds. It ends at the first thing that
does not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hw.foreign import CannotRun
from hw.roots import cache

from . import building, checking, trying, workflow
from .targets import ROOT, TARGETS, Target
from .tools import tools

LIBCS = ("glibc", "musl")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make wheels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "wheels", help="where they are put (default: build/wheels)")
    parser.add_argument("--machine", action="append", choices=TARGETS, help="this processor alone; may be given again (default: all)")
    parser.add_argument("--build-only", action="store_true", help="build and check them, run none")
    parser.add_argument("--twice", action="store_true", help="build each again in another folder: the same bytes")
    parser.add_argument("--every", action="store_true", help="run the slow tests of the kernels, too: many minutes in an emulator")
    args = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=cache()) as folder:
            made = Run(Path(folder), args.out)
            made.configuration()
            made.build([TARGETS[name] for name in args.machine or TARGETS], twice=args.twice)
            if not args.build_only:
                made.try_all(every=args.every)
                if not made.agreed:
                    raise CannotRun(f"the digests of the processors differ: see {made.out / 'wheels.json'}")
    except CannotRun as error:
        print(f"hw.wheels: {error}", file=sys.stderr)
        return 1
    return 0


class Run:
    """One run: a folder to work in, and what has been made."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder, self.out, self.python = folder, out.resolve(), tools()
        self.wheels: dict[tuple[str, str], Path] = {}  # by processor and C library
        self.tried: list[trying.Tried] = []
        self.agreed = False  # whether all processors computed the same
        self._tree: Path | None = None

    def configuration(self) -> None:
        """Read back what a public CI would build, and lint its workflow where that can be had."""
        found, meant = workflow.identifiers(self.python), workflow.expected()
        if found != meant:
            raise CannotRun(f"cibuildwheel would build {found}, and not {meant}")
        say(f"cibuildwheel would build {', '.join(found)}")
        try:
            if lines := workflow.findings():
                raise ValueError("\n".join(lines))
            say("actionlint finds nothing in wheels.yml")
        except CannotRun as error:
            say(f"wheels.yml is NOT linted: {error}")
        except ValueError as error:
            raise CannotRun(f"actionlint:\n{error}") from None

    def build(self, targets: Sequence[Target], *, twice: bool) -> None:
        """Build and check a wheel for each target and C library, and put them into the folder of results."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        (self.folder / "sdist").mkdir()
        source = building.sdist(self.python, self.folder / "sdist")
        shutil.copy2(source, self.out)
        say(f"{source.name}, {source.stat().st_size:,} bytes, SHA-256 {checking.sha256(source)[:16]}")
        self._tree = building.unpacked(source, self.folder / "tree")
        for target in targets:
            for libc in LIBCS:
                started = time.monotonic()
                wheel = building.build(target, libc, python=self.python, tree=self._tree, folder=self.folder / f"{target.machine}-{libc}")
                found = checking.checked(wheel, target, libc, python=self.python)
                self.wheels[target.machine, libc] = Path(shutil.copy2(wheel, self.out))
                say(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {found}; {time.monotonic() - started:.0f} s")
        if twice:
            self._again(source)

    def _again(self, source: Path) -> None:
        tree = building.unpacked(source, self.folder / "again")
        for (machine, libc), wheel in self.wheels.items():
            other = building.build(TARGETS[machine], libc, python=self.python, tree=tree, folder=self.folder / f"again-{machine}-{libc}")
            if checking.sha256(other) != checking.sha256(wheel):
                raise CannotRun(f"{wheel.name} came out differently when it was built again in another folder")
        say(f"built again in another folder: {len(self.wheels)} wheels have the same SHA-256")

    def try_all(self, *, every: bool = False) -> None:
        """Run each wheel for glibc on a Debian of its processor; what its kernels compute must be the same on all of them."""
        assert self._tree is not None
        for (machine, libc), wheel in self.wheels.items():
            if libc != "glibc":
                continue
            started = time.monotonic()
            place = self.folder / f"on-{machine}"
            on = trying.tried(TARGETS[machine], wheel, python=self.python, tree=self._tree, folder=place, every=every)
            self.tried.append(on)
            say(
                f"{machine}{', emulated' * on.emulated}: Python {on.python}, numpy {on.numpy}, kernels {', '.join(on.kernels)}; installed "
                f"{on.own / 1e6:.2f} MB, {on.whole / 1e6:.1f} MB with all that it asks pip for; import {on.import_ms:.0f} ms, "
                f"edgeagent version {on.version_ms:.0f} ms; {on.passed} tests passed, {len(on.digests)} digests; "
                f"{time.monotonic() - started:.0f} s"
            )
        say("musllinux: built and checked, not run: no Python on musl can be had here")
        equal, all_of_them = agreement([one.digests for one in self.tried])
        (self.out / "wheels.json").write_text(json.dumps([asdict(one) for one in self.tried], indent=1) + "\n")
        self.agreed = equal == all_of_them
        say(f"{equal} of {all_of_them} digests of golden vectors and kernels are the same on {len(self.tried)} processors")


def agreement(digests: Sequence[dict[str, str]]) -> tuple[int, int]:
    """Return how many digests are there and equal on all processors, and how many there are."""
    names = {name for one in digests for name in one}
    return sum(len({one.get(name) for one in digests}) == 1 for name in names), len(names)


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
