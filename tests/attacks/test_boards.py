"""What a hostile broker, a stolen or retired key, a captured recording or a key of another role can make a board do: nothing lasting."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from edgeagent import cli
from edgeagent.service.goal import Goal
from edgeagent.state.folder import open_folder
from modelwire.errors import BadSignature, Malformed, ModelWireError, WireError, WrongFleet, WrongRole
from modelwire.output_head.forgotten import KEY as FORGOT
from modelwire.output_head.forgotten import Forgotten
from modelwire.wire import log, numbers, records, topics
from modelwire.wire.records import Act, Desired, Level, Receipt, Record, Wait, Welcome
from modelwire.wire.signing import PrivateKey, Role
from tests import keys
from tests.edgeagent.boards import DEVICE_SEED, TINY, Rig, centre, command, fill, make_with, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FAR, SIGNERS, FakeClock, role_of, welcome_of

DEVICE = PrivateKey(DEVICE_SEED)
LATER = PrivateKey(b"\x77" * 32)
NAMES = ("home", "pi-7", "tiny", 0)
MOST = (1 << 63) - 1  # that an integer of a record may be


@dataclass(frozen=True, slots=True)
class Later(Record):
    """A record of a kind that this release does not know, said by whoever may say anything."""

    KIND: ClassVar[str] = "later"
    ROLES: ClassVar[tuple[Role, ...]] = (Role.DIRECTOR, Role.RECEIPT)

    number: int


def sealed(record: Record, key: PrivateKey | None = None, role: Role | None = None, fleet: bytes = keys.FLEET_ID) -> bytes:
    role = role or role_of(record)
    return records.encode(record, key or SIGNERS[role], fleet, role=role)


def hear(r: Rig, data: bytes | Record, leaf: str = "cmd", *, device: str = "pi-7", model: str = "tiny") -> None:
    """Let the board take what the broker gives it."""
    said = data if isinstance(data, bytes) else sealed(data)
    r.agent.hear(topics.down("home", device, model, leaf), said, r.centre.clock.monotonic())


def welcome(r: Rig, *, more: Any = None, **said: Any) -> Welcome:
    """Return a welcome of whoever holds the receipt key. said: what it says instead of nothing new."""
    head = r.lineage.head()
    at = (head.epoch, head.last_version, head.commit, head.version, head.version)
    return replace(welcome_of("home", "pi-7", "tiny", r.device.state, "ok", *at), more=more or {}, **said)


def grown(r: Rig, rounds: int = 1) -> None:
    fill(r.device)
    r.run(Goal(rounds=rounds, timeout=60))


def open_nonce(r: Rig) -> dict[str, Any]:
    """Return what answers a hello that is open."""
    return {numbers.NONCE: r.agent.sessions["tiny"].agreement.ask()[numbers.NONCE]}


def standing(r: Rig) -> tuple[object, ...]:
    return r.lineage.head(), r.states(), r.lineage.answers.last(), r.device.trust.held.number, r.lineage.load().file


# Keys.


def test_a_key_that_a_record_took_away_is_not_brought_back_by_keeping_that_record_from_the_board(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        record = replace(keys.trust("home", number=2), command=LATER.public)  # says --now; the broker keeps it
        hear(r, replace(record, number=3, since=1 << 39, overlap=FAR), "trust", device="all", model="all")
        assert r.device.trust.held.number == 3
        with pytest.raises(BadSignature):
            hear(r, command(r, 5))
        hear(r, sealed(command(r, 6), LATER))
        assert r.lineage.answers.last() == 6
    with rig(tmp_path / "d", centre(clock)) as r, pytest.raises(BadSignature):
        hear(r, command(r, 7))


def test_a_retired_command_key_ends_with_its_overlap_even_for_what_it_sealed_before(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        time = r.device.trust.time
        withheld = sealed(command(r, 9))
        hear(r, replace(keys.trust("home", number=2, since=time, overlap=600), command=LATER.public), "trust", device="all", model="all")
        hear(r, command(r, 5))
        hear(r, welcome(r, time=time + 601))
        with pytest.raises(BadSignature):
            hear(r, withheld)
        hear(r, welcome(r, time=1))
        with pytest.raises(BadSignature):
            hear(r, withheld)
        assert r.lineage.answers.last() == 5 and r.device.trust.time == time + 601


def test_records_of_trust_that_are_forked_foreign_chained_to_another_root_or_many_leave_the_right_one(
    tmp_path: Path, clock: FakeClock
) -> None:
    def at_all(one: Record, key: PrivateKey = keys.ROOT, fleet: bytes = keys.FLEET_ID) -> bytes:
        return sealed(one, key, Role.ROOT, fleet)

    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        where = {"device": "all", "model": "all"}
        hear(r, at_all(replace(keys.trust("home", number=2), root=LATER.public)), "trust", **where)
        before = standing(r)
        for number in range(3, 20):
            with pytest.raises(BadSignature):  # of the root of before, which a thief may have by now
                hear(r, at_all(replace(keys.trust("home", number=number), receipt=DEVICE.public)), "trust", **where)
        for key, fleet, named in ((LATER, bytes(16), WrongFleet), (keys.COMMAND, keys.FLEET_ID, BadSignature)):
            with pytest.raises(named):
                hear(r, at_all(keys.trust("home", number=MOST), key, fleet), "trust", **where)
        hear(r, at_all(replace(keys.trust("home", number=2), receipt=DEVICE.public), LATER), "trust", **where)  # the same number, forked
        assert standing(r) == before
        with pytest.raises(BadSignature):
            hear(r, sealed(Wait(*NAMES, 9, ""), DEVICE))
        with pytest.raises(Malformed):
            hear(r, at_all(keys.trust("home", number=50, since=9, until=8), LATER), "trust", **where)
        for number in range(3, 20):
            hear(r, at_all(replace(keys.trust("home", number=number), root=LATER.public), LATER), "trust", **where)
        assert r.device.trust.held.number == 19 and r.device.database.number("SELECT count(*) FROM trust") == 2


@pytest.mark.parametrize("key", [keys.RECEIPT, keys.DIRECTOR, DEVICE, keys.ROOT, LATER])
def test_a_command_by_another_key_is_no_command_in_whatever_role_it_is_said(tmp_path: Path, clock: FakeClock, key: PrivateKey) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = standing(r)
        data = bytearray(sealed(command(r, 5), key))
        with pytest.raises(BadSignature):
            hear(r, bytes(data))
        for role in Role:
            data[5] = role  # the byte of the envelope
            with pytest.raises((BadSignature, WrongRole)):
                hear(r, bytes(data))
        act = records.encode(Act("home", "pi-7", "all", 0, 1, "admit", DEVICE.public), key, keys.FLEET_ID)
        with pytest.raises(WireError):
            hear(r, act)
        assert standing(r) == before


# Commands.


def test_a_recorded_command_does_nothing_in_a_third_folder_at_another_model_or_on_another_topic(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "old", c) as r:
        grown(r)
        recorded = sealed(command(r, 5))
        hear(r, recorded)
        for leaf, at in (("cmd", {"model": "other"}), ("receipt", {}), ("desired", {}), ("part", {})):
            try:
                hear(r, recorded, leaf, **at)
            except WireError:
                continue
            assert at, "a model that is not there"
    with rig(tmp_path / "new", c) as r:
        grown(r)
        before = r.states(), r.lineage.load().file
        hear(r, recorded)
        given = r.lineage.answers.given(5)
        assert given is not None and not given.ok and "another state folder" in given.text
        for changed in (replace(command(r, 6), epoch=9), replace(command(r, 7), expiry=1), replace(command(r, 8), epoch=0)):
            hear(r, changed)
        assert [r.lineage.answers.given(n).ok for n in (6, 7, 8)] == [False] * 3  # type: ignore[union-attr]
        hear(r, replace(command(r, 2)))
        assert r.lineage.answers.given(2) is None and (r.states(), r.lineage.load().file) == before


def test_an_unknown_kind_with_the_number_of_a_command_does_not_take_its_place(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        hear(r, sealed(Later(*NAMES, 5), keys.DIRECTOR, Role.DIRECTOR))
        assert r.lineage.answers.given(5) is None
        hear(r, command(r, 5))
        given = r.lineage.answers.given(5)
        assert given is not None and given.ok and given.text == "snapshot @2"


def test_what_is_to_be_forgotten_of_one_model_leaves_the_samples_of_another(tmp_path: Path, clock: FakeClock) -> None:
    loaded = make_with(tmp_path / "d", {}, {"tiny": TINY, "other": TINY})
    with open_folder(loaded, alone=True) as opened:
        fill(opened, 10, "tiny")
        fill(opened, 10, "other")
        mine = opened.spool.ids("other", until=MOST).tolist()
        assert opened.spool.drop("tiny", Forgotten(tuple(mine)).samples) == 0
        assert opened.spool.count("other") == 10 and FORGOT == "forgot"
        with pytest.raises(ModelWireError):
            opened.spool.drop("tiny", [1 << 63])


# Welcomes and receipts: whoever holds the receipt key alone.


def test_the_end_of_time_closes_commands_by_name_and_the_furthest_expiry_still_opens_them(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        before = r.states(), r.lineage.load().file
        hear(r, welcome(r, time=MOST))
        hear(r, command(r, 5))
        given = r.lineage.answers.given(5)
        assert given is not None and not given.ok and "expired" in given.text and (r.states(), r.lineage.load().file) == before
        hear(r, command(r, 6, expiry=MOST))
        assert r.lineage.answers.given(6).ok  # type: ignore[union-attr]


def test_the_last_number_before_the_end_leaves_room_to_count_on_and_the_one_behind_it_is_refused(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        for far in ({"version": 1 << 62}, {"epoch": 1 << 32}, {"version": MOST, "epoch": MOST}):
            with pytest.raises(Malformed):
                hear(r, welcome(r, **far))
        hear(r, welcome(r, version=(1 << 62) - 1))
        hear(r, command(r, 5))
        assert r.lineage.head().version == 1 << 62
        r.serve(30)
        assert r.centre.held("pi-7", "tiny")[1 << 62].level is Level.VERIFIED


def test_verified_for_what_was_never_sent_loses_no_weight(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        c.cut()
        train(r, 1)
        assert r.states()[2] == "queued"
        hear(r, Receipt(*NAMES, 1, 2, r.lineage.head().commit, Level.VERIFIED, "", b"", 0, 0), "receipt")
        assert r.states()[2] == "verified" and not r.lineage.outbox.waiting()
        c.mend()
        r.serve(120)
        at = c.lineages["pi-7", "tiny"].heads[1][0]
        assert c.held("pi-7", "tiny")[at].level is Level.VERIFIED
        assert c.held("pi-7", "tiny")[at].header.root == r.lineage.load().state.root, "a snapshot brought what was not sent"


def test_refused_comes_too_late_behind_verified_and_of_an_old_epoch_or_another_commit_it_is_nothing(
    tmp_path: Path, clock: FakeClock
) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r, 2)
        before, head = standing(r), r.lineage.head()
        for epoch, version, commit in (
            (1, 2, head.commit),
            (9, 2, head.commit),
            (1, 1, head.commit),
            (1, 2, bytes(32)),
            (1, MOST, bytes(32)),
        ):
            for level in Level:
                hear(r, Receipt(*NAMES, epoch, version, commit, level, "no", b"", 0, 0), "receipt")
        assert standing(r) == before


def test_a_refusal_on_a_commit_that_nobody_has_takes_no_weight_back(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        c.cut()
        train(r, 1)
        r.lineage.outbox.offer(2)
        hear(r, Receipt(*NAMES, 1, 2, r.lineage.head().commit, Level.REFUSED, "no", b"\xaa" * 32, 7, 0), "receipt")
        served = r.lineage.load().state.root
        c.mend()
        r.serve(600)
        assert r.lineage.load().state.root == served, "the model never goes back"


def test_missing_and_unsure_as_wide_as_numbers_go_drop_nothing_that_lives(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r, 2)
        said = welcome(r)
        c.cut()
        train(r, 1)
        before = standing(r)
        wide = [[1, 1, (1 << 62) - 1]] * 32
        for runs in (wide, wide * 2, [[True, 1, 2]], [[0, 0, 0]], [[1, 2]], {"a": 1}, [[1 << 62, 1, 1]], 7, [[1, 5, 4]]):
            hear(r, replace(said, more={**open_nonce(r), numbers.MISSING: runs, numbers.LOST: runs, numbers.UNSURE: runs}))
        assert standing(r) == before and r.lineage.outbox.waiting("queued")


@pytest.mark.parametrize("nonce", [7, "text", b"", b"\x01" * 15, b"\x01" * 16, [b"\x01" * 16], None, {"nonce": b""}])
def test_what_is_no_nonce_of_ours_takes_nothing_back(tmp_path: Path, clock: FakeClock, nonce: Any) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r, 2)
        before = r.states(), r.lineage.head().epoch
        for said in ({"epoch": 7, "version": 0, "head_version": 0}, {"head_version": 0, "verified": 0, "head": r.lineage.base_commit}):
            hear(r, welcome(r, more={numbers.NONCE: nonce}, **said))
            hear(r, welcome(r, more={numbers.NONCE: nonce}, **said))
        assert (r.states(), r.lineage.head().epoch) == before


def test_an_answer_that_was_held_back_counts_once_and_costs_no_weight(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r, 2)
        root, held = r.lineage.load().state.root, open_nonce(r)
        said = welcome(r, more=held, head_version=0, head=r.lineage.base_commit, verified=0)
        hear(r, said)
        hear(r, said)
        assert r.states() == {1: "verified", 2: "verified"}, "it is asked again, and the same word is no answer to that"
        r.serve(60)
        assert r.states() == {1: "verified", 2: "verified"} and r.lineage.load().state.root == root


def test_a_log_said_to_end_at_the_last_number_is_told_once_and_decides_nothing(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    c.log = log.Link(40, b"\x04" * 32).encode()
    with rig(tmp_path / "d", c) as r:
        grown(r)
        hear(r, welcome(r, log=log.Link(MOST, b"\x66" * 32).encode()))
        with pytest.raises(Malformed):
            hear(r, welcome(r, log=bytes(40)))
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                r.serve(20)
        assert caplog.text.count("ask the operator whether it was restored") == 1
        hear(r, command(r, 5))
        assert r.lineage.answers.given(5).ok  # type: ignore[union-attr]
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0 and f"went back from entry {MOST} to 40" in capsys.readouterr().out


def test_quiet_is_a_day_at_most_however_often_it_is_said_again_and_no_model_is_quiet_for_another(tmp_path: Path, clock: FakeClock) -> None:
    loaded = make_with(tmp_path / "d", {}, {"tiny": TINY, "other": TINY})
    with open_folder(loaded, alone=True) as opened:
        r = Rig(opened, centre(clock))
        r.run(Goal(publish=True, timeout=60))
        for _ in range(3):
            hear(r, Wait(*NAMES, MOST, "x" * 1000))
        assert r.lineage.quiet().until <= clock.wall() + 86_400 and opened.lineages["other"].quiet().until == 0
        with pytest.raises(Malformed):
            hear(r, Wait(*NAMES, 1, ""), model="other")
        assert 0 < r.agent.sessions["tiny"]._quiet(clock.monotonic()) <= clock.monotonic() + 86_400


def test_words_of_a_welcome_that_mean_nothing_here_are_not_ok(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        before = r.lineage.head().epoch
        for status, epoch in (("OK", 7), ("ok ", 7), ("x" * 1000, 7), ("ok", 0), ("", 3), ("quarantine", 9)):
            hear_first(r)
            hear(r, replace(welcome(r), status=status, epoch=epoch))
        assert r.lineage.head().epoch == before == 0


def hear_first(r: Rig) -> None:
    if not r.device.trust.held.number:
        hear(r, keys.trust("home"), "trust", device="all", model="all")


def test_a_variant_with_the_last_number_shuts_out_the_director_alone(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        r.centre.after(1, lambda: r.centre.push(Desired(*NAMES, MOST, MOST, b"\x01" * 32, MOST, MOST), "desired"))
        r.serve(5)
        hear(r, command(r, 5))
        assert r.lineage.reported() == MOST and r.lineage.answers.given(5).ok  # type: ignore[union-attr]


def test_epochs_that_the_receipt_key_makes_up_cost_numbers_and_no_weight(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        grown(r)
        root, held = r.lineage.load().state.root, open_nonce(r)
        for epoch, nonce in ((7, open_nonce(r)), (1, held), (1, held), (7, held)):  # the last word by an answer that was held back
            hear(r, welcome(r, epoch=epoch, head=r.lineage.base_commit, head_version=0, verified=0, more=nonce))
        r.serve(300)
        assert r.lineage.load().state.root == root and r.lineage.head().epoch == 1
        at = c.lineages["pi-7", "tiny"].heads[1][0]
        assert c.held("pi-7", "tiny")[at].header.root == root and c.held("pi-7", "tiny")[at].level is Level.VERIFIED


def test_a_recorded_command_that_is_played_again_is_answered_and_not_done_again(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock)) as r:
        grown(r)
        data = sealed(command(r, 5))
        for _ in range(50):
            hear(r, data)
        for number in range(6, 80):
            hear(r, command(r, number, "leaves", body={"tensor": 0, "first": 0}))
        before = standing(r)
        assert r.lineage.answers.given(5) is None, "answers are not kept for ever"
        hear(r, data)
        assert standing(r) == before and r.states() == {1: "verified", 2: "queued"}
