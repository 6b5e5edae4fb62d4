"""Who may say what to a device, and what becomes of what it does not understand: refused by name, or answered once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from edgeagent.service.goal import Goal
from modelwire.errors import BadSignature, Malformed, NotUnderstood, WireError, WrongFleet, WrongRole
from modelwire.wire import cbor, records, topics
from modelwire.wire.records import Desired, Level, Receipt, Record, Response, Transfer, Trust, Wait, Welcome
from modelwire.wire.signing import PrivateKey, Role
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, Rig, centre, command, fill, rig
from tests.edgeagent.centre import SIGNERS, FakeClock, welcome_of

STRANGER = PrivateKey(bytes(32))
NAMES = ("home", "pi-7", "tiny", 0)


@dataclass(frozen=True, slots=True)
class Later(Record):
    """A record that a later release may say."""

    KIND: ClassVar[str] = "later"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.RECEIPT, Role.COMMAND)

    number: int


@dataclass(frozen=True, slots=True)
class Bare(Record):
    """One without a number."""

    KIND: ClassVar[str] = "bare"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.RECEIPT,)


def arrive(r: Rig, record: Record, key: PrivateKey, *, leaf: str = "cmd", fleet: bytes = keys.FLEET_ID, role: Role | None = None) -> None:
    """Let a record arrive as the session of its model takes it."""
    topic = topics.parse(topics.down("home", "pi-7", "tiny", leaf))
    r.agent.sessions["tiny"].arrived(topic, records.encode(record, key, fleet, role=role), 0.0)


def forged(record: Record, key: PrivateKey, role: Role) -> bytes:
    """Return a record that says another role than its kind may have, which `encode` would not write."""
    kinds = type(record)
    allowed, kinds.ROLES = kinds.ROLES, (*kinds.ROLES, role)
    try:
        return records.encode(record, key, keys.FLEET_ID, role=role)
    finally:
        kinds.ROLES = allowed


def grown(r: Rig) -> None:
    fill(r.device)
    r.run(Goal(rounds=1, timeout=60))


def lies(r: Rig) -> list[tuple[Record, str, PrivateKey]]:
    """Return one record of each kind that a device takes, with where it belongs and who says it."""
    head = r.lineage.head()
    return [
        (welcome_of("home", "pi-7", "tiny", r.device.state, "ok", 2, 0, r.lineage.base_commit, 0, 0, time=1 << 40), "cmd", keys.RECEIPT),
        (Wait(*NAMES, 600, ""), "cmd", keys.RECEIPT),
        (command(r, 5), "cmd", keys.COMMAND),
        (Receipt(*NAMES, 1, 1, head.commit, Level.REFUSED, "no", r.lineage.base_commit, 0, 0), "receipt", keys.RECEIPT),
        (Desired(*NAMES, 5, 1 << 40, bytes(32), 1, 0), "desired", keys.DIRECTOR),
        (Later(*NAMES, 3), "cmd", keys.RECEIPT),
    ]


def untouched(r: Rig) -> tuple[object, ...]:
    sent = len(r.centre.answers), len(r.centre.reports)
    return r.lineage.head(), r.states(), r.lineage.quiet(), r.lineage.answers.last(), r.lineage.reported(), r.device.trust.time, sent


@pytest.mark.parametrize("kind", range(6))
def test_what_another_key_or_another_fleet_says_is_refused_and_changes_nothing(tmp_path: Path, clock: FakeClock, kind: int) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        record, leaf, right = lies(r)[kind]
        before = untouched(r)
        others = {keys.ROOT, keys.RECEIPT, keys.COMMAND, keys.DIRECTOR, STRANGER, PrivateKey(DEVICE_SEED)} - {right}
        for key in others:
            with pytest.raises(BadSignature):
                arrive(r, record, key, leaf=leaf)
        for key in (right, STRANGER):  # a namesake fleet, whose own key may even be the same
            with pytest.raises(WrongFleet):
                arrive(r, record, key, leaf=leaf, fleet=bytes(16))
        assert untouched(r) == before


@pytest.mark.parametrize("kind", range(5))
def test_what_a_role_may_not_say_is_refused_and_changes_nothing(tmp_path: Path, clock: FakeClock, kind: int) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        record, leaf, _ = lies(r)[kind]
        before = untouched(r)
        topic = topics.parse(topics.down("home", "pi-7", "tiny", leaf))
        for role, key in SIGNERS.items():
            if role in type(record).ROLES:
                continue
            with pytest.raises(WrongRole):
                r.agent.sessions["tiny"].arrived(topic, forged(record, key, role), 0.0)
        assert untouched(r) == before


@pytest.mark.parametrize("kind", range(6))
def test_a_record_with_something_that_must_be_understood_is_refused_whole(tmp_path: Path, clock: FakeClock, kind: int) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        record, leaf, key = lies(r)[kind]
        before = untouched(r)
        with pytest.raises(NotUnderstood):
            arrive(r, replace(record, more={"!new": 1}), key, leaf=leaf)
        assert untouched(r) == before


def test_what_later_releases_add_without_insisting_is_ignored(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        more: dict[str, cbor.Value] = {"new": [1, "x"]}
        r.centre.after(1, lambda: r.centre.push(replace(command(r, 5), more=more)))
        r.serve(3)
        assert [a.ok for a in r.centre.answers] == [True]


def test_a_kind_that_is_not_known_is_answered_with_its_number(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        topic = topics.down("home", "pi-7", "tiny", "cmd")
        told: list[tuple[Record, Role]] = [
            (Later(*NAMES, 44), Role.RECEIPT), (Later(*NAMES, 45), Role.COMMAND), (Bare(*NAMES), Role.RECEIPT)
        ]  # fmt: skip
        for at, (record, role) in enumerate(told):
            data = records.encode(record, SIGNERS[role], keys.FLEET_ID, role=role)
            r.centre.after(1 + at, lambda data=data: r.centre.deliver(topic, data))  # type: ignore[misc]
        r.serve(5)
        assert [(a.number, a.ok, a.text, a.body) for a in r.centre.answers] == [(n, False, "not understood", {}) for n in (44, 45, 0)]
        assert r.lineage.answers.last() == 0, "no command was answered"


def test_a_response_is_never_answered(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        said = len(c.up)
        response = Response(*NAMES, 44, False, records.NOT_UNDERSTOOD, {})
        data = records.encode(response, keys.RECEIPT, keys.FLEET_ID, role=Role.RECEIPT)
        r.agent.sessions["tiny"].arrived(topics.parse(topics.down("home", "pi-7", "tiny", "cmd")), data, 0.0)
        assert len(c.up) == said


@pytest.mark.parametrize(("record", "role", "leaf"), [
    (keys.trust("home", number=2), Role.ROOT, "cmd"),
    (Wait(*NAMES, 9, ""), Role.RECEIPT, "receipt"),
    (Desired(*NAMES, 5, 1 << 40, bytes(32), 1, 0), Role.DIRECTOR, "cmd"),
])  # fmt: skip
def test_what_comes_where_it_does_not_belong_is_refused(tmp_path: Path, clock: FakeClock, record: Record, role: Role, leaf: str) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        key = {Role.ROOT: keys.ROOT, Role.RECEIPT: keys.RECEIPT, Role.DIRECTOR: keys.DIRECTOR}[role]
        before = untouched(r)
        with pytest.raises(Malformed, match=r"does not belong|came on"):
            arrive(r, record, key, leaf=leaf)
        assert untouched(r) == before


def test_a_base_that_is_offered_is_let_pass(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = untouched(r)
        record = Transfer(*NAMES, bytes(32), 5000, 1024, "base", bytes(32), b"")
        arrive(r, record, keys.RECEIPT, leaf="part", role=Role.RECEIPT)
        assert untouched(r) == before


def test_a_device_listens_on_its_own_topics_and_on_the_trust_of_all(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
    assert list(c.listens) == ["e1/home/pi-7/+/dn/#", "e1/home/all/all/dn/trust"]


@pytest.mark.parametrize("device", ["all", "pi-7"])
def test_new_keys_are_taken_from_the_trust_of_all_and_from_ones_own(tmp_path: Path, clock: FakeClock, device: str) -> None:
    c = centre(clock)
    later = PrivateKey(b"\x77" * 32)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        c.trust = replace(keys.trust("home", number=2), receipt=later.public, command=later.public)
        data = records.encode(c.trust, keys.ROOT, keys.FLEET_ID)
        c.after(1, lambda: c.deliver(topics.down("home", device, "all", "trust"), data))
        c.after(2, lambda: c.signers.update({Role.RECEIPT: later, Role.COMMAND: later}))
        c.after(3, lambda: c.push(command(r, 5)))
        r.serve(10)
        assert r.device.trust.held.number == 2 and [a.ok for a in c.answers] == [True] and r.states()[2] == "verified"
        with pytest.raises(BadSignature):
            arrive(r, command(r, 6), keys.COMMAND)


def test_a_board_that_was_off_while_the_keys_changed_gets_the_record_with_its_next_hello(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    later = PrivateKey(b"\x77" * 32)
    with rig(tmp_path / "d", c) as r:
        grown(r)
    c.trust = replace(keys.trust("home", number=7), receipt=later.public)
    c.signers[Role.RECEIPT] = later
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(rounds=2, timeout=60))
        assert r.states() == {1: "verified", 2: "verified"} and r.device.trust.held.number == 7


def test_a_welcome_that_came_before_the_keys_that_prove_it_is_asked_for_again(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Trust) and not isinstance(c.down[-1] if c.down else None, Welcome)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        assert r.lineage.head().epoch == 1


@pytest.mark.parametrize("on", ["all", "pi-7"])
def test_a_trust_record_that_is_forged_or_of_another_fleet_is_refused(
    tmp_path: Path, clock: FakeClock, on: str, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        topic = topics.down("home", on, "all", "trust")
        mine = replace(keys.trust("home", number=9), receipt=STRANGER.public)
        elsewhere = keys.trust("abroad", number=9)
        for data in (
            records.encode(mine, STRANGER, keys.FLEET_ID), records.encode(mine, keys.ROOT, bytes(16)),
            records.encode(elsewhere, keys.ROOT, keys.FLEET_ID), forged(mine, keys.COMMAND, Role.COMMAND), b"rubbish",
        ):  # fmt: skip
            c.after(1, lambda data=data: c.deliver(topic, data))  # type: ignore[misc]
        with caplog.at_level(logging.WARNING):
            r.serve(5)
        assert caplog.text.count("refused a message on") == 5
        assert r.device.trust.held.number == 1


def test_errors_of_the_door_are_wire_errors_so_that_the_loop_goes_on() -> None:
    assert all(issubclass(e, WireError) for e in (WrongFleet, WrongRole, BadSignature, NotUnderstood))
