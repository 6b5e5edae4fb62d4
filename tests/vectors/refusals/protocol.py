"""Write the negative vectors of docs/protocol.md: each breaks one rule, and is right in all else.

    python -m tests.vectors.refusals.protocol

Vectors are only added, never edited: it refuses to overwrite. Beside each of them stands what the same reader takes (`good`), which is
not written: a test gives it to the reader, so that a vector is known to be refused for what it breaks alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.vectors.protocol_readers import READERS
from tests.vectors.refused import FOLDER as REFUSED
from tests.vectors.refused import Refused

from . import protocol_fields, protocol_rest
from .protocol_cases import Case, held_files

FOLDER = REFUSED / "protocol"


def cases() -> Iterator[Case]:
    """Yield every negative vector of the page, in the order of its rules."""
    yield from sorted([*protocol_fields.cases(), *protocol_rest.cases()], key=lambda case: int(case.rule[1:]))


def index_of(made: list[Case]) -> str:
    """Return the content of index.json."""
    rows = [{"file": c.file, "rules": [c.rule], "error": c.error, "as": c.read_as, "with": dict(c.held)} for c in made]
    return "[\n" + ",\n".join(f" {json.dumps({k: v for k, v in row.items() if v != {}})}" for row in rows) + "\n]\n"


def main() -> None:
    """Write the vectors into a new folder. Raises FileExistsError where there is one, AssertionError when a reader disagrees."""
    FOLDER.mkdir(parents=True)
    (FOLDER / "held").mkdir()
    for name, data in held_files().items():
        (FOLDER / "held" / name).write_bytes(data)
    made = list(cases())
    assert len({case.file for case in made}) == len(made), "two vectors have one name"
    for case in made:
        (FOLDER / case.file).write_bytes(case.data)
        verdict = Refused("protocol", FOLDER / case.file, (case.rule,), case.error, case.read_as, case.held).verdict(READERS)
        assert verdict == case.error, f"{case.file}: {verdict or 'taken'}"
        READERS[case.read_as](case.good, case.good_held)
    (FOLDER / "index.json").write_text(index_of(made))
    print(f"{len(made)} vectors in {FOLDER}")


if __name__ == "__main__":
    main()
