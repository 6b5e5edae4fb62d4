"""Board and centre agree on every version number; what was said before a hello is no answer to it, and takes nothing back."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from modelwire.errors import LinkError
from modelwire.wire import log, numbers, records, topics
from modelwire.wire.numbers import Span
from modelwire.wire.records import Hello, Level, Receipt, Welcome
from modelwire.wire.welcome import KEY
from tests import keys
from tests.edgeagent.boards import Rig, centre, fill, rig
from tests.edgeagent.by_hand import one, train
from tests.edgeagent.centre import Centre, FakeClock, Held


def hellos(c: Centre) -> list[Hello]:
    return [h for h in c.said("hello") if isinstance(h, Hello)]


def take_away(c: Centre, above: int) -> dict[int, Held]:
    """Let the centre be one that was restored from a backup: it holds nothing above a version. Returns what it held."""
    lineage = c.lineages["pi-7", "tiny"]
    (epoch,) = lineage.versions
    gone = {n: v for n, v in lineage.versions[epoch].items() if n > above}
    lineage.versions[epoch] = {n: v for n, v in lineage.versions[epoch].items() if n <= above}
    last = lineage.versions[epoch].get(above)
    lineage.heads[epoch] = (above, last.commit if last else lineage.base)
    lineage.last = above
    return gone


def receipts(c: Centre, version: int, level: Level) -> list[Receipt]:
    return [r for r in c.down if isinstance(r, Receipt) and (r.version, r.level) == (version, level)]


def reason_of(r: Rig, version: int) -> str:
    return next(str(row["reason"]) for row in r.lineage.versions() if row["version"] == version)


def test_after_a_restore_the_board_names_what_is_lost_and_both_sides_agree(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=5, timeout=60))
        take_away(c, 2)
        with caplog.at_level(logging.WARNING):
            r.serve(60)
        assert r.states() == {1: "verified", 2: "verified", 3: "lost", 4: "lost", 5: "lost", 6: "verified"}
        assert "the centre went back to @2; lost there: @3..@5; @6 goes, a snapshot of all of it" in caplog.text
        assert c.lost == {3, 4, 5} and r.lineage.doubts.lost(confirmed=True) == [3, 4, 5]
        told = [numbers.read(h.more, numbers.LOST) for h in hellos(c)]
        assert [Span(1, 3, 5)] in told and told[-1] != [], "and once it is answered, no more"
        r.serve(60)
        assert numbers.read(hellos(c)[-1].more, numbers.LOST) == []


def test_publish_waits_until_all_is_known_at_the_centre_again(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=60))
        take_away(c, 2)
        c.drop_up = lambda leaf, said: leaf == "update"
        with pytest.raises(LinkError):
            r.run(Goal(publish=True, timeout=60))
        c.drop_up = lambda leaf, said: False
        r.run(Goal(publish=True, timeout=60))
        assert sorted(c.held("pi-7", "tiny")) == [1, 2, 5] and r.lineage.known() == (5, 5)


def test_an_old_receipt_that_is_said_again_does_not_bring_back_what_is_lost(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=60))
        old = [receipts(c, n, Level.VERIFIED)[0] for n in (3, 4)]
        take_away(c, 2)
        r.serve(60)
        before = r.states()
        for at, receipt in enumerate(old):
            forged = replace(receipt, more={numbers.NONCE: b"\x00" * numbers.NONCE_BYTES})
            c.after(1 + at, lambda receipt=receipt: c.push(receipt, "receipt"))  # type: ignore[misc]
            c.after(5 + at, lambda forged=forged: c.push(forged, "receipt"))  # type: ignore[misc]
        r.serve(30)
        assert r.states() == before and before[3] == before[4] == "lost"


def test_old_welcomes_take_nothing_back_whatever_number_of_them_come_while_the_centre_is_muted(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        old = [w for w in c.down if isinstance(w, Welcome)][-1]
        without = replace(old, more={})
        train(r, 3)
        r.serve(30)
        assert set(r.states().values()) == {"verified"}
        c.drop_down = lambda record: record not in (old, without)
        for at in range(2, 100, 3):
            c.after(at, lambda at=at: c.push(old if at % 2 else without))  # type: ignore[misc]
        r.serve(120)
        assert set(r.states().values()) == {"verified"} and r.lineage.head().version == 5
        c.drop_down = lambda record: False
        train(r, 1)
        r.serve(120)
        assert r.states()[6] == "verified" and sorted(c.held("pi-7", "tiny")) == [1, 2, 3, 4, 5, 6]


def test_a_centre_that_gives_no_nonce_back_is_followed_by_its_refusals(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.answers_hellos = False
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=60))
        take_away(c, 2)
        r.serve(30)
        assert r.lineage.head().version == 4, "an unanswered hello makes nobody start over"
        c.refuse = lambda h: "its parent is not held" if h.parent not in {v.commit for v in c.held("pi-7", "tiny").values()} else ""
        one(r)
        head = c.held("pi-7", "tiny")[2]
        n = r.lineage.head().version
        refusal = Receipt("home", "pi-7", "tiny", 0, 1, n, row_of(r, n), Level.REFUSED, "no parent", head.commit, 2, 0)
        c.push(refusal, "receipt")
        r.serve(60)
        assert r.states()[6] == "verified" and {r.states()[3], r.states()[4]} == {"lost"}, "they stand beside the chain"


def test_what_rests_on_a_refused_version_is_refused_in_the_centres_own_words(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        train(r, 3)
        c.refuse = lambda h: "no" if h.version == 2 else ""
        lose = [True]
        c.drop_down = lambda record: isinstance(record, Receipt) and record.version in (3, 4) and bool(lose)
        r.serve(6)
        assert reason_of(r, 3).startswith("given up with @2")
        held = c.held("pi-7", "tiny")
        held[3] = replace(held[2], version=3, commit=row_of(r, 3), header=replace(held[2].header, version=3), reason="words of its own")
        lose.clear()
        r.serve(60)
        assert (r.states()[2], reason_of(r, 2)) == ("refused", "no")
        assert (r.states()[3], reason_of(r, 3)) == ("refused", "words of its own")
        assert r.states()[4] == "lost" and r.lineage.doubts.lost(confirmed=True) == []


def row_of(r: Rig, version: int) -> bytes:
    return next(bytes(row["commit_id"]) for row in r.lineage.versions() if row["version"] == version)


def test_a_newer_backup_after_an_older_one_brings_the_versions_back(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=5, timeout=60))
        gone = take_away(c, 2)
        r.serve(60)
        assert r.states()[5] == "lost"
        take_away(c, 2)
        lineage = c.lineages["pi-7", "tiny"]
        lineage.versions[1] |= gone
        lineage.heads[1] = (5, gone[5].commit)
        r.serve(120)
        assert {n: s for n, s in r.states().items() if n <= 5} == dict.fromkeys(range(1, 6), "verified")
        assert r.states()[6] == "lost" and r.states()[7] == "verified" and c.held("pi-7", "tiny")[7].parent == gone[5].commit


def test_another_update_under_a_number_that_was_given_up_ends_the_asking(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        held = c.held("pi-7", "tiny")
        held[1] = replace(held[1], commit=b"\x09" * 32)
        r.lineage.doubts._db.run("UPDATE version SET state='refused', reason='as it was left by an older release' WHERE version=1")
        r.serve(60)
        assert (r.states()[1], reason_of(r, 1)) == ("lost", "the centre holds another update as @1") and not r.lineage.doubts.any()


def test_missing_counts_for_what_was_given_up_alone(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=3, timeout=60))
        plain = c.welcome

        def liar(h: Hello, status: str, *places: int | bytes, **others: object) -> Welcome:
            w = plain(h, status, *places, **others)
            return replace(w, more={**w.more, **numbers.said(numbers.MISSING, [Span(1, 1, 1 << 40)])})

        c.welcome = liar  # type: ignore[method-assign]
        r.serve(30)
        assert set(r.states().values()) == {"verified"}


def test_a_hello_names_no_more_runs_than_a_reader_takes(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        for n in range(3, 400, 3):
            r.lineage.doubts._db.insert("version", model="tiny", version=n, epoch=1, round=0, state="lost", commit_id=b"\x01" * 32, at=0)
        r.serve(5)
        said = hellos(c)[-1].more[numbers.DROPPED]
        assert isinstance(said, list) and len(said) == numbers.SPANS
        r.serve(3600)
        assert not r.lineage.doubts.any(), "and the others when these are settled"


# The board as a witness.


def link(number: int, byte: int = 5) -> bytes:
    return log.Link(number, bytes([byte]) * 32).encode()


def test_a_log_that_went_back_is_said_once_and_shown(tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    c = centre(clock)
    c.log = link(812)
    with rig(tmp_path / "d", c) as r:
        r.serve(2)
        c.log = link(640, 7)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                r.serve(2)
        odd = "the centre's log went back from entry 812 to 640: ask the operator whether it was restored"
        assert caplog.text.count(odd) == 1 and r.device.trust.fork_said == odd
        assert r.device.trust.link == log.parse_link(link(812))
        witness = hellos(c)[-1].more[numbers.WITNESS]
        assert witness == link(812)
        c.log = link(813, 7)
        r.serve(2)
        assert r.device.trust.link == log.parse_link(link(813, 7)) and r.device.trust.fork_said == odd, "both are kept"


def test_another_entry_of_the_same_number_is_a_fork(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.log = link(12)
    with rig(tmp_path / "d", c) as r:
        r.serve(2)
        c.log = link(12, 6)
        r.serve(2)
        assert r.device.trust.fork_said == "the centre's log has another entry 12: ask the operator whether it was restored"


def test_an_old_welcome_accuses_nobody(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.log = link(5)
    with rig(tmp_path / "d", c) as r:
        r.serve(2)
        old = [w for w in c.down if isinstance(w, Welcome)][-1]
        c.log = link(9)
        r.serve(2)
        for at, said in enumerate((old, replace(old, more={}), old)):
            c.after(1 + at, lambda said=said: c.push(said))  # type: ignore[misc]
        r.serve(10)
        assert r.device.trust.fork_said == "" and r.device.trust.link == log.parse_link(link(9))


def test_a_welcome_that_was_under_way_while_another_model_learned_more_accuses_nobody(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.log = link(5)
    with rig(tmp_path / "d", c) as r:
        r.serve(2)
        kept: list[Welcome] = []
        c.drop_down = lambda record: isinstance(record, Welcome) and not kept and not kept.append(record)  # type: ignore[func-returns-value]
        c.after(1, lambda: r.device.trust.saw(0, link(9)) and None)
        c.after(2, lambda: c.push(kept[0]))
        r.serve(4)
        assert kept[0].log == link(5) and r.device.trust.fork_said == ""


@pytest.mark.parametrize("status", ["quarantine", "epochs", "ok"])
def test_an_answer_to_a_stranger_in_this_boards_name_changes_nothing(tmp_path: Path, clock: FakeClock, status: str) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        before, hello = r.lineage.head(), hellos(c)[-1]
        places = (9, 40, hello.base, 0, 0) if status == "ok" else ()
        answer = replace(c.welcome(hello, status, *places), more={**hello.more, KEY: bytes(range(32))})
        topic = topics.parse(topics.down("home", "pi-7", "tiny", "cmd"))
        r.agent.sessions["tiny"].arrived(topic, records.encode(answer, keys.RECEIPT, keys.FLEET_ID), 0.0)
        assert r.lineage.head() == before
        mine = replace(answer, more={KEY: r.lineage.board.key.public})
        r.agent.sessions["tiny"].arrived(topic, records.encode(mine, keys.RECEIPT, keys.FLEET_ID), 0.0)
        head = r.lineage.head()
        assert (head.welcome, head.epoch, head.commit) == (status, before.epoch, before.commit), "one to its own key is taken"


def test_receipts_that_overtake_a_welcome_again_and_again_make_no_centre_one_that_went_back(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        late: list[Welcome] = []
        c.drop_down = lambda record: isinstance(record, Welcome) and record not in late and not late.append(record)  # type: ignore[func-returns-value]
        for at in range(1, 20, 4):  # each welcome comes when the centre has verified another version since it was said
            c.after(at, lambda: one(r) and None)
            c.after(at + 2, lambda: c.push(late[-1]))
        with caplog.at_level(logging.INFO):
            r.serve(30)
        assert r.states() == dict.fromkeys(range(1, 8), "verified") and sorted(c.held("pi-7", "tiny")) == list(range(1, 8))
        assert "went back" not in caplog.text and "less than it once had" not in caplog.text


def test_what_a_hello_knew_to_be_held_counts_without_what_was_refused_since(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=3, timeout=60))
        asked = r.agent.sessions["tiny"].agreement
        hello = {numbers.NONCE: asked.ask()[numbers.NONCE]}
        assert asked.held_then(hello) == 3
        with r.lineage.outbox.transaction():  # the refusal overtakes the answer
            r.device.database.run("UPDATE version SET state='refused' WHERE version=3")
        assert r.lineage.known(3) == (2, 2) and asked.held_then({}) is None
