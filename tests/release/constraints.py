"""Writes deploy/constraints/*.txt: which releases a deployment installs, each with the SHA-256 of every file that may be taken for it.

    python -m tests.release.constraints [--upgrade] [--python PYTHON_WITH_UV]

One file serves all Pythons that its runtime has and all processors: what differs carries a marker. Pins that still fit pyproject.toml are
kept; --upgrade takes the newest. Needs `uv` (the extra `release`) and a package index, whose name is written nowhere.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from tests.house.pages import PROJECT, ROOT

FOLDER = ROOT / "deploy" / "constraints"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64", "armv7l")
LINUX = "sys_platform == 'linux' and implementation_name == 'cpython'"


@dataclass(frozen=True)
class Deployment:
    """What is deployed together. without: packages that the distribution brings."""

    name: str
    extras: tuple[str, ...]
    pythons: str  # a marker, of those that it is for
    first: str  # the lowest of them
    machine: str = ""  # a marker, of the processors that it is for; empty for all
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.txt"


ALL = "python_version >= '3.10' and python_version < '3.15'"
WITH_TFLITE = "python_version >= '3.10' and python_version < '3.12'"  # tflite-runtime has no wheel for later ones
DEPLOYMENTS = (
    # Later ones say that they are for Pythons before 3.11, which pip heeds and uv does not; LiteRT asks for it on all.
    Deployment("edge-litert", ("litert",), ALL, "3.10", also=("backports.strenum<1.3; python_version>='3.11'",)),
    Deployment("edge-tflite", ("tflite",), WITH_TFLITE, "3.10"),
    # docs/board-setup.md: what has no wheel there comes from Debian 12, and its cffi is older than what cryptography 46 asks for.
    Deployment(
        "edge-armv7", ("tflite",), "python_version >= '3.11' and python_version < '3.12'", "3.11", "platform_machine == 'armv7l'",
        also=("cryptography<46",), without=("numpy", "cffi", "pycparser", "lz4"),
    ),
    Deployment("cloud", ("cloud", "backup", "plot"), ALL, "3.10"),
    Deployment("build", ("build",), ALL, "3.10"),  # what [build-system] asks for, to install from a clone
)  # fmt: skip


@dataclass(frozen=True)
class Pin:
    """One release that is installed, where the marker holds."""

    name: str
    version: str
    marker: str  # empty: everywhere
    hashes: tuple[str, ...]  # SHA-256 in hex, of each file that may be taken


def main(arguments: Sequence[str] | None = None) -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="tests.release.constraints", description=__doc__, formatter_class=plain)
    parser.add_argument("--upgrade", action="store_true", help="take the newest releases that fit")
    parser.add_argument("--python", default=sys.executable, help="a Python whose environment has uv (default: this one)")
    args = parser.parse_args(arguments)
    FOLDER.mkdir(exist_ok=True)
    for deployment in DEPLOYMENTS:
        write(deployment, args.python, upgrade=args.upgrade)
        print(f"{deployment.path.relative_to(ROOT)}: {len(pins(deployment.path))} releases")
    return 0


def write(deployment: Deployment, python: str, *, upgrade: bool = False) -> None:
    """Resolve what a deployment installs, and write its file."""
    with tempfile.TemporaryDirectory() as name:
        asked, out = Path(name) / "pyproject.toml", Path(name) / "out.txt"
        asked.write_text(_project(deployment))
        if deployment.path.exists():
            out.write_bytes(deployment.path.read_bytes())  # its pins are kept where they fit
        command = [python, "-m", "uv", "pip", "compile", str(asked), "--output-file", str(out), "--universal", "--generate-hashes"]
        command += ["--python-version", deployment.first, "--no-header", "--no-annotate", "--quiet"]
        command += [word for package in deployment.without for word in ("--no-emit-package", package)]
        subprocess.run([*command, *(["--upgrade"] if upgrade else [])], cwd=name, check=True, stdin=subprocess.DEVNULL)
        said = "".join(line for line in out.read_text().splitlines(keepends=True) if not line.startswith("#"))
        deployment.path.write_text(_head(deployment) + said)


def _project(deployment: Deployment) -> str:
    """Return a pyproject.toml that asks for what a deployment asks for, where it runs and nowhere else."""
    markers = " and ".join(filter(None, (LINUX, deployment.pythons, deployment.machine)))
    asked = [*requirements(*deployment.extras), *deployment.also]
    said = [
        "[project]", 'name = "deployment"', 'version = "0"', f'requires-python = ">={deployment.first}"',
        f"dependencies = {json.dumps(asked)}",
        "[tool.uv]", f"environments = [{json.dumps(markers)}]",
    ]  # fmt: skip
    return "\n".join(said) + "\n"


def requirements(*extras: str) -> list[str]:
    """Return what pyproject.toml asks for with these extras, as it says it; `build` is alone."""
    project = PROJECT["project"]
    asked = [] if extras == ("build",) else list(project["dependencies"])
    return asked + [line for extra in extras for line in project["optional-dependencies"][extra]]


def pins(path: Path) -> list[Pin]:
    """Return what a file of constraints pins. Raises ValueError for a line that is no pin, or has no digest."""
    return list(_pins(path.read_text()))


def _pins(text: str) -> Iterator[Pin]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in filter(None, (one.strip() for one in lines.replace("\\\n", " ").splitlines())):
        what, *hashes = re.split(r"\s+--hash=", line)
        found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.!+]+)(?:\s*;\s*(.+))?", what.strip())
        good = [digest.removeprefix("sha256:") for digest in hashes if re.fullmatch(r"sha256:[0-9a-f]{64}", digest)]
        if found is None or not good or len(good) != len(hashes):
            raise ValueError(f"no pin with SHA-256 of its files: {line[:100]!r}")
        yield Pin(found[1].lower().replace("_", "-"), found[2], (found[3] or "").strip(), tuple(good))


def worlds(deployment: Deployment) -> list[dict[str, str]]:
    """Return the environments that a deployment is for, as markers see them."""
    out = []
    for python in PYTHONS:
        for machine in MACHINES:
            world = {
                "python_version": python, "python_full_version": f"{python}.9", "platform_machine": machine, "sys_platform": "linux",
                "implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
            }  # fmt: skip
            if Marker(deployment.pythons).evaluate(world) and (not deployment.machine or Marker(deployment.machine).evaluate(world)):
                out.append(world)
    return out


def of_name(all_pins: Sequence[Pin]) -> Mapping[str, list[Pin]]:
    """Return the pins by the name of their package."""
    out: dict[str, list[Pin]] = {}
    for pin in all_pins:
        out.setdefault(pin.name, []).append(pin)
    return out


def _head(deployment: Deployment) -> str:
    where = f", on {deployment.machine.partition('==')[2].strip(' ' + chr(39))}" if deployment.machine else ""
    lines = [f"# Made by python -m tests.release.constraints: what a deployment with {', '.join(deployment.extras)} installs{where}."]
    if deployment.without:
        lines.append(f"# From the distribution come {', '.join(deployment.without)}: install this file with --no-deps.")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
