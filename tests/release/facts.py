"""What the tree says about a release: its version, its newest changelog entry, its extras, and which of them a hint names."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.house.pages import PAGES, PROJECT, ROOT

PACKAGES = {
    "modelwire": ROOT / "modelwire", "edgecommon": ROOT / "edgecommon", "edgeagent": ROOT / "edgeagent",
    "edgecloud": ROOT / "cloud" / "edgecloud",
}  # fmt: skip
MADE = {"PKG-INFO", "setup.cfg", "edgeagent.egg-info/SOURCES.txt"}  # of a source distribution, by setuptools


def version() -> str:
    """Return the version of the four packages, read where it stands; nothing is imported."""
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "edgecommon" / "__init__.py").read_text(), re.M)
    assert found
    return found.group(1)


def newest_entry() -> tuple[str, str]:
    """Return the version of the changelog's first entry, and its date or "unreleased"."""
    found = re.search(r"^## \[([^]]+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert found
    return found.group(1), found.group(2)


def extras() -> set[str]:
    """Return the extras that pyproject.toml has."""
    return set(PROJECT["project"]["optional-dependencies"])


def hinted() -> dict[str, list[str]]:
    """Return the extras that a hint, a page or the Makefile says to install, each with the files that do."""
    out: dict[str, list[str]] = {}
    code = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
    for path in [*code, *PAGES, ROOT / "Makefile"]:
        for names in re.findall(r"(?:\bedgeagent|'\.)\[([a-z][\w,-]*)\]", path.read_text()):
            for name in names.split(","):
                out.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return out


def typed_hints() -> set[str]:
    """Return the extras of those lines `pip install 'edgeagent[...]'` that a command prints or a page shows."""
    code = [path for folder in PACKAGES.values() for path in folder.rglob("*.py")]
    texts = "\n".join(path.read_text() for path in [*code, *PAGES])
    return {name for names in re.findall(r"pip install 'edgeagent\[([\w,-]+)\]'", texts) for name in names.split(",")}


def tracked() -> set[str]:
    """Return the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(listed.split("\0")) - {""}


def installed_files() -> set[str]:
    """Return what a wheel holds of the tree, by the names that it has there."""
    out = set()
    for name in tracked():
        inside = name.removeprefix("cloud/")
        if inside.partition("/")[0] in PACKAGES and Path(name).suffix in (".py", ".pyi", ".typed"):
            out.add(inside)
    return out
