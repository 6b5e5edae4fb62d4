"""A claim lets in as many boards as the operator said, each once, and takes nothing from anybody; what it refuses leaves one row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgecloud.audit import entries, tampering
from edgecloud.audit.admissions import Admissions
from edgecloud.audit.telling import tell
from edgecloud.intake.decision import Decision, Result
from edgecloud.registry import SqliteStore, claims, open_registry
from edgecloud.registry.claims import Statement, Withdrawal, prove
from modelwire.errors import RegistryDamaged
from modelwire.wire import cbor, records, topics
from modelwire.wire.claims import Token, read_token, write_token
from modelwire.wire.log import next_link
from modelwire.wire.records import Enrol, encode
from modelwire.wire.signing import PrivateKey
from tests.edgecloud.centre import Centre, admit, damage, revoke, sign
from tests.edgecloud.device import FLEET, Base, ScriptedDevice, key_of
from tests.evidence.claims import claim_admitted
from tests.keys import COMMAND, FLEET_ID, RECEIPT

ID, FAR = b"\x0c" * 16, 1 << 40


def token_of(id: bytes = ID, seed: bytes = b"\xc1" * 32) -> Token:
    return read_token(write_token(id, seed), "the token")


TOKEN = token_of()


def give(
    store: SqliteStore, count: int = 2, *, token: Token = TOKEN, serials: tuple[str, ...] = (), expiry: int = FAR,
    key: PrivateKey = COMMAND, fleet: bytes = FLEET_ID,
) -> Statement:  # fmt: skip
    """Enter a claim, as `edgecloud claim new` does."""
    said = Statement(token.id, token.key.public, count, expiry, serials, 1)
    store.log.append(entries.CLAIM, record=claims.seal(said, key, fleet))
    return said


def enrol(
    name: str, *, serial: str = "", token: Token = TOKEN, key: PrivateKey | None = None, fleet: bytes = FLEET_ID, proved: str = "",
    signer: PrivateKey | None = None,
) -> tuple[str, bytes]:  # fmt: skip
    """Return what a board says that would be let in. proved: another name that its proof is for; signer: another key that signs."""
    key = key or key_of(name)
    proof = prove(token, fleet, proved or name, key.public, serial)
    said = Enrol(FLEET, name, "all", 1, key.public, proof, serial, "0.1.0")
    return topics.up(FLEET, name, "all", "enrol"), encode(said, signer or key, FLEET_ID)


def refused(centre: Centre, message: tuple[str, bytes], why: str) -> Decision:
    """Take what is refused for this reason, with nothing changed but the list of refusals."""
    before, end = centre.store.devices.names(), centre.store.log.end()
    outcome = centre.take(message)
    assert outcome.result is Result.DROPPED and why in outcome.reason, outcome
    assert (centre.store.devices.names(), centre.store.log.end()) == (before, end)
    assert any(row.device == outcome.device for row in centre.store.refusals.last(100))
    return outcome


def whole(centre: Centre) -> None:
    """Let another reader replay the log from its first entry, and look for what does not fit it."""
    assert tampering.look(centre.store) == []


def test_a_claim_of_100_lets_in_100_boards_and_not_one_more(centre: Centre, base: Base) -> None:
    give(centre.store, 100, serials=tuple(f"s{n:03}" for n in range(101)))
    outcomes = [centre.take(enrol(f"pi-{n}", serial=f"s{n:03}")) for n in range(101)]
    assert [o.result for o in outcomes] == [Result.ADMITTED] * 100 + [Result.DROPPED]
    assert "it was for 100 boards, and all are in" in outcomes[100].reason
    assert len(centre.store.devices.names()) == 100
    assert centre.greet(ScriptedDevice(base, name="pi-0")).result is Result.WELCOMED
    assert centre.greet(ScriptedDevice(base, name="pi-100")).result is Result.QUARANTINED
    whole(centre)


def batch(centre: Centre, messages: list[tuple[str, bytes]]) -> list[Decision]:
    """Take messages as the ingester does, in one transaction."""
    with centre.store.transaction():
        centre.ingest.catch_up()
        outcomes = [centre.ingest.take(*message, centre.now) for message in messages]
        sign(centre.store)
    return outcomes


def test_a_batch_of_101_boards_counts_each_of_them(centre: Centre) -> None:
    give(centre.store, 100, serials=tuple(f"s{n:03}" for n in range(101)))
    outcomes = batch(centre, [enrol(f"pi-{n}", serial=f"s{n:03}") for n in range(101)])
    assert [o.result for o in outcomes] == [Result.ADMITTED] * 100 + [Result.DROPPED]
    whole(centre)


def test_within_a_batch_a_serial_number_and_a_name_come_once_and_the_hello_behind_it_is_welcome(centre: Centre, base: Base) -> None:
    give(centre.store, 3, serials=("a", "b", "c"))
    board = ScriptedDevice(base, name="pi-1")
    messages = [
        board.hello(), enrol("pi-1", serial="a"), board.hello(), enrol("pi-1", serial="a"), enrol("pi-2", serial="a"),
        enrol("pi-1", serial="b", key=key_of("mallory")), enrol("pi-3", serial="b"),
    ]  # fmt: skip
    wanted = [
        Result.QUARANTINED, Result.ADMITTED, Result.CHALLENGED, Result.NOTED, Result.DROPPED, Result.DROPPED, Result.ADMITTED
    ]  # fmt: skip
    assert [o.result for o in batch(centre, messages)] == wanted
    whole(centre)


def test_the_evidence_counts_the_boards_of_a_claim(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    assert claim_admitted(tmp_path / "work") == 100


def test_a_board_that_was_let_in_works_like_any_other_and_its_waiting_hello_is_taken_up(centre: Centre, base: Base) -> None:
    give(centre.store)
    board = ScriptedDevice(base, name="pi-9")
    assert centre.take(board.hello()).result is Result.QUARANTINED
    assert centre.take(enrol("pi-9")).result is Result.ADMITTED
    assert [o.result for o in centre.tick()] == [Result.CHALLENGED]
    centre.said()
    centre.meet(board)
    centre.deliver(board, board.train())
    centre.rebuild()
    assert centre.statuses(board) == {1: "verified"}
    whole(centre)


def test_the_same_board_may_say_it_again_and_is_counted_once(centre: Centre) -> None:
    give(centre.store, 2)
    message = enrol("pi-9", serial="a")
    assert centre.take(message).result is Result.ADMITTED
    end = centre.store.log.end()
    for again in (message, enrol("pi-9", serial="a")):
        outcome = centre.take(again)
        assert outcome.result is Result.NOTED and "before" in outcome.reason
    assert centre.store.log.end() == end and centre.store.refusals.count() == 0
    assert centre.take(enrol("pi-8", serial="b")).result is Result.ADMITTED


def test_a_serial_number_lets_in_one_board_whoever_comes_second(centre: Centre) -> None:
    give(centre.store, 2, serials=("a", "b"))
    assert centre.take(enrol("pi-9", serial="a")).result is Result.ADMITTED
    refused(centre, enrol("pi-8", serial="a"), "the board a was let in before, as pi-9")
    refused(centre, enrol("pi-9", serial="a", key=key_of("mallory")), "the board a was let in before")
    refused(centre, enrol("pi-8", serial="c"), "none that it lists")
    refused(centre, enrol("pi-8"), "none that it lists")
    assert centre.take(enrol("pi-8", serial="b")).result is Result.ADMITTED


def test_of_two_boards_at_once_with_one_serial_number_one_is_let_in(store: SqliteStore) -> None:
    """Two ingesters on one registry, which the lock forbids and a copy of the container may still bring about."""
    give(store, 2, serials=("a", "b"))
    path, start, results = store.database.path, threading.Barrier(2), list[Result]()

    def come(name: str) -> None:
        own = open_registry(path, synchronous="OFF")
        try:
            centre = Centre(own)
            start.wait()
            results.append(centre.take(enrol(name, serial="a")).result)
        finally:
            own.close()

    threads = [threading.Thread(target=come, args=(name,)) for name in ("pi-8", "pi-9")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.value for r in results) == ["admitted", "dropped"] and len(store.devices.names()) == 1


def test_after_its_time_and_after_it_was_withdrawn_a_claim_lets_nobody_in_and_who_is_in_stays(centre: Centre, base: Base) -> None:
    give(centre.store, 10, expiry=2000)
    centre.now = 2000
    assert centre.take(enrol("pi-1")).result is Result.ADMITTED
    centre.now = 2001
    refused(centre, enrol("pi-2"), "it has expired")
    other = token_of(b"\x0d" * 16)
    give(centre.store, 10, token=other)
    assert centre.take(enrol("pi-3", token=other)).result is Result.ADMITTED
    taken = claims.withdraw(Withdrawal(other.id, 5), COMMAND, FLEET_ID)
    centre.store.log.append(entries.WITHDRAWAL, record=taken)
    refused(centre, enrol("pi-4", token=other), "the operator has withdrawn it")
    for name, token in (("pi-1", TOKEN), ("pi-3", other)):
        assert centre.greet(ScriptedDevice(base, name=name)).result is Result.WELCOMED
        assert centre.take(enrol(name, token=token)).result is Result.NOTED
    whole(centre)


def test_a_claim_never_replaces_a_key_nor_brings_one_back(centre: Centre) -> None:
    store = centre.store
    give(store, 10)
    admit(store, "pi-7", key_of("pi-7").public, 5)
    refused(centre, enrol("pi-7", key=key_of("mallory")), "a device of this name has, or had, another key")
    refused(centre, enrol("pi-8", key=key_of("pi-7")), "speaks for pi-7")
    revoke(store, "pi-7", 6)
    refused(centre, enrol("pi-7"), "was revoked")
    refused(centre, enrol("pi-7", key=key_of("another")), "has, or had, another key")
    refused(centre, enrol("pi-8", key=key_of("pi-7")), "was revoked")
    store.devices.reject("pi-6", key_of("stranger").public, 7)
    for name in ("pi-6", "pi-5"):
        refused(centre, enrol(name, key=key_of("stranger")), "the operator has decided about")
    assert centre.take(enrol("pi-4")).result is Result.ADMITTED
    revoke(store, "pi-4", 8)
    refused(centre, enrol("pi-4"), "was revoked")


def half(message: tuple[str, bytes]) -> tuple[str, bytes]:
    said = records.parse(message[1]).record
    assert isinstance(said, Enrol)
    return message[0], encode(replace(said, claim=said.claim[:40]), key_of(said.device), FLEET_ID)


def of_fleet(id: bytes) -> tuple[str, bytes]:
    key = key_of("pi-9")
    said = Enrol(FLEET, "pi-9", "all", 1, key.public, prove(TOKEN, id, "pi-9", key.public, ""), "", "0.1.0")
    return topics.up(FLEET, "pi-9", "all", "enrol"), encode(said, key, id)


def with_serial(serial: str) -> tuple[str, bytes]:
    topic, data = enrol("pi-9", serial="a")
    said = records.parse(data).record
    assert isinstance(said, Enrol)
    return topic, encode(replace(said, serial=serial), key_of("pi-9"), FLEET_ID)


WRONG: dict[str, tuple[Callable[[], tuple[str, bytes]], str]] = {
    "a claim of which the id alone is known": (lambda: enrol("pi-9", token=token_of(seed=bytes(32))), "does not belong to"),
    "a claim that nobody gave": (lambda: enrol("pi-9", token=token_of(bytes(16))), "gave no such claim"),
    "a token for another fleet": (lambda: enrol("pi-9", fleet=bytes(16)), "does not belong to"),
    "a proof that another name was heard to say": (lambda: enrol("pi-9", proved="pi-8"), "does not belong to"),
    "a record that another key signed": (lambda: enrol("pi-9", signer=key_of("mallory")), "BadSignature"),
    "another board's topic": (lambda: (topics.up(FLEET, "pi-8", "all", "enrol"), enrol("pi-9")[1]), "Malformed"),
    "another fleet's id in the record": (lambda: of_fleet(bytes(16)), "WrongFleet"),
    "a proof over another record's serial number": (lambda: with_serial("b"), "does not belong to"),
    "half a proof": (lambda: half(enrol("pi-9")), "40 bytes instead of 80"),
}


@pytest.mark.parametrize("how", WRONG)
def test_what_proves_nothing_lets_nobody_in(centre: Centre, how: str) -> None:
    give(centre.store)
    make, why = WRONG[how]
    outcome = centre.take(make())
    assert outcome.result is Result.DROPPED and why in outcome.reason
    assert centre.store.devices.names() == []


def test_what_the_broker_heard_is_good_for_nobody_else(centre: Centre) -> None:
    """A replay lets in only the board that said it; its parts, put into a record of one's own, prove nothing."""
    give(centre.store, 2, serials=("a", "b"))
    message = enrol("pi-9", serial="a")
    said, mallory = records.parse(message[1]).record, key_of("mallory")
    assert isinstance(said, Enrol)
    for stolen in (replace(said, key=mallory.public), replace(said, key=mallory.public, device="pi-6"), replace(said, serial="b")):
        signer = mallory if stolen.key == mallory.public else key_of("pi-9")
        topic = topics.up(FLEET, stolen.device, "all", "enrol")
        refused(centre, (topic, encode(stolen, signer, FLEET_ID)), "does not belong to")
    assert centre.take(message).result is Result.ADMITTED
    assert centre.store.devices.owner(key_of("pi-9").public) == "pi-9"


