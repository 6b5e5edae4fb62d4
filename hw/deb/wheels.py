"""Wheels for another machine: ours, cross-compiled, and those of its dependencies, each by the digests of deploy/constraints."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from hw import roots
from hw.wheels.building import HEADERS

from .running import NotMade, run
from .targets import CACHE, PYTHON, ROOT, Architecture, platforms

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
SOURCES = ("csrc", "modelwire", "edgeagent", "edgecommon", "cloud", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def own(architecture: Architecture, *, anew: bool = False) -> Path:
    """Return our wheel for a machine, built of what git tracks; kept in the cache by what it is built of.

    anew: though one is kept. Its name says nothing of what is in it; its files bear no time that counts.
    """
    kept = CACHE / "own" / f"{architecture.name}-{_digest_of_sources()[:24]}.whl"
    if anew or not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="edge-wheel-") as scratch:
            built = kept.with_name(f".{kept.name}.{os.getpid()}")
            shutil.copy(_built(architecture, Path(scratch)), built)
            built.rename(kept)
    return kept


def _sources() -> list[str]:
    listed = run(["git", "ls-files", "-z", *SOURCES], cwd=ROOT).split("\0")
    return sorted(name for name in listed if name and (ROOT / name).is_file())


def _digest_of_sources() -> str:
    sum_ = hashlib.sha256(sys.version.encode())
    for name in _sources():
        data = (ROOT / name).read_bytes()
        sum_.update(f"{name}\0{len(data)}\0".encode() + data)
    return sum_.hexdigest()


def _built(architecture: Architecture, folder: Path) -> Path:
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        raise NotMade(f"the packages are for Python {PYTHON}, and this is {sys.version.split()[0]}: make PYTHON=python{PYTHON} clean deb")
    tree = folder / "tree"
    tree.mkdir()
    for name in _sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    env = {"SOURCE_DATE_EPOCH": "315532800", **_cross(architecture, folder)}  # 1980: no archive of this kind has an earlier one
    run([*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder / "own", "."], cwd=tree, env=env)
    (wheel,) = (folder / "own").glob("*.whl")
    return wheel


def _cross(architecture: Architecture, folder: Path) -> dict[str, str]:
    """Return the environment in which setuptools compiles for another machine, with the headers of that machine's Python."""
    if architecture.machine == os.uname().machine:
        return {}
    triplet, name = architecture.triplet, f"python{PYTHON}"
    usr = roots.sysroot(architecture.name, HEADERS) / "usr"
    # By themselves: neither Python's own library of another machine may be found, nor libc's headers, which the compiler brings.
    described, include = folder / "described", folder / "include"
    described.mkdir()
    shutil.copy(usr / "lib" / name / f"_sysconfigdata__{triplet}.py", described)
    for part in (name, f"{triplet}/{name}"):
        shutil.copytree(usr / "include" / part, include / part)
    compiler = f"{triplet}-gcc {architecture.cflags}".strip()
    return {
        "PYTHONPATH": str(described), "_PYTHON_SYSCONFIGDATA_NAME": f"_sysconfigdata__{triplet}",
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture.machine}",
        "CC": compiler, "LDSHARED": f"{compiler} -shared", "CFLAGS": f"-I{include / name} -I{include}",
    }  # fmt: skip


def needed(constraints: Path, architecture: Architecture) -> list[str]:
    """Return the lines of a file of constraints that hold on a machine, each `name==version --hash=...`, without its marker.

    pip asks markers of the machine that it runs on, whatever --platform says.
    """
    there = {
        "implementation_name": "cpython", "platform_python_implementation": "CPython", "os_name": "posix", "sys_platform": "linux",
        "platform_system": "Linux", "platform_machine": architecture.machine, "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.2", "implementation_version": f"{PYTHON}.2", "platform_release": "", "platform_version": "",
        "extra": "",
    }  # fmt: skip
    lines = []
    for line in constraints.read_text().replace("\\\n", " ").splitlines():
        text, *hashes = line.partition("#")[0].split("--hash=")
        if not text.strip():
            continue
        one = Requirement(text.strip())
        if one.marker is None or one.marker.evaluate(there):
            lines.append(f"{one.name}{one.specifier} " + " ".join(f"--hash={digest.strip()}" for digest in hashes))
    return lines


def installed(constraints: Path, architecture: Architecture, site: Path, scratch: Path) -> None:
    """Install what a file of constraints names, for a machine, into an empty folder: wheels alone, each by its digest."""
    asked = scratch / "asked.txt"
    asked.write_text("\n".join(needed(constraints, architecture)) + "\n")
    tags = [word for tag in platforms(architecture.machine) for word in ("--platform", tag)]
    abis = [word for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none") for word in ("--abi", abi)]
    run([
        *PIP, "install", "--no-compile", "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation", "cp",
        "--python-version", PYTHON, *abis, *tags, "--cache-dir", CACHE / "pip", "--target", site, "-r", asked,
    ])  # fmt: skip
