"""Every negative vector is refused by the independent decoder too: with its error, and at the rule that it is about.

Most vectors are `Malformed`: that two readers say so proves little. So the rule that the decoder names in front counts.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.modelwire import test_stranger as positive
from tests.modelwire.stranger.errors import WireError
from tests.modelwire.stranger.judge import Judge
from tests.modelwire.stranger.state import State

REFUSED = positive.VECTORS / "refused"
FOLDERS = sorted(p.parent.name for p in REFUSED.glob("*/index.json"))
STANDS_FOR = {"R1": {"C1", "C2"}, "R46": {"C1", "C2"}}  # rules that ask for one CBOR text, and those by which CBOR itself is none
Vector = dict[str, Any]


@cache
def index(folder: str) -> list[Vector]:
    """Read the index of a folder."""
    vectors: list[Vector] = json.loads((REFUSED / folder / "index.json").read_text())
    return vectors


def golden(folder: str, on: str | None) -> tuple[State, tuple[State, ...]]:
    """Give the state of a golden version, or of the first base, and the bases of its folder."""
    bases = positive.bases(folder)
    return (bases[0] if on is None else positive.version(folder, on)), bases


def verdict(folder: str, vector: Vector) -> WireError | None:
    """Read a vector; give the error by which it is refused."""
    data = (REFUSED / folder / vector["file"]).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            Judge(REFUSED / folder, golden).read(vector["as"], data, vector.get("with", {}))
    except WireError as error:
        return error
    return None


def rules_of(error: WireError) -> set[str]:
    """Give the rules that an error names in front of its colon."""
    out = set()
    for letter, first, last in re.findall(r"([A-Z])(\d+)(?: to [A-Z](\d+))?", str(error).partition(":")[0]):
        out |= {f"{letter}{n}" for n in range(int(first), int(last or first) + 1)}
    return out


def by_rule() -> Iterator[Any]:
    """Yield folder, rule and the vectors that name it first."""
    for folder in FOLDERS:
        groups: dict[str, list[Vector]] = {}
        for vector in index(folder):
            groups.setdefault(vector["rules"][0], []).append(vector)
        for rule, vectors in groups.items():
            yield pytest.param(folder, vectors, id=rule)


@pytest.mark.parametrize(("folder", "vectors"), list(by_rule()))
def test_the_vectors_of_a_rule_are_refused_by_that_rule_with_its_error(folder: str, vectors: list[Vector]) -> None:
    """Error and rule of each vector."""
    wrong = []
    for vector in vectors:
        error = verdict(folder, vector)
        wanted = set(vector["rules"]).union(*(STANDS_FOR.get(rule, set()) for rule in vector["rules"]))
        if error is None or type(error).__name__ != vector["error"] or not rules_of(error) & wanted:
            wrong.append(f"{vector['file']}: {'taken' if error is None else f'{type(error).__name__}: {error}'}")
    assert wrong == []