def test_a_flood_of_bad_claims_leaves_few_rows_and_no_entry(centre: Centre) -> None:
    give(centre.store)
    centre.ingest.bounds = centre.bounds = replace(centre.bounds, refusals=50)
    before = centre.store.log.end()
    for n in range(400):
        assert centre.take(enrol(f"pi-{n}", token=token_of(n.to_bytes(16, "big")))).result is Result.DROPPED
    assert centre.store.refusals.count() == 50 and centre.store.log.end() == before and centre.store.devices.names() == []


# The registry holds no secret and takes nobody's word for a claim.


def test_nothing_in_the_registry_or_on_the_wire_lets_anybody_in(centre: Centre, tmp_path: Path) -> None:
    give(centre.store)
    centre.take(enrol("pi-9", serial="a"))
    centre.store.close()
    held = (tmp_path / "fleet.db").read_bytes()
    assert b"\xc1" * 32 not in held and ("c1" * 32).encode() not in held and TOKEN.key.public in held


@pytest.fixture
def altered(store: SqliteStore) -> Iterator[Centre]:
    give(store, 1)
    made = Centre(store)
    made.take(enrol("pi-1"))
    yield made


def relinked(store: SqliteStore, number: int, **change: cbor.Value) -> None:
    """Change an entry of the log and make all links anew, as somebody would who knows how."""
    before = None
    for row in list(store.log.after(0)):
        entry = row.entry
        if row.number == number:
            values = cbor.decode(entry)
            assert isinstance(values, dict)
            entry = cbor.encode({**values, **change})
        before = next_link(before, entry)
        damage(store, "UPDATE log SET entry = ?, link = ? WHERE number = ?", entry, before.digest, row.number)


