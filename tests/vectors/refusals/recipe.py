"""Write the negative vectors of docs/format/recipe.md: each breaks one rule, and is right in all else.

    python -m tests.vectors.refusals.recipe

Vectors are only added, never edited: it refuses to overwrite. Beside each of them stands what the same reader takes (`good`), which is
not written: a test gives it to the reader, so that a vector is known to be refused for what it breaks alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.vectors.refused import FOLDER as REFUSED

from . import recipe_fields, recipe_places, recipe_rows
from .recipe_cases import Case, write

FOLDER = REFUSED / "recipe"


def cases() -> Iterator[Case]:
    """Yield every negative vector of the page, in the order of its rules."""
    every = [*recipe_fields.cases(), *recipe_rows.cases(), *recipe_places.cases()]
    yield from sorted(every, key=lambda case: int(case.rules[0][1:]))


def main() -> None:
    """Write the vectors."""
    write("recipe", FOLDER, list(cases()))


if __name__ == "__main__":
    main()
