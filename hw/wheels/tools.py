"""An environment of its own with what builds, repairs and checks wheels: what pyproject.toml names, kept in the cache by what it holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from hw.foreign import CannotRun
from hw.roots import cache, one_at_a_time

from .targets import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Digests of what compiles are pinned: a wheel is the same bytes as long as these are.
PINNED = ROOT / "deploy" / "constraints" / "build.txt"
# What would lead pip, Python or a compiler elsewhere.
UNSET = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED", "CPATH")
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")


def tools() -> Path:
    """Return the Python of the environment, made when it is not there yet. Needs a package index, then."""
    folder, asked = _folder()
    python, ready = folder / "bin" / "python", folder / ".ready"
    with one_at_a_time(folder):
        if not ready.exists():
            venv.create(folder, with_pip=True, clear=True)
            said([python, *PIP, "install", "--require-hashes", "--only-binary", ":all:", "-r", PINNED])
            said([python, *PIP, "install", *asked])
            ready.touch()
    return python


def made_tools() -> Path | None:
    """Return the Python of the environment where it has been made already, else None."""
    folder, _ = _folder()
    return folder / "bin" / "python" if (folder / ".ready").exists() else None


def _folder() -> tuple[Path, list[str]]:
    """Return where the environment lies, by what it holds, and what it is asked to hold besides what is pinned."""
    asked: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["wheels"]
    mark = hashlib.sha256(json.dumps([sys.version, asked, PINNED.read_text()]).encode()).hexdigest()[:12]
    return cache() / f"tools-{mark}", asked


def said(words: Sequence[str | Path], *, folder: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, and return what it said. Raises CannotRun with the end of it when it fails."""
    clean = {name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith("_PYTHON")}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env={**clean, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, umask=0o022,
    )  # fmt: skip
    if done.returncode:
        raise CannotRun(f"{' '.join(map(str, words))}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout
