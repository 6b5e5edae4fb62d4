"""What a device says of itself, and what it does with the answer: challenges, waits, what is desired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeagent import cli
from edgeagent.link import quiet
from edgeagent.planning.figures import UPLINK_SECONDS
from edgeagent.service.goal import Goal
from modelwire.errors import LinkError
from modelwire.wire import log
from modelwire.wire.claims import PROOF_BYTES
from modelwire.wire.records import Desired, Hello, Receipt, Transfer, Wait, Welcome
from tests.edgeagent.boards import Rig, centre, command, fill, give_token, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import Centre, FakeClock, welcome_of


def hellos(c: Centre) -> list[Hello]:
    return [h for h in c.said("hello") if isinstance(h, Hello)]


def sent(c: Centre) -> int:
    """Return how many updates, parts and hellos came."""
    return sum(leaf in ("update", "part", "hello") for leaf, _ in c.up)


def test_a_hello_says_what_this_release_has_and_which_trust_record_it_holds(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    give_token(tmp_path / "d")
    with rig(tmp_path / "d", c) as r:
        r.serve(5)
        r.serve(5)
        first, second = hellos(c)
        assert (first.trust, second.trust) == (0, 1)
        assert r.device.claim is not None and len(first.claim) == PROOF_BYTES
        assert (first.claim, second.claim) == (r.device.claim.proof, b""), "once it is welcome it says its claim no more"
        assert (first.trainers, first.resume, first.answer) == ((1,), False, b"")
        assert (first.key, first.state, first.base) == (r.device.board.key.public, r.device.state, r.lineage.base_commit)


def test_without_a_token_there_is_no_claim(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        r.serve(5)
    assert [h.claim for h in hellos(c)] == [b""]


def test_a_challenge_is_answered_at_once_and_then_the_epoch_is_granted(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.challenges = True
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        asked = [w for w in c.down if isinstance(w, Welcome)]
        assert [w.status for w in asked] == ["challenge", "ok"]
        assert [h.answer for h in hellos(c)] == [b"", asked[0].challenge]
        assert r.lineage.head().epoch == 1 and r.lineage.head().welcome == "ok"
        r.serve(1)
        assert hellos(c)[-1].answer == b""


def test_a_round_that_waits_for_its_epoch_survives_a_challenge(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.challenges = True
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(once=True, timeout=60))
        assert r.states()[1] in ("stored", "verified")


def test_a_centre_that_is_never_content_is_answered_slower_and_slower(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.challenges = True
    c.challenge = lambda h: len(c.up).to_bytes(32, "big")  # type: ignore[method-assign]  # another one each time
    with rig(tmp_path / "d", c) as r:
        r.serve(600)
        assert 3 <= len(hellos(c)) <= 15 and r.lineage.head().epoch == 0
        assert "once more" in r.lineage.why_unwelcome(r.lineage.head())


def test_a_status_that_is_not_known_means_no(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Welcome) and record.status == "ok"
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        c.after(1, lambda: c.push(welcome_of("home", "pi-7", "tiny", r.device.state, "later", 1, 0, r.lineage.base_commit, 0, 0)))
        r.serve(30)
        head = r.lineage.head()
        assert (head.epoch, head.rounds, head.welcome) == (0, 0, "later") and "'later'" in r.lineage.why_unwelcome(head)


def test_the_end_of_the_log_is_kept_as_the_welcome_says_it(
    tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    c = centre(clock)
    c.log = log.Link(12, b"\x05" * 32).encode()
    with rig(tmp_path / "d", c) as r:
        r.serve(2)
        assert r.device.trust.link == log.Link(12, b"\x05" * 32) and r.device.trust.time >= 1_800_001_000
    capsys.readouterr()
    assert cli.main(["status", "--dir", str(tmp_path / "d"), "--json"]) == 0
    assert f'"number": 12,\n    "link": "{"05" * 32}"' in capsys.readouterr().out


# Waits.


def by_welcome(c: Centre, r: Rig, seconds: int) -> None:
    c.wait = seconds


def by_record(c: Centre, r: Rig, seconds: int) -> None:
    c.push(Wait("home", "pi-7", "tiny", 0, seconds, "the disk is full"))


@pytest.mark.parametrize("how", [by_welcome, by_record])
def test_nothing_is_sent_while_the_centre_wants_to_be_left_alone(
    tmp_path: Path, clock: FakeClock, how: Callable[[Centre, Rig, int], None]
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        c.after(0.5, lambda: how(c, r, 100))
        if how is by_welcome:
            how(c, r, 100)
        r.serve(1)  # a connection's first hello, and its welcome
        count = sent(c)
        train(r, 2)
        r.serve(90)
        if how is by_record:
            assert r.lineage.quiet().reason == "the disk is full"
        assert sent(c) == count and {n: s for n, s in r.states().items() if n > 1} == {2: "queued", 3: "queued"}
        c.wait = 0
        r.serve(30)
        assert set(r.states().values()) == {"verified"}


def test_a_wait_is_not_taken_for_the_pace_of_the_link(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        fill(r.device)
        train(r, 1)
        c.drop_down = lambda record: isinstance(record, Receipt)
        c.after(2, lambda: by_record(c, r, 3000))
        c.after(1500, lambda: setattr(c, "drop_down", lambda record: False))
        r.serve(4000)
        assert set(r.states().values()) == {"verified"}
        seconds = r.lineage.link_figures.get(UPLINK_SECONDS)
        assert seconds is None or seconds.value < 60


def test_what_waits_for_the_centre_becomes_one_update_as_when_the_link_is_down(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="3") as r:
        c.wait = 300
        r.serve(1)
        fill(r.device)
        train(r, 5)
        r.serve(10)
        assert r.states() == {**dict.fromkeys(range(1, 5), "skipped"), 5: "queued"}
        c.wait = 0
        r.serve(400)
        assert r.states()[5] == "verified"


def test_a_wait_survives_a_restart_and_ends_by_the_boards_clock(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        c.after(0.5, lambda: by_record(c, r, 1000))
        r.serve(1)
    count = sent(c)
    with rig(tmp_path / "d", c) as r:
        r.serve(900)
        assert sent(c) == count
        r.serve(200)
        assert sent(c) == count + 1, "a hello goes after it"


def test_zero_ends_a_wait(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 1)
        c.wait = 5000
        c.drop_up = lambda leaf, said: leaf == "update"  # what went before the welcome came is lost
        r.serve(100)
        c.drop_up = lambda leaf, said: False
        c.after(100, lambda: seen.append(r.states()[1]))
        seen: list[str] = []
        c.after(101, lambda: by_record(c, r, 0))
        c.wait = 0
        r.serve(200)
        assert seen == ["offered"] and r.states() == {1: "verified"} and r.lineage.quiet().until == 0


def test_a_wait_is_never_longer_than_a_day(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert quiet.LONGEST_WAIT == 86_400
    monkeypatch.setattr(quiet, "LONGEST_WAIT", 900)  # a day of this clock takes a while
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        c.after(0.5, lambda: by_record(c, r, (1 << 63) - 1))
        r.serve(1)
        assert r.lineage.quiet().until <= clock.wall() + 900
        count = sent(c)
        r.serve(890)
        assert sent(c) == count
        r.serve(100)
        assert sent(c) > count


def test_a_clock_that_was_set_back_lengthens_no_wait_beyond_a_day(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "LONGEST_WAIT", 900)
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        c.after(0.5, lambda: by_record(c, r, 1000))
        r.serve(1)
    clock.wall = lambda: 1000.0  # type: ignore[method-assign]
    count = sent(c)
    with rig(tmp_path / "d", c) as r:
        r.serve(1000)
        assert sent(c) > count


def test_parts_that_are_asked_for_wait_too(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        r.lineage.snapshot(1, note="long " * 1000)
        c.most = 1600

        def wait_first(leaf: str, said: object) -> bool:
            if isinstance(said, Transfer):
                by_record(c, r, 50)  # before the centre says which parts it wants
            return False

        c.drop_up = wait_first
        r.serve(40)
        assert [type(s) for s in c.said("part")] == [Transfer], "and no part of it"
        c.drop_up = lambda leaf, said: False
        r.serve(120)
        assert r.states() == {1: "verified"}


def test_status_says_until_when_and_why(tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    c = centre(clock)  # whose clock is beyond that of this machine
    with rig(tmp_path / "d", c) as r:
        r.serve(1)
        c.after(0.5, lambda: by_record(c, r, 1000))
        r.serve(1)
    capsys.readouterr()
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "the centre wants nothing sent until 2027-" in (out := capsys.readouterr().out) and "the disk is full" in out


def test_a_command_is_answered_within_a_wait(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        c.after(1, lambda: by_record(c, r, 1000))
        c.after(2, lambda: c.push(command(r, 3)))
        r.serve(5)
        assert [(a.number, a.ok) for a in c.answers] == [(3, True)] and r.states() == {1: "queued"}


def test_a_goal_that_a_wait_keeps_from_being_reached_ends_with_its_time(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.wait = 500
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        with pytest.raises(LinkError):
            r.run(Goal(rounds=1, timeout=60))


# What is desired.


def desired(number: int, expiry: int = 1 << 40) -> Desired:
    return Desired("home", "pi-7", "tiny", 0, number, expiry, b"\x07" * 32, 1000, 2)


def test_what_is_desired_is_answered_once_for_each_number_that_nothing_comes_of_it(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        for at, number in enumerate((3, 3, 2, 4)):
            c.after(1 + at, lambda number=number: c.push(desired(number), "desired"))  # type: ignore[misc]
        r.serve(10)
    with rig(tmp_path / "d", c) as r:
        c.after(1, lambda: c.push(desired(4), "desired"))
        r.serve(5)
        assert [(x.number, x.variant, x.state, x.phase, x.reason) for x in c.reports] == [
            (n, b"\x07" * 32, "refused", 2, "this release deploys nothing") for n in (3, 4)
        ]
        assert {(x.slot, x.bytes, x.before, x.after) for x in c.reports} == {("", 0, None, None)}
        assert r.states() == {}


def test_what_was_desired_until_a_while_ago_is_let_pass(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        c.after(1, lambda: c.push(desired(3, 1_800_000_000), "desired"))
        r.serve(5)
        assert c.reports == []
