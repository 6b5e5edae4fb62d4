"""What docs/protocol.md says that a reader refuses is refused, by the name that it says, and for nothing else."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from modelwire.limits import Limits
from modelwire.wire import parts, records
from tests.vectors import refused
from tests.vectors.protocol_readers import READERS
from tests.vectors.refusals import protocol
from tests.vectors.refusals.protocol_cases import Case, held_files

RULES = [rule for rule in refused.rules() if rule.startswith("P")]
VECTORS: dict[str, list[refused.Refused]] = defaultdict(list)
for vector in refused.vectors("protocol"):
    for number in vector.rules:
        VECTORS[number].append(vector)
CASES: dict[str, list[Case]] = defaultdict(list)
for case in protocol.cases():
    CASES[case.rule].append(case)


def test_the_rules_are_counted_without_a_gap_and_each_has_a_vector() -> None:
    assert [f"P{n}" for n in range(1, len(RULES) + 1)] == RULES
    assert list(VECTORS) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_a_vector_is_refused_by_the_error_of_its_rule(rule: str) -> None:
    names = set()
    for vector in VECTORS[rule]:
        assert vector.verdict(READERS) == vector.error, vector.file.name
        names.add(vector.error)
    assert all(f"(`{name}`)" in refused.rules()[rule] for name in names), (rule, names)


@pytest.mark.parametrize("rule", RULES)
def test_without_its_fault_a_vector_is_taken(rule: str) -> None:
    for case in CASES[rule]:
        READERS[case.read_as](case.good, case.good_held)
        assert (case.good, case.good_held) != (case.data, case.held), case.file


def test_the_vectors_are_what_their_maker_writes() -> None:
    made = [case for cases in CASES.values() for case in cases]
    folder = protocol.FOLDER
    assert (folder / "index.json").read_text() == protocol.index_of(made)
    assert {f.name for f in folder.glob("*.bin")} == {case.file for case in made}
    for case in made:
        assert (folder / case.file).read_bytes() == case.data, case.file
    for name, data in held_files().items():
        assert (folder / "held" / name).read_bytes() == data, name


def test_the_index_has_one_row_a_vector_in_the_order_of_the_rules() -> None:
    rows = json.loads((protocol.FOLDER / "index.json").read_text())
    assert len({row["file"] for row in rows}) == len(rows)
    numbers = [int(row["rules"][0][1:]) for row in rows]
    assert numbers == sorted(numbers)


def test_what_is_too_large_is_right_in_all_else() -> None:
    more = Limits(record=50_000, part=200_000)
    for case in CASES["P9"]:
        assert records.parse(case.data, more).record
    for case in CASES["P54"]:
        assert parts.parse(case.data, more).index == 1