def named(store: SqliteStore, words: str) -> None:
    """Let the ingester refuse to go on, and the search for tampering say why."""
    with pytest.raises(RegistryDamaged):
        Centre(store).take(enrol("pi-2"))
    with pytest.raises(RegistryDamaged, match=words):
        Admissions(store.identity).catch_up(store.log, "it")
    assert any(words in found for found in tampering.look(store))


def test_a_statement_of_more_boards_is_not_the_operators(altered: Centre) -> None:
    store = altered.store
    said = Statement(ID, TOKEN.key.public, 1000, FAR, (), 1)
    relinked(store, 2, record=claims.seal(said, RECEIPT, FLEET_ID))
    named(store, "does not belong to the fleet's command key")


def test_an_enrolment_that_nobody_proved_is_found_in_the_log(altered: Centre) -> None:
    store = altered.store
    relinked(store, 3, record=enrol("pi-66", token=token_of(seed=bytes(32)))[1])
    named(store, "is not let in by the claim")


def test_an_enrolment_that_names_another_claim_is_found_in_the_log(altered: Centre) -> None:
    relinked(altered.store, 3, claim=bytes(16))
    named(altered.store, "names another claim than its record")


def test_who_has_a_token_and_the_file_enters_nobody_without_the_ingester(altered: Centre) -> None:
    store, token = altered.store, token_of(b"\x0d" * 16)
    give(store, 5, token=token)
    centre = Centre(store)
    centre.take(enrol("pi-3", token=token))
    record = enrol("pi-4", token=token)[1]
    other = open_registry(store.database.path, synchronous="OFF")
    other.log.append(entries.ENROL, claim=token.id, record=record)
    other.devices.add("pi-4", key_of("pi-4").public, 9)
    other.close()
    with pytest.raises(RegistryDamaged, match="was made by no ingester"):
        centre.take(enrol("pi-5", token=token))


