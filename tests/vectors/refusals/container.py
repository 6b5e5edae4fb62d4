"""Write the negative vectors of docs/format/container.md: each breaks one rule, and is right in all else.

    python -m tests.vectors.refusals.container

Vectors are only added, never edited: it refuses to overwrite.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import container_content, container_identity, container_layout, container_planes, container_signature
from .container_cases import Case, write


def cases() -> Iterator[Case]:
    """Yield every negative vector of the page."""
    for part in (container_identity, container_layout, container_planes, container_content, container_signature):
        yield from part.cases()


def main() -> None:
    """Write the vectors into a new folder."""
    write("container", cases())


if __name__ == "__main__":
    main()
