"""A wheel on a board: a Debian 12 of its processor without compiler and without git, where pip installs it and its tests run.

The board's Debian is made of its packages as they unpack: none of their scripts is run, and of what they would set up only two links
are made by hand (which BLAS numpy loads). Programs of another processor run in an emulator; times are the emulator's, then.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from hw import foreign, roots
from tests.release.constraints import DEPLOYMENTS, pins, worlds

from .targets import PYTHON, ROOT, Target
from .tools import PIP, said

DEBIAN = ("python3-venv", "dash", "base-files", "libstdc++6")  # the last is in each Debian, for apt; numpy's wheels take it from there
SEEN_AT = "/board"  # where the folder of a try is seen inside
TESTED = ("tests/modelwire/kernels", "tests/modelwire/test_vectors.py", "tests/modelwire/test_vectors_protocol.py")
READ = ("csrc", "modelwire/_core/csrc.pxd")  # of the kernels' sources, by tests that hold the two to each other
# Each is a file of its own that pip can find for a processor on which nothing of it is built.
TESTS_NEED = ("pytest>=8.1", "hypothesis>=6.100")
GLIBC = ("2014", "_2_17", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34")  # of wheels that Debian 12 takes
# In a process of its own, and not the first: then what Python compiles once is compiled.
IMPORTS = "import time; t = time.perf_counter(); import edgeagent.cli, modelwire._core.kernel; print((time.perf_counter() - t) * 1e3)"
SECONDS = 3000  # a safety limit for one command under emulation


@dataclass(frozen=True)
class Tried:
    """What a wheel did on a board. Sizes in bytes, times in milliseconds."""

    machine: str
    emulated: bool
    python: str
    numpy: str
    kernels: list[str]
    own: int  # installed, without what it asks for
    whole: int  # the environment, with all that it asks for
    import_ms: float  # of the agent's command line and the kernels, in a process that has imported nothing else
    version_ms: float  # the least of three: `edgeagent version` as a process
    passed: int
    digests: dict[str, str]


@dataclass(frozen=True)
class Board:
    """A Debian of a processor, and a folder of this machine that is seen in it."""

    target: Target
    root: Path
    folder: Path

    def run(self, *words: str, check: bool = True) -> str:
        env = {"TMPDIR": f"{SEEN_AT}/tmp", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OPENBLAS_NUM_THREADS": "1"}
        env["PYTHONPATH"] = f"{SEEN_AT}/tests-need:{SEEN_AT}/tree"
        try:
            done = foreign.run(
                self.root, words, env=env, binds={self.folder: SEEN_AT}, chdir=f"{SEEN_AT}/tree", timeout=SECONDS, check=check
            )
        except subprocess.CalledProcessError as error:
            raise foreign.CannotRun(f"on {self.target.machine}: {' '.join(words)}\n{(error.stdout + error.stderr)[-3000:]}") from None
        return done.stdout


def tried(target: Target, wheel: Path, *, python: Path, tree: Path, folder: Path, every: bool = False) -> Tried:
    """Install a wheel on a board, run the kernels' tests and the golden vectors there, and return what it came to.

    python: of the tools, which fetches what the wheel asks for. tree: the unpacked sources, of which only the tests go there. every: also
    the tests that are marked slow, which take many minutes in an emulator.
    Raises CannotRun when something fails, or can't be run on this machine.
    """
    board = furnished(target, wheel, python=python, tree=tree, folder=folder)
    installed(board)
    venv = f"{SEEN_AT}/venv"
    imports = min(float(board.run(f"{venv}/bin/python", "-c", IMPORTS)) for _ in range(3))
    digests = board.run(f"{venv}/bin/python", "hw/wheels/digests.py")
    took = []
    for _ in range(3):
        started = time.monotonic()
        board.run(f"{venv}/bin/edgeagent", "version")
        took.append((time.monotonic() - started) * 1e3)
    words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=quick", *([] if every else ["-m", "not slow"])]
    ran = board.run(f"{venv}/bin/python", *words, *TESTED)
    passed = re.search(r"(\d+) passed", ran.splitlines()[-1])
    if passed is None:
        raise foreign.CannotRun(f"on {target.machine} no test passed:\n{ran[-2000:]}")
    about = json.loads(digests)["about"]
    if not about["from"].startswith(venv):
        raise foreign.CannotRun(f"on {target.machine} the kernels were those of {about['from']}, not the wheel's")
    whole = sum(path.lstat().st_size for path in (folder / "venv" / "lib").rglob("*"))
    return Tried(
        target.machine, target.machine != os.uname().machine, about["python"], about["numpy"], about["kernels"], about["bytes"], whole,
        imports, min(took), int(passed.group(1)), json.loads(digests)["digests"],
    )  # fmt: skip


def installed(board: Board) -> None:
    """Install the wheel as a person does it on the board: an environment, and pip with the folder of wheels alone; nothing is compiled."""
    venv = f"{SEEN_AT}/venv"
    board.run("/usr/bin/python3", "-m", "venv", "--without-pip", *(["--system-site-packages"] if board.target.board else []), venv)
    (pip,) = (board.root / "usr" / "share" / "python-wheels").glob("pip-*.whl")  # Debian's, where it lies: quicker than a copy of it
    words = [f"{venv}/bin/python", f"/usr/share/python-wheels/{pip.name}/pip", "-q", "install", "--no-compile", "--no-index"]
    board.run(*words, "--find-links", f"{SEEN_AT}/wheels", "edgeagent")


def furnished(target: Target, wheel: Path, *, python: Path, tree: Path, folder: Path) -> Board:
    """Return a board with the wheel, what it asks for, and the tests; nothing is installed yet."""
    root = roots.sysroot(target.debian, (*DEBIAN, *target.board))
    for name in ("blas", "lapack"):  # what update-alternatives would do
        at = root / "usr" / "lib" / target.triplet
        if (at / name / f"lib{name}.so.3").exists() and not (at / f"lib{name}.so.3").is_symlink():
            (at / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
    for absent in ("gcc", "cc", "git", "make"):
        if any((root / at / absent).exists() for at in ("bin", "usr/bin", "usr/local/bin")):
            raise foreign.CannotRun(f"{root} has {absent}: it is no bare board")
    (folder / "tmp").mkdir(parents=True)
    shutil.copytree(fetched(target, python=python), folder / "wheels")
    shutil.copy2(wheel, folder / "wheels")
    shutil.copytree(tests_need(target, python=python), folder / "tests-need")
    for name in ("pyproject.toml", "hw/wheels/digests.py", "tests", *READ):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (tree / name).is_dir() else shutil.copy2)(tree / name, folder / "tree" / name)
    return Board(target, root, folder)


def tests_need(target: Target, *, python: Path) -> Path:
    """Return a folder of the cache with pytest and Hypothesis for a processor, as they are imported."""
    made = _cached("tests-need", [target.machine, PYTHON, *TESTS_NEED])
    with roots.one_at_a_time(made):
        if not made.exists():
            part = _emptied(made)
            words = [*PIP, "install", "--only-binary", ":all:", "--python-version", PYTHON, *_platforms(target)]
            said([python, *words, "--target", part, *TESTS_NEED])
            part.rename(made)
    return made


def fetched(target: Target, *, python: Path) -> Path:
    """Return a folder of the cache with the pinned releases that an agent on this processor is deployed with, as wheels.

    They are fetched by their digests.
    """
    (deployment,) = (one for one in DEPLOYMENTS if one.name == ("edge-armv7" if target.board else "edge-litert"))
    (world,) = (one for one in worlds(deployment) if (one["python_version"], one["platform_machine"]) == (PYTHON, target.machine))
    there = [pin for pin in pins(deployment.path) if not pin.marker or Marker(pin.marker).evaluate(world)]
    # pip reads markers for the machine that it runs on, so only those lines are asked for that hold on the board, without them.
    asked = [f"{one.name}=={one.version} {' '.join(f'--hash=sha256:{h}' for h in one.hashes)}" for one in there]
    made = _cached("wheels", [target.machine, *asked])
    with roots.one_at_a_time(made):
        if not made.exists():
            part = _emptied(made)
            (part / "asked.txt").write_text("\n".join(asked) + "\n")
            words = [*PIP, "download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python-version", PYTHON]
            said([python, *words, *_platforms(target), "--dest", part, "-r", part / "asked.txt"], folder=ROOT)
            part.rename(made)
    return made


def _platforms(target: Target) -> list[str]:
    return [word for glibc in GLIBC for word in ("--platform", f"manylinux{glibc}_{target.machine}")]


def _cached(kind: str, what: Sequence[str]) -> Path:
    return roots.cache() / kind / hashlib.sha256("\n".join(what).encode()).hexdigest()[:12]


def _emptied(made: Path) -> Path:
    """Return an empty folder in which something of the cache is made, to be renamed when it is whole."""
    part = made.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part
