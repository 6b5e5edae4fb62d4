"""The delivery contract from the device's side, against a centre in memory that rebuilds every version for real."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagent.service.goal import Goal
from modelwire.errors import LinkError, NotWelcome
from modelwire.update.sections import Kind
from modelwire.wire import cbor, records, signing, topics
from modelwire.wire.records import Hello, Level, Presence, Receipt, Record, Transfer, Wanted, Welcome
from tests import keys
from tests.edgeagent.boards import ScriptedModel, centre, command, fill, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import Centre, FakeClock, welcome_of


def welcomes(c: Centre) -> list[Welcome]:
    return [r for r in c.down if isinstance(r, Welcome)]


def receipts(c: Centre, level: Level) -> list[int]:
    return [r.version for r in c.down if isinstance(r, Receipt) and r.level is level]


@pytest.mark.slow("lives through many waits of the link")
def test_hello_is_repeated_until_it_is_answered(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda r: isinstance(r, Welcome)
    with rig(tmp_path / "d", c) as r:
        r.serve(35)
        hellos = c.said("hello")
        assert len(hellos) == 4  # at once, and after 10, 20 and 30 seconds
        assert all(isinstance(h, Hello) and (h.epoch, h.version, h.commit) == (0, 0, r.lineage.base_commit) for h in hellos)
        assert r.lineage.head().epoch == 0
        c.drop_down = lambda r: False
        r.serve(1000)
        assert r.lineage.head().epoch == 1
        assert len(c.said("hello")) == 5, "once welcomed it speaks up once an hour"
        r.serve(3700)
        assert len(c.said("hello")) == 7  # the new connection's, and the hourly one


def test_nothing_is_trained_or_sealed_before_the_first_welcome(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.serve(100)
        assert r.lineage.head().rounds == 0 and r.lineage.head().welcome == "quarantine"
        assert r.device.spool.count("tiny") == 40
        assert f"edgecloud devices add pi-7 {r.device.board.fingerprint}" in r.lineage.next_step(r.lineage.head())
        with pytest.raises(NotWelcome) as e:
            r.agent.stopping = ""
            r.run(Goal(once=True))
        assert "edgecloud devices add pi-7" in e.value.next_step


def test_a_device_in_quarantine_goes_on_as_soon_as_it_is_welcomed(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock, known=False)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        c.after(45, lambda: c.keys.update({"pi-7": r.device.board.key.public}))
        r.run(Goal(rounds=2, timeout=600))
        assert r.states() == {1: "verified", 2: "verified"}


def test_rounds_are_known_at_the_centre_bit_for_bit(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=5, timeout=600))
        held = c.held("pi-7", "tiny")
        assert [held[n].level for n in range(1, 6)] == [Level.VERIFIED] * 5
        last = held[5].state
        assert last is not None and last.root == r.lineage.load().state.root
        assert r.device.database.one("SELECT count(*) FROM outbox")[0] == 0, "verified bytes are freed"
        for version, more in ((1, {"card"}), (3, set())):  # no samples came between the rounds
            scores = {"loss_before", "loss_after", "accuracy_before", "accuracy_after", "mode", "samples", "steps", "plan"}
            assert scores | more == set(held[version].header.extension)


def test_presence_is_said_on_connecting_and_on_leaving(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.serve(5)
        r.serve(5)
    assert [(p.boot, p.online) for p in c.presence] == [(1, True), (1, False), (2, True), (2, False)]
    assert isinstance(c.presence[0], Presence)


def test_no_more_than_the_window_is_on_its_way_and_in_order(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__window="3", update__coalesce_after="100") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 7)
        c.drop_down = lambda record: isinstance(record, Receipt)
        r.serve(5)
        assert [u.header.version for u in c.updates()] == [1, 2, 3]
        assert r.states() == {1: "offered", 2: "offered", 3: "offered", 4: "queued", 5: "queued", 6: "queued", 7: "queued"}
        c.drop_down = lambda record: False
        r.serve(60)
        assert [u.header.version for u in c.updates()] == [1, 2, 3, 1, 2, 3, 4, 5, 6, 7]
        assert set(r.states().values()) == {"verified"}


def test_an_update_without_a_receipt_goes_again_with_growing_pauses(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    times: list[float] = []

    def lose(leaf: str, said: object) -> bool:
        if leaf == "update":
            times.append(clock.now)
        return leaf == "update"

    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 1)
        c.drop_up = lose
        r.serve(400)
        assert r.states() == {1: "offered"}
        pauses = [b - a for a, b in itertools.pairwise(times)][1:]  # the first resend is that of the reconnect
        assert 4 <= len(pauses) <= 6 and all(1.2 < b / a < 3.4 for a, b in itertools.pairwise(pauses)), pauses
        c.drop_up = lambda leaf, said: False
        r.serve(1)
        assert r.states() == {1: "verified"}


def test_a_lost_receipt_is_repeated_and_nothing_is_stored_twice(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    lost: list[Record] = []

    def lose_some(record: Record) -> bool:
        if isinstance(record, Receipt) and len(lost) < 5:
            lost.append(record)
            return True
        return False

    c.drop_down = lose_some
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=6000))
        assert len(lost) == 5
        assert sorted(c.held("pi-7", "tiny")) == [1, 2, 3, 4]
        assert set(r.states().values()) == {"verified"}


def test_a_lost_verified_receipt_is_asked_for_by_hello(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Receipt) and record.level is Level.VERIFIED
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert r.states() == {1: "verified"}, "the welcome said so"


def test_a_lost_stored_receipt_and_an_offline_stretch_that_coalesces_end_without_a_conflict(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Receipt)
    with rig(tmp_path / "d", c, update__coalesce_after="3") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 2)
        r.serve(3)
        assert r.states() == {1: "offered", 2: "offered"}
        assert receipts(c, Level.VERIFIED) == []
        c.cut()
        train(r, 6)
        r.serve(3)
        assert r.states() == {1: "offered", 2: "offered", **dict.fromkeys(range(3, 8), "skipped"), 8: "queued"}
        c.drop_down = lambda record: False
        c.mend()
        r.serve(60)
        assert r.states() == {1: "verified", 2: "verified", **dict.fromkeys(range(3, 8), "skipped"), 8: "verified"}
        assert receipts(c, Level.REFUSED) == []
        held = c.held("pi-7", "tiny")
        assert sorted(held) == [1, 2, 8]
        assert held[8].header.extension["skipped"] == [[3, 7]]
        assert held[8].parent == held[2].commit and held[8].kind is Kind.DELTA
        assert held[8].state is not None and held[8].state.root == r.lineage.load().state.root


def test_a_refusal_is_answered_with_a_snapshot_on_the_last_good_commit(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        train(r, 3)  # 3, 4 and 5 wait
        served = r.lineage.load().state.root
        c.refuse = lambda h: "rebuilt another root" if h.version == 3 else ""
        r.agent.stopping = ""
        r.serve(30)
        states = r.states()
        assert states == {1: "verified", 2: "verified", 3: "refused", 4: "lost", 5: "lost", 6: "verified"}
        held = c.held("pi-7", "tiny")
        assert held[6].kind is Kind.SNAPSHOT and held[6].parent == held[2].commit and held[6].header.base == r.lineage.base_commit
        assert held[6].state is not None and held[6].state.root == served == r.lineage.load().state.root, "the model never goes back"
        train(r, 1)
        r.serve(30)
        assert r.states()[7] == "verified" and c.held("pi-7", "tiny")[7].parent == held[6].commit


def test_refusals_in_a_row_are_answered_slower_and_slower(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.refuse = lambda h: "never"
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.serve(600)
        assert 4 <= len(c.updates()) <= 9
        assert r.states()[max(r.states())] in ("queued", "offered", "refused")
        c.refuse = lambda h: ""
        r.serve(600)
        assert r.states()[max(r.states())] == "verified"


def test_a_closed_epoch_stops_the_sending_and_says_why(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        c.lineages["pi-7", "tiny"].epochs[bytes(16)] = 2  # another state folder of the same device said hello
        c.lineages["pi-7", "tiny"].versions[2] = {}
        c.lineages["pi-7", "tiny"].heads[2] = (0, r.lineage.base_commit)
        c.drop_down = lambda record: isinstance(record, Welcome)
        with pytest.raises(LinkError, match="epoch 1 is closed"):
            r.run(Goal(rounds=3, timeout=600))
        assert "closed" in r.lineage.head().blocked


def test_a_command_for_a_snapshot_is_carried_out_once_and_answered_each_time(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        asked = command(r, 7)
        c.commands.append(asked)
        c.after(1, lambda: c.push(asked))
        c.after(2, lambda: c.push(asked))
        r.serve(20)
        assert [a.ok for a in c.answers] == [True, True, True] and {a.number for a in c.answers} == {7}
        held = c.held("pi-7", "tiny")
        assert sorted(held) == [1, 2, 3]
        assert held[3].kind is Kind.SNAPSHOT and held[3].parent == held[2].commit and held[3].level is Level.VERIFIED
        assert held[3].header.extension["note"] == "asked for by command 7" == r.lineage.versions(1)[0]["reason"]


def test_an_unknown_command_is_answered_and_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        c.after(1, lambda: c.push(command(r, 8, "self-destruct")))
        r.serve(5)
        assert [(a.number, a.ok, a.text) for a in c.answers] == [(8, False, "not understood")]
        assert r.states() == {}


def test_a_large_update_travels_in_parts_and_only_missing_ones_go_again(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        r.lineage.snapshot(1, note="long " * 1000)
        c.most = 1600  # too small for the update, and for no part; records may be larger in the field, so let them pass
        records_pass(c)
        lost = iter([False, True, False] + [False] * 100)
        c.drop_up = lambda leaf, said: leaf == "part" and not isinstance(said, Transfer) and next(lost)
        r.serve(6)  # the pause before a resend is longer
        held = c.held("pi-7", "tiny")
        assert r.states() == {1: "verified"} and held[1].size > 5000
        asked = [w for w in c.down if isinstance(w, Wanted)]
        assert len(asked) == 2, "at first, and after a pause to learn what is missing"
        sent = [s for s in c.said("part") if not isinstance(s, Transfer)]
        assert len(sent) == -(-held[1].size // 1024), "each part came once"
        transfers = [s for s in c.said("part") if isinstance(s, Transfer)]
        assert {(t.what, t.part_size, t.parent) for t in transfers} == {("update", 1024, r.lineage.base_commit)}


def records_pass(c: Centre) -> None:
    """Let signed records through whatever their size; updates and parts stay bound."""
    plain, bound = c.send, c.most

    def send(topic: str, data: bytes, *, retain: bool = False) -> int:
        c.most = 40 * 1024 if data.startswith(records.MAGIC) else bound
        try:
            return plain(topic, data, retain=retain)
        finally:
            c.most = bound

    c.send = send  # type: ignore[method-assign]


def test_a_fresh_state_gets_a_new_epoch_and_numbers_go_on(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "first", c) as r:
        fill(r.device)
        r.run(Goal(rounds=3, timeout=60))
    with rig(tmp_path / "again", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        assert r.lineage.head().epoch == 2
        assert r.states() == {4: "verified", 5: "verified"}
        held = c.held("pi-7", "tiny", 2)
        assert held[4].parent == r.lineage.base_commit and held[5].parent == held[4].commit


def test_a_registry_restored_from_an_older_backup_gets_what_the_device_still_holds(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Receipt) and record.level is Level.VERIFIED
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(publish=True, timeout=60))
        train(r, 4)
        r.serve(5)
        assert set(r.states().values()) == {"stored"}
        lose_versions_above(c, 2)
        c.drop_down = lambda record: False
        r.serve(60)
        assert sorted(c.held("pi-7", "tiny")) == [1, 2, 3, 4]
        assert r.states()[4] == "verified" and receipts(c, Level.REFUSED) == []


def test_a_registry_restored_from_a_backup_before_verified_versions_gets_a_snapshot(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=60))
        lose_versions_above(c, 2)
        r.serve(60)
        held = c.held("pi-7", "tiny")
        assert sorted(held) == [1, 2, 5]
        assert held[5].kind is Kind.SNAPSHOT and held[5].parent == held[2].commit and held[5].level is Level.VERIFIED
        assert r.states() == {1: "verified", 2: "verified", 3: "lost", 4: "lost", 5: "verified"}


def lose_versions_above(c: Centre, keep: int) -> None:
    lineage = c.lineages["pi-7", "tiny"]
    for n in [n for n in lineage.versions[1] if n > keep]:
        del lineage.versions[1][n]
    lineage.heads[1] = (keep, lineage.versions[1][keep].commit)
    lineage.last = keep


def test_a_welcome_overtaken_by_receipts_is_not_believed_at_once(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        state, base = r.device.state, r.lineage.base_commit
        c.after(1, lambda: c.push(welcome_of("home", "pi-7", "tiny", state, "ok", 1, 0, base, 0, 0)))
        r.serve(60)
        assert r.states() == {1: "verified", 2: "verified"}


def test_what_the_fleets_key_did_not_sign_is_ignored(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        stranger = signing.PrivateKey(bytes(32))
        commit = r.lineage.head().commit
        lie = Receipt("home", "pi-7", "tiny", 0, 1, 1, commit, Level.REFUSED, "no", r.lineage.base_commit, 0, 0)
        cmd = command(r, 9)
        for record, leaf, key in ((lie, "receipt", stranger), (cmd, "cmd", stranger), (cmd, "receipt", keys.COMMAND)):
            topic = topics.down("home", "pi-7", "tiny", leaf)
            data = records.encode(record, key, keys.FLEET_ID)
            c.after(1, lambda topic=topic, data=data: c.deliver(topic, data))  # type: ignore[misc]
        c.after(2, lambda: c.deliver("e1/home/pi-7/tiny/dn/cmd", b"rubbish"))
        c.after(2, lambda: c.deliver("e1/home/other/tiny/dn/cmd", records.encode(cmd, keys.COMMAND, keys.FLEET_ID)))
        r.serve(5)
        assert r.states() == {1: "verified"}


def test_a_receipt_for_another_devices_commit_changes_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    c.drop_down = lambda record: isinstance(record, Receipt) and record.commit != bytes(32)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(publish=True, timeout=60))
        train(r, 1)
        c.after(1, lambda: c.push(Receipt("home", "pi-7", "tiny", 0, 1, 1, bytes(32), Level.VERIFIED, "", b"", 0, 0), "receipt"))
        r.serve(5)
        assert r.states() == {1: "offered"}


def test_everything_offered_goes_again_after_a_reconnect(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, link__resend="1h") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 2)
        c.drop_up = lambda leaf, said: leaf == "update"
        c.after(5, c.cut)
        c.after(10, lambda: setattr(c, "drop_up", lambda leaf, said: False))
        c.after(11, c.mend)
        r.serve(20)
        assert r.states() == {1: "verified", 2: "verified"}


@pytest.mark.slow("lives through a dozen devices of eight rounds each")
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), loss=st.floats(0, 0.6))
def test_whatever_is_lost_every_update_ends_stored_exactly_once(tmp_path_factory: pytest.TempPathFactory, seed: int, loss: float) -> None:
    rng, c = random.Random(seed), centre(FakeClock())
    c.drop_up = lambda leaf, said: rng.random() < loss
    c.drop_down = lambda record: rng.random() < loss
    for n in range(rng.randrange(4)):
        c.after(10 + 40 * n + rng.uniform(0, 30), c.cut)
        c.after(30 + 40 * n + rng.uniform(0, 30), c.mend)
    c.after(200, c.mend)
    with rig(tmp_path_factory.mktemp("d") / "d", c, link__window=str(rng.randint(1, 8)), update__coalesce_after="2") as r:
        fill(r.device)
        r.run(Goal(rounds=8, pause=rng.choice([0, 5, 20]), timeout=10**6))
        states = r.states()
        assert set(states.values()) <= {"verified", "skipped"} and states[8] == "verified"
        held = c.held("pi-7", "tiny")
        assert sorted(held) == [n for n, s in states.items() if s == "verified"], "no more, no less"
        assert receipts(c, Level.REFUSED) == []
        carried = {n for h in held.values() for first, last in skipped(h.header.extension) for n in range(first, last + 1)}
        assert carried == {n for n, s in states.items() if s == "skipped"}
        assert held[8].state is not None and held[8].state.root == r.lineage.load().state.root


def skipped(extension: Mapping[str, cbor.Value]) -> list[tuple[int, int]]:
    pairs = extension.get("skipped", [])
    assert isinstance(pairs, list)
    return [(p[0], p[1]) for p in pairs if isinstance(p, list) and isinstance(p[0], int) and isinstance(p[1], int)]


def test_a_wide_tensor_ends_as_a_snapshot_with_larger_units_and_the_fleet_follows(tmp_path: Path, clock: FakeClock) -> None:
    def wild(file: bytes, name: str) -> ScriptedModel:
        return ScriptedModel(file, scale=300.0)  # the lattice's default range is 256 times the largest weight

    c = centre(clock)
    with rig(tmp_path / "d", c, wild, update__density="1") as r:
        fill(r.device)
        r.run(Goal(rounds=4, timeout=60))
        held = c.held("pi-7", "tiny")
        assert [held[n].level for n in sorted(held)] == [Level.VERIFIED] * 4
        kinds = [held[n].kind for n in sorted(held)]
        clamped = [n for n in sorted(held) if held[n].header.extension.get("clamped")]
        assert clamped and kinds[clamped[0]] is Kind.SNAPSHOT, "the round after a clamp is a snapshot"
        assert held[4].state is not None and held[4].state.root == r.lineage.load().state.root


def test_the_container_on_the_wire_is_the_one_in_the_log(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=2, timeout=60))
        log = {row["version"]: row for row in r.lineage.versions()}
        for u in c.updates():
            row = log[u.header.version]
            assert (row["commit_id"], row["parent"], row["root"], row["bytes"]) == (u.commit, u.header.parent, u.header.root, u.size)
        assert len(c.updates()) == 2