@pytest.mark.parametrize("kind", [entries.CLAIM, entries.WITHDRAWAL])
def test_only_what_the_operator_sealed_gives_or_takes_a_claim(centre: Centre, kind: str) -> None:
    give(centre.store)
    sealed = {
        entries.CLAIM: claims.seal(Statement(bytes(16), TOKEN.key.public, 5, FAR, (), 1), RECEIPT, FLEET_ID),
        entries.WITHDRAWAL: claims.withdraw(Withdrawal(ID, 1), RECEIPT, FLEET_ID),
    }[kind]
    centre.store.log.append(kind, record=sealed)
    with pytest.raises(RegistryDamaged, match="does not belong to the fleet's command key"):
        centre.take(enrol("pi-9"))


def test_a_claim_is_given_once_and_only_what_was_given_is_withdrawn(centre: Centre) -> None:
    give(centre.store)
    give(centre.store, 1000)
    with pytest.raises(RegistryDamaged, match="was given before"):
        centre.take(enrol("pi-9"))
    other = Admissions(centre.store.identity)
    for row in centre.store.log.after(0):
        if row.number < 3:
            other.take(entries.parse(row))
    with pytest.raises(Exception, match="was never given"):
        other.claims.withdraw(Withdrawal(bytes(16), 1), 3)


