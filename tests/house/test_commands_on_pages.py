"""Whatever a page shows as a command can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import edgeagent.cli
import edgecloud.cli
from tests.house.pages import DOCS, FIRMWARE, MAKEFILE, PAGES, ROOT, console_lines


def indented_commands(page: Path) -> list[str]:
    """Return every command of our programs that a page shows indented, as an example; not those that are cut short by dots."""
    plain = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return [line for line in re.findall(r"^ {4}(?:\$ )?(edge(?:agent|cloud) .*)$", plain, re.M) if not re.search(r" \.\.\. |\{| -> ", line)]


def our_commands(line: str) -> list[list[str]]:
    """Return the argument lists of our two programs in one shell line, the program's name first."""
    out: list[list[str]] = []
    if not re.search(r"\bedge(agent|cloud)\b", line):
        return out
    inner = re.findall(r"\$\((.*?)\)", line)  # the output of a command as a word of another
    outer = re.sub(r"\$\(.*?\)", "WORD", line)
    for part in (part for whole in (outer, *inner) for part in re.split(r"&&|\|\||[|;&]|\d?>", whole)):
        words = shlex.split(part, comments=True)
        if words[:1] == ["sudo"]:
            words = words[3:] if words[1] == "-u" else words[1:]
        if words and Path(words[0]).name in ("edgeagent", "edgecloud"):
            out.append([Path(words[0]).name, *words[1:]])
    return out


@pytest.mark.parametrize("page", [p for p in PAGES if console_lines(p) or indented_commands(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_that_a_page_shows_can_be_typed(page: Path) -> None:
    parsers = {"edgeagent": edgeagent.cli.parser(), "edgecloud": edgecloud.cli.parser()}
    for line in console_lines(page) + indented_commands(page):
        for program, *words in our_commands(line):
            try:
                parsers[program].parse_args(words)
            except SystemExit as stop:
                assert stop.code == 0, line  # --help and --version
        for verb in re.findall(r"^make ([\w-]+)", line):
            assert re.search(rf"^{verb}:", MAKEFILE + FIRMWARE, re.M), line


@pytest.mark.slow("makes a registry and a device, and takes the screens of ten commands", seconds=3)
def test_the_page_of_commands_is_what_the_parsers_say_and_the_commands_show() -> None:
    current = subprocess.run([sys.executable, DOCS / "generate_cli.py", "--check"], cwd=ROOT, check=False)
    assert current.returncode == 0, "run: make docs"


def test_every_verb_of_the_makefile_is_listed_and_every_listed_one_is_there() -> None:
    listed = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.M))
    phony = set(re.search(r"^\.PHONY: (help .*)$", MAKEFILE, re.M).group(1).split())  # type: ignore[union-attr]
    assert listed == phony >= {"help", "venv", "demo", "test", "lint", "bench", "clean"}


def test_ci_installs_what_the_readme_asks_for() -> None:
    asked = re.search(r"apt-get install -y (.*)$", (ROOT / "README.md").read_text(), re.M).group(1).split()  # type: ignore[union-attr]
    packages = re.search(r"^packages=\((.*?)\)", (ROOT / ".ci" / "run").read_text(), re.M | re.S).group(1).split()  # type: ignore[union-attr]
    assert set(asked) <= set(packages)
