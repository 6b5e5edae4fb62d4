"""Pages lead to each other, words and versions are said alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import edgeagent.cli
import edgecloud
import edgecommon
from modelwire.update import header
from tests.house.pages import DOCS, PAGES, PROJECT, ROOT, prose, rows, slug


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", file.read_text(), flags=re.M | re.S), re.M)
            assert anchor in [slug(h) for h in headings], f"{file.name} has no heading for #{anchor}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#:]+)", page.read_text()):
            file = (page.parent / target).resolve()
            if file.is_file() and file.suffix == ".md":
                todo.append(file)
    assert set(DOCS.rglob("*.md")) <= seen


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    words = [row[0].strip("*") for row in rows((DOCS / "glossary.md").read_text())]
    assert words == sorted(set(words))
    for word in ("update", "version", "parent", "commit", "root", "receipt", "outbox", "ingester", "registry", "materialise"):
        assert word in words


def test_the_release_and_the_wire_version_are_said_alike_everywhere() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "edgecommon.__version__"}}
    release = edgecommon.__version__
    entries = re.findall(r"^## \[([^]]+)\].*?\n\n(.*?)(?=^## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.M | re.S)
    assert release == edgeagent.__version__ == edgecloud.__version__
    assert release == entries[0][0]
    assert all(re.search(r"^Wire version \d+\.$", text, re.M) for _, text in entries)
    assert f"Wire version {header.VERSION}." in dict(entries)[release]


def test_every_decision_is_in_the_readme_and_on_the_page_of_the_architecture() -> None:
    decisions = {p.name for p in (DOCS / "decisions").glob("*.md")}
    for page in (ROOT / "README.md", DOCS / "architecture.md"):
        missing = decisions - set(re.findall(r"decisions/([\w-]+\.md)\)", page.read_text()))
        assert not missing, (page.name, missing)
