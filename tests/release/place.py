"""Where a release is made and tried: a folder outside the tree, environments of its own, and commands that are run to their end."""

from __future__ import annotations

import os
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.release import facts

SECONDS = 1800  # a safety limit for one command


@dataclass(frozen=True)
class Place:
    """Where a release is made: a folder outside the tree, with a copy of what is committed."""

    folder: Path
    advisories: bool = True  # whether a release needs an answer about known vulnerabilities

    @property
    def bills(self) -> Path:
        return self.folder / "bills"

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def sdist(self) -> Path:
        return next((self.folder / "dist").glob("*.tar.gz"))

    @property
    def wheel(self) -> Path:
        return next((self.folder / "dist").glob("*.whl"))


class NotReleasable(Exception):
    """Something that the release page promises does not hold."""


def empty(place: Place, name: str) -> Path:
    """Return a new folder."""
    folder = place.folder / name
    folder.mkdir()
    return folder


def environment(place: Place, name: str, packages: Sequence[str]) -> str:
    """Make a virtual environment with these packages, and return its Python."""
    folder = place.folder / "environments" / name
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    if packages:
        install(python, place.folder, *packages)
    return python


def install(python: str, folder: Path, *arguments: str) -> None:
    run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install", *arguments], folder)


def nothing_of_the_tree(python: str, folder: Path) -> None:
    """Raise unless all four packages are taken from the environment."""
    program = f"import {', '.join(facts.PACKAGES)}\nfor p in ({', '.join(facts.PACKAGES)}): print(p.__file__)"
    home = str(Path(python).parents[1])
    for file in run([python, "-c", program], folder).split():
        if not file.startswith(home):
            raise NotReleasable(f"{file} is not what was installed in {home}")


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command to its end in a folder, and return what it said. Raises NotReleasable with the end of it when it fails."""
    done = _called(command, folder)
    if done.returncode:
        raise NotReleasable(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def said_by(command: Sequence[str | Path], folder: Path) -> str:
    """Return what a command complains of. Raises NotReleasable when it succeeds."""
    done = _called(command, folder)
    if not done.returncode:
        raise NotReleasable(f"{' '.join(map(str, command))} was meant to fail")
    return done.stderr


def _called(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS")
    clean = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith(("EDGEAGENT_", "EDGECLOUD_"))}
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=SECONDS,
    )  # fmt: skip
