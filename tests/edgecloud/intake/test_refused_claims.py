"""A board whose claim does not let it in is told why by its welcome; who holds no token is told nothing, and who holds one of no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecloud.audit import entries, refusing
from edgecloud.intake.decision import Decision, Result
from edgecloud.registry import SqliteStore, claims
from edgecloud.registry.claims import Withdrawal, prove
from modelwire.wire.claims import REFUSED, SERIAL, Token, refusal_in
from modelwire.wire.records import Hello, Welcome, expect, parse
from modelwire.wire.signing import PrivateKey
from tests.edgecloud.centre import Centre, admit, revoke
from tests.edgecloud.device import Base, ScriptedDevice, key_of
from tests.keys import COMMAND, FLEET_ID

from .test_claims import TOKEN, enrol, give, token_of


def greeting(
    base: Base, name: str, *, serial: str = "", token: Token = TOKEN, key: PrivateKey | None = None, **other: Any
) -> tuple[str, bytes]:
    """Return the hello of a board with a token. other: fields to say otherwise."""
    key = key or key_of(name)
    proof = prove(token, FLEET_ID, name, key.public, serial)
    board = ScriptedDevice(base, name=name)
    board.key = key
    return board.hello(**{"claim": proof, "more": {SERIAL: serial}, **other})


def answer(centre: Centre, message: tuple[str, bytes]) -> tuple[Decision, Welcome]:
    """Return what becomes of a hello, and its welcome."""
    centre.said()
    outcome = centre.take(message)
    (said,) = [record for record in centre.said() if isinstance(record, Welcome)]
    return outcome, said


def told(centre: Centre, message: tuple[str, bytes]) -> str:
    """Return what the welcome of a board that stays in quarantine says of its claim."""
    outcome, said = answer(centre, message)
    assert (outcome.result, said.status) == (Result.QUARANTINED, "quarantine")
    assert refusal_in(said.more) == said.more.get(REFUSED, "")
    return refusal_in(said.more)


def why_not(centre: Centre, message: tuple[str, bytes]) -> str:
    """Return what the operator reads of the same hello."""
    return refusing.why_not(centre.ingest.admissions, expect(parse(message[1]), Hello), centre.now)


def test_a_board_beyond_the_count_is_told_so_and_the_log_says_it(centre: Centre, base: Base) -> None:
    give(centre.store, 1)
    assert told(centre, greeting(base, "pi-1")) == "", "an open claim refuses nobody: the board enrols"
    assert centre.take(enrol("pi-1")).result is Result.ADMITTED
    outcome, said = answer(centre, greeting(base, "pi-2"))
    assert said.more[REFUSED] == "it was for 1 board, and all are in"
    assert "is not registered, and its claim does not let it in: it was for 1 board, and all are in" in outcome.reason
    assert why_not(centre, greeting(base, "pi-2")) == said.more[REFUSED]
    assert answer(centre, greeting(base, "pi-1"))[1].status == "challenge"


def test_a_claim_that_ended_says_how_whatever_the_serial_number(centre: Centre, base: Base) -> None:
    give(centre.store, 2, serials=("a", "b"), expiry=2000)
    centre.now = 2001
    for serial in ("a", "x", ""):
        assert told(centre, greeting(base, "pi-1", serial=serial)) == "it has expired"
    other = token_of(b"\x0d" * 16)
    give(centre.store, 2, token=other)
    centre.store.log.append(entries.WITHDRAWAL, record=claims.withdraw(Withdrawal(other.id, 5), COMMAND, FLEET_ID))
    assert told(centre, greeting(base, "pi-1", token=other)) == "the operator has withdrawn it"


def test_of_serial_numbers_and_names_only_the_operator_is_told_which(centre: Centre, base: Base) -> None:
    """Who has a token tries serial numbers and names: what is not listed and what is taken look the same to him."""
    store = centre.store
    give(store, 3, serials=("a", "b", "c"))
    admit(store, "pi-7", key_of("pi-7").public, 5)
    assert centre.take(enrol("pi-1", serial="a")).result is Result.ADMITTED
    taken, unlisted = greeting(base, "pi-2", serial="a"), greeting(base, "pi-2", serial="x")
    assert told(centre, taken) == told(centre, unlisted) == refusing.NO_SERIAL
    assert "as pi-1" in why_not(centre, taken) and "none that it lists" in why_not(centre, unlisted)
    name, mallory = greeting(base, "pi-7", serial="b", key=key_of("mallory")), key_of("mallory")
    assert told(centre, name) == refusing.DECIDED
    revoke(store, "pi-7", 6)
    assert told(centre, name) == refusing.DECIDED == told(centre, greeting(base, "pi-7", serial="b"))
    assert "was revoked" in why_not(centre, greeting(base, "pi-7", serial="b"))
    for said in (refusing.NO_SERIAL, refusing.DECIDED):
        assert "pi-" not in said
    store.devices.reject("pi-6", mallory.public, 7)
    assert told(centre, greeting(base, "pi-6", serial="x", key=mallory)) == ""


@pytest.mark.parametrize("state", ["open", "used up", "expired", "withdrawn", "none"])
def test_without_the_token_nothing_is_told_whatever_the_claim(centre: Centre, base: Base, state: str) -> None:
    store = centre.store
    if state != "none":
        give(store, 1, serials=("a",), expiry=2000)
    if state == "used up":
        assert centre.take(enrol("pi-1", serial="a")).result is Result.ADMITTED
    centre.now = 2001 if state == "expired" else centre.now
    if state == "withdrawn":
        store.log.append(entries.WITHDRAWAL, record=claims.withdraw(Withdrawal(TOKEN.id, 5), COMMAND, FLEET_ID))
    heard = prove(TOKEN, FLEET_ID, "pi-8", key_of("pi-8").public, "a")  # by who listens at the broker
    for message in (
        greeting(base, "pi-9", token=token_of(seed=bytes(32))), greeting(base, "pi-9", claim=heard),
        greeting(base, "pi-9", serial="a", more={SERIAL: "b"}), greeting(base, "pi-9", serial="a", more={}),
        greeting(base, "pi-9", claim=b""), greeting(base, "pi-9", claim=heard[:40]), greeting(base, "pi-9", claim=bytes(80)),
    ):  # fmt: skip
        _, said = answer(centre, message)
        assert said.status == "quarantine" and REFUSED not in said.more
    # A hello of an earlier release: what concerns all boards is known to the operator, the rest is not.
    old = why_not(centre, greeting(base, "pi-9", serial="a", more={}))
    assert old == {"open": "", "used up": "it was for 1 board, and all are in", "expired": "it has expired",
                   "withdrawn": "the operator has withdrawn it", "none": "the operator gave no such claim"}[state]  # fmt: skip


_ODD = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.binary(max_size=70), st.text(max_size=70), st.lists(st.text(max_size=3)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(claim=st.binary(max_size=256), serial=_ODD, real=st.booleans())
def test_whatever_a_hello_says_of_a_claim_it_is_answered_as_ever(
    store: SqliteStore, base: Base, claim: bytes, serial: Any, real: bool
) -> None:
    centre = Centre(store)
    if not store.log.has_claims():
        give(store, 1)
    said = TOKEN.id + claim[:64] if real else claim
    message = greeting(base, "pi-9", claim=said, more={SERIAL: serial} if serial is not None else {"other": 1})
    assert told(centre, message) == ""
    assert isinstance(why_not(centre, message), str)