def test_a_board_is_let_in_or_not_when_the_ingester_dies_in_between(store: SqliteStore) -> None:
    """Entry and key are one transaction: a kill before its end leaves neither, and the board says it again."""
    give(store, 1)
    centre = Centre(store)

    class Killed(Exception):
        pass

    with pytest.raises(Killed), store.transaction():
        centre.ingest.take(*enrol("pi-9"), centre.now)
        raise Killed
    centre.ingest.forget()
    assert store.devices.names() == [] and centre.take(enrol("pi-9")).result is Result.ADMITTED
    whole(centre)


@pytest.mark.parametrize("kind", [entries.TRUST, entries.ACT, entries.COMMAND, entries.CLAIM, entries.WITHDRAWAL, entries.ENROL])
def test_an_entry_that_holds_no_record_is_told_as_that_and_hides_nothing_behind_it(centre: Centre, kind: str) -> None:
    centre.store.log.append(kind, record=b"junk", **({"claim": ID} if kind == entries.ENROL else {}))
    give(centre.store)
    told = list(tell(centre.store.log, centre.store.identity))
    assert (told[-2]["who"], told[-2]["what"]) == ("nobody", kind) and "NOT SEALED" in told[-2]["text"]
    assert told[-1]["text"] == "gave it for 2 boards"
