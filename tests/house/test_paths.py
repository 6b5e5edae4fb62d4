"""Files and modules that are named in pages, comments and settings are there."""

from __future__ import annotations

import re

from .imports import PACKAGES, modules
from .pages import PAGES, ROOT

TOPS = ("modelwire", "edgecommon", "edgeagent", "cloud", "csrc", "tests", "hw", "docs")
TEXTS = (".md", ".py", ".pyx", ".pyi", ".c", ".h", ".toml")
PATH = re.compile(rf"(?<![\w./-])(?:edgecloud|{'|'.join(TOPS)})(?:/[\w.-]+)+")
NAME = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+")
GENERATED = {"modelwire/_core/kernel.c"}
NO_MODULES = {"edgeagent.toml", "edgeagent.trainable", "edgeagent.int8_head"}  # a device's settings; the marks of files that train
# The changelog tells of earlier days.
OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]


def test_a_path_that_is_named_leads_to_a_file_or_folder() -> None:
    sources = [path for top in TOPS for path in (ROOT / top).rglob("*") if path.suffix in TEXTS and path.suffix != ".md"]
    settings = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "setup.py", ROOT / ".ci" / "run"]
    missing = []
    for file in [*OF_TODAY, *sources, *settings]:
        for path in {found.rstrip(".") for found in PATH.findall(file.read_text())} - GENERATED:
            if not stands_for_any(path.rpartition("/")[2]) and not any((ROOT / top / path).exists() for top in ("", "cloud")):
                missing.append(f"{file.relative_to(ROOT)}: {path}")
    assert not missing, "\n".join(sorted(missing))


def test_a_module_that_a_page_names_is_there() -> None:
    missing = []
    for page in OF_TODAY:
        for name in set(NAME.findall(page.read_text())) - NO_MODULES:
            if not stands_for_any(name.rpartition(".")[2]) and not is_there(name):
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(sorted(missing))


def stands_for_any(word: str) -> bool:
    """Return whether a word is a placeholder or has one in it: MODEL.tflite, mw_SUBJECT.c, edgecloud.FLEET."""
    return not word.endswith(".md") and any(part.isupper() for part in word.partition(".")[0].split("_"))


def is_there(name: str) -> bool:
    """Return whether a dotted name is a module, or begins with one that has the next part of it."""
    module = name
    while module not in modules():
        module = module.rpartition(".")[0]
    rest = name.removeprefix(module).lstrip(".").partition(".")[0]
    return not rest or bool(re.search(rf"\b{rest}\b", modules()[module].read_text()))
