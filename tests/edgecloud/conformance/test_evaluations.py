"""What every store does with scores: kept once a context, told by subject, dropped at will, gone with the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.registry import EvaluationRow, SqliteStore, create_registry, open_registry
from modelwire.errors import ModelWireError
from tests.edgecloud.conformance.test_store import BASE, IDENTITY, KEY, STATE, TRUST, chain

SET, OTHER = b"p" * 32, b"q" * 32


@pytest.fixture
def scored(tmp_path: Path) -> Iterator[tuple[SqliteStore, list[int]]]:
    """A store, and the ids of its three versions."""
    path = tmp_path / "fleet.db"
    create_registry(path, fleet="orchard", identity=IDENTITY, trust=TRUST, now=1)
    store = open_registry(path, synchronous="OFF")
    store.bases.add(BASE)
    store.devices.add("pi-7", KEY, 10)
    lineage = store.lineages.ensure("pi-7", "digits").id
    store.lineages.grant(lineage, STATE, BASE.commit, 11)
    yield store, chain(store, lineage, 3)
    store.close()


def row(subject: int | bytes, context: str = "", probes: bytes = SET, **fields: object) -> EvaluationRow:
    return replace(EvaluationRow(subject, probes, context, 10, 7, 8, 4.5, 0, 2.0, 9), **fields)  # type: ignore[arg-type]


def test_scores_are_told_by_subject_set_and_context(scored: tuple[SqliteStore, list[int]]) -> None:
    store, ids = scored
    base = store.bases.all()[0].commit
    held = [
        row(ids[0]), row(ids[0], "light=night", n=4, right=1, base_right=None), row(ids[1]), row(base),
        row(ids[0], probes=OTHER, right=None, loss=None),
    ]  # fmt: skip
    store.evaluations.put(held)
    assert store.evaluations.of(ids[0]) == [held[0], held[1], held[4]] and store.evaluations.of(ids[0], OTHER) == [held[4]]
    assert store.evaluations.of(base) == [held[3]] and store.evaluations.of(b"x" * 32) == []
    assert store.evaluations.matrix(SET, [*ids[:3], base]) == {
        ids[0]: {"": held[0], "light=night": held[1]}, ids[1]: {"": held[2]}, ids[2]: {}, base: {"": held[3]},
    }  # fmt: skip
    assert store.evaluations.matrix(SET, ids[:1], "light=night") == {ids[0]: {"light=night": held[1]}}
    assert store.evaluations.missing(SET, [ids[2], base, ids[0], b"x" * 32]) == [ids[2], b"x" * 32]
    assert store.evaluations.missing(OTHER, [*ids[:3], base]) == [ids[1], ids[2], base]
    assert store.evaluations.probes() == [SET, OTHER] == store.evaluations.probes(ids[0]) and store.evaluations.probes(base) == [SET]
    assert held[1].score == 0.25 and held[4].score is None


def test_a_new_score_takes_the_place_of_the_old_and_all_may_go(scored: tuple[SqliteStore, list[int]]) -> None:
    store, ids = scored
    store.evaluations.put([row(ids[0]), row(ids[1]), row(ids[1], probes=OTHER)])
    store.evaluations.put([row(ids[0], right=0, fault="it crashed")])
    assert [one.fault for one in store.evaluations.of(ids[0])] == ["it crashed"]
    assert store.evaluations.drop(SET) == 2 and store.evaluations.probes() == [OTHER]
    assert store.evaluations.drop() == 1 and store.evaluations.probes() == []


def test_many_subjects_are_asked_for_at_once(scored: tuple[SqliteStore, list[int]]) -> None:
    store, ids = scored
    store.evaluations.put([row(ids[1])])
    many = [*range(10_000, 11_200), ids[1]]
    assert store.evaluations.missing(SET, many) == many[:-1]


WRONG = (row(1, right=11), row(1, n=0, right=0, base_right=None), row(1, base_right=11), row(1, probes=b"short"), row(999), row(b"y" * 32))


@pytest.mark.parametrize("wrong", WRONG)
def test_a_score_of_nothing_or_of_nobody_is_refused_with_all_beside_it(scored: tuple[SqliteStore, list[int]], wrong: EvaluationRow) -> None:
    store, ids = scored
    subject = ids[0] if wrong.subject == 1 else wrong.subject
    with pytest.raises(ModelWireError):
        store.evaluations.put([row(ids[2]), replace(wrong, subject=subject)])
    assert store.evaluations.probes() == []
