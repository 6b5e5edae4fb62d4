"""Every negative vector of the pages of the container and of the coder is refused, with the error that it names."""

from __future__ import annotations

import re

import pytest

from modelwire.wire import ed25519
from tests.vectors.container_readers import READERS
from tests.vectors.refusals import coder, container
from tests.vectors.refused import Refused, rules, vectors

VECTORS = [*vectors("container"), *vectors("coder")]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.file.name)
def test_a_negative_vector_is_refused_with_its_error(vector: Refused) -> None:
    assert vector.verdict(READERS) == vector.error


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.error == "BadSignature"], ids=lambda v: v.file.name)
def test_a_bad_signature_is_refused_by_both_libraries(vector: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for curve in (ed25519._OpenSsl, ed25519._Cryptography):
        monkeypatch.setattr(ed25519, "_chosen", curve())
        assert vector.verdict(READERS) == "BadSignature"


def test_every_rule_of_the_two_pages_has_a_vector_and_every_vector_a_rule() -> None:
    of_the_pages = {number for number in rules() if number[0] in "CK"}
    assert {rule for vector in VECTORS for rule in vector.rules} == of_the_pages
    for letter in "CK":
        numbers = [int(number[1:]) for number in rules() if number[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1)), "rules rise without a gap"


def test_a_vector_names_an_error_that_its_rule_names() -> None:
    texts = rules()
    for vector in VECTORS:
        named = re.findall(r"`([A-Z][A-Za-z]+)`", " ".join(texts[rule] for rule in vector.rules))
        assert vector.error in named, (vector.file.name, named)


@pytest.mark.parametrize(("page", "maker"), [("container", container), ("coder", coder)])
def test_the_makers_write_the_vectors_that_are_there(page: str, maker: object) -> None:
    made = {case.file: case for case in maker.cases()}  # type: ignore[attr-defined]
    kept = {vector.file.name: vector for vector in vectors(page)}
    assert made.keys() == kept.keys()
    for name, vector in kept.items():
        assert made[name].data == vector.file.read_bytes()
        assert (made[name].read_as, dict(made[name].held)) == (vector.read_as, dict(vector.held))
