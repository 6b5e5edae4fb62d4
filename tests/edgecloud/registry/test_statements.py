"""What the operator seals about what is kept: read strictly, by the right key, in the right fleet, as the right thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

import pytest

from edgecloud.registry import statements
from edgecloud.registry.statements import Erasure, Policy, Purge, read_erasure, read_policy, read_purge, seal, unsealed
from modelwire.errors import BadSignature, ModelWireError, TooLarge
from modelwire.wire import cbor
from tests.keys import COMMAND, DIRECTOR, FLEET_ID, RECEIPT

Reader = Callable[[bytes, bytes, Iterable[bytes]], object]
KEYS = (RECEIPT.public, COMMAND.public)
ALL: list[tuple[Any, Reader]] = [
    (Policy(3, 4, "last 2"), read_policy), (Purge(5, 6, "pi-7"), read_purge),
    (Erasure(7, 8, b"k" * 64, b"c" * 16, 9, b"r" * 32), read_erasure),
]  # fmt: skip


@pytest.mark.parametrize(("said", "read"), ALL)
def test_a_statement_reads_back_as_it_was_sealed_and_as_nothing_else(said: Any, read: Reader) -> None:
    sealed = seal(said, COMMAND, FLEET_ID)
    assert read(sealed, FLEET_ID, KEYS) == said == unsealed(sealed)
    for place in range(len(sealed)):
        with pytest.raises(ModelWireError):
            read(sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :], FLEET_ID, KEYS)
        with pytest.raises(ModelWireError):
            read(sealed[:place], FLEET_ID, KEYS)
    for fleet, keys in ((bytes(16), KEYS), (FLEET_ID, (RECEIPT.public,)), (FLEET_ID, ())):
        with pytest.raises(BadSignature):
            read(sealed, fleet, keys)
    with pytest.raises(BadSignature):
        read(seal(said, DIRECTOR, FLEET_ID), FLEET_ID, KEYS)
    for other in (one for _, one in ALL if one is not read):
        with pytest.raises(BadSignature):  # each has a domain of its own
            other(sealed, FLEET_ID, KEYS)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (ALL[0][0], {"number": 0}), (ALL[0][0], {"at": -1}), (ALL[0][0], {"keep": ""}), (ALL[0][0], {"keep": "a" * 101}),
        (ALL[0][0], {"keep": "last\n1"}), (ALL[1][0], {"device": "Pi 7"}), (ALL[1][0], {"number": 1 << 63}), (ALL[2][0], {"keys": b"k"}),
        (ALL[2][0], {"claims": b"c"}), (ALL[2][0], {"root": b""}), (ALL[2][0], {"count": -1}), (ALL[2][0], {"count": 1 << 31}),
    ],
)  # fmt: skip
def test_a_statement_out_of_range_is_neither_sealed_nor_read(said: Any, change: dict[str, object]) -> None:
    wrong = replace(said, **change)
    with pytest.raises(ModelWireError):
        seal(wrong, COMMAND, FLEET_ID)
    try:
        body = cbor.encode(asdict(wrong))
    except ModelWireError:
        return  # no record holds it
    with pytest.raises(ModelWireError):
        unsealed(body + bytes(64))


@pytest.mark.parametrize("body", [None, [], {}, {"keep": "all"}, {**asdict(ALL[0][0]), "more": 1}, {**asdict(ALL[0][0]), "number": True}])
def test_what_is_no_statement_is_malformed(body: Any) -> None:
    with pytest.raises(ModelWireError):
        unsealed(cbor.encode(body) + bytes(64))


def test_a_statement_that_is_too_large_is_not_read() -> None:
    with pytest.raises(TooLarge):
        read_policy(bytes(statements.SEALED_MAX + 1), FLEET_ID, KEYS)
