"""The negative vectors of wire 1: bytes that every reader refuses, the rule of the pages that says so, and the error's name.

`index.json` in each folder of tests/vectors/wire-1/refused lists them: one object a vector, with

    file     its bytes, beside the index
    rules    the numbers of the rules that it breaks, such as ["C12"]
    error    the class in modelwire.errors that a reader raises
    as       how the bytes are read: a name in READERS
    with     what the reader holds besides (a parent, a base, a key, a time), as that reader takes it; left out when nothing

    python -m tests.vectors.refused         counts rules without a vector, and vectors without a rule
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwire.errors import ModelWireError

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "wire-1" / "refused"
PAGES = {
    "container": "docs/format/container.md", "coder": "docs/format/coder.md", "recipe": "docs/format/recipe.md",
    "trainer": "docs/format/trainer.md", "protocol": "docs/protocol.md",
}  # fmt: skip
RULE = re.compile(r"\*\*([CKRTP][0-9]+)\.\*\*\s+(.+?)(?=\n\s*\n|\n\s*[-*] |\Z)", re.S)
MUST = re.compile(r"\bMUST\b")

Reader = Callable[[bytes, Mapping[str, Any]], object]


@dataclass(frozen=True, slots=True)
class Refused:
    """One negative vector."""

    page: str
    file: Path
    rules: tuple[str, ...]
    error: str
    read_as: str
    held: Mapping[str, Any]

    def verdict(self, readers: Mapping[str, Reader]) -> str:
        """Return the name of the error that the reader raises, or an empty text when it takes the bytes."""
        try:
            readers[self.read_as](self.file.read_bytes(), self.held)
        except ModelWireError as error:
            return type(error).__name__
        return ""


def vectors(page: str | None = None) -> Iterator[Refused]:
    """Yield every negative vector, of one page or of all."""
    for name in PAGES if page is None else (page,):
        index = FOLDER / name / "index.json"
        for row in json.loads(index.read_text()) if index.exists() else []:
            yield Refused(name, index.parent / row["file"], tuple(row["rules"]), row["error"], row["as"], row.get("with", {}))


def rules() -> dict[str, str]:
    """Return the text of every numbered rule of the pages."""
    found: dict[str, str] = {}
    for page in PAGES.values():
        for number, text in RULE.findall((ROOT / page).read_text()):
            assert number not in found, f"{number} stands twice"
            found[number] = " ".join(text.split())
    return found


def unnumbered() -> list[str]:
    """Return the lines of the pages that say MUST outside a rule."""
    out = []
    for page in PAGES.values():
        rest = RULE.sub("", (ROOT / page).read_text())
        out += [f"{page}: {line.strip()}" for line in rest.splitlines() if MUST.search(line)]
    return out


def rules_without_vector() -> list[str]:
    """Return the rules that no negative vector names."""
    named = {rule for vector in vectors() for rule in vector.rules}
    return [number for number in rules() if number not in named]


def main() -> None:
    """Print what is missing."""
    known, held = rules(), list(vectors())
    strange = sorted({rule for vector in held for rule in vector.rules} - set(known))
    print(f"rules: {len(known)}, negative vectors: {len(held)}")
    print(f"rules_without_vector: {len(rules_without_vector())} {' '.join(rules_without_vector())}")
    print(f"vectors that name no rule: {strange}; lines that say MUST outside a rule: {unnumbered()}")


if __name__ == "__main__":
    main()
