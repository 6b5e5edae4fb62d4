"""A state folder of which there is another copy: it builds on nothing that it did not make, says so, and has a way to go on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeagent.commands.status import _lines, _model
from edgeagent.link.transport import Lost
from edgeagent.service.goal import Goal
from edgeagent.state.folder import ousted
from edgeagent.state.lineage import FORKED
from modelwire.errors import SessionTaken, TwoHistories
from modelwire.update.container import Container
from modelwire.update.sections import Kind
from modelwire.wire import numbers
from modelwire.wire.records import Welcome
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import one
from tests.edgeagent.centre import Centre, FakeClock


def copied(folder: Path, clock: FakeClock) -> Centre:
    """Make a board with one version, a copy of its folder, and one version more of the board's; return the centre that holds both."""
    c = centre(clock)
    with rig(folder / "newer", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
    shutil.copytree(folder / "newer", folder / "older", symlinks=True)
    with rig(folder / "newer", c) as r:
        r.run(Goal(rounds=2, timeout=60))
    c.up.clear()
    c.down.clear()
    return c


def sent(c: Centre) -> list[Container]:
    return [said for _, said in c.up if isinstance(said, Container)]


def test_an_older_copy_sends_nothing_and_names_the_reason(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "older", c) as r:
        with pytest.raises(TwoHistories, match="the centre holds @2, which this one did not make"):
            r.run(Goal(publish=True, timeout=60))
        assert sent(c) == [] and r.lineage.head().blocked.startswith(FORKED)
        assert any("BLOCKED" in line and "Two of one name" in line for line in _lines(_model(r.device, r.lineage)))


def test_a_copy_that_has_trained_is_refused_and_takes_nothing_over(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "older", c) as r:
        fill(r.device, seed=5)
        one(r)
        with pytest.raises(TwoHistories):
            r.run(Goal(publish=True, timeout=60))
        assert [u.header.kind for u in sent(c)] == [Kind.DELTA] * len(sent(c)), "no snapshot goes out on what another has made"
        served = r.lineage.load().state.root
        r.serve(600)
        assert {u.header.version for u in sent(c)} <= {2} and r.lineage.load().state.root == served


def test_the_service_of_a_copy_leaves_the_name_to_the_other_one(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "older", c) as r:
        r.serve(60)
        assert c.stood_aside and set(c.stood_aside) == {FORKED}
    with rig(tmp_path / "newer", c) as r:
        c.stood_aside.clear()
        r.serve(60)
        assert c.stood_aside == [] and r.lineage.head().blocked == ""


def test_what_answers_no_hello_of_this_connection_blocks_nothing(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "newer", c) as r:
        r.run(Goal(publish=True, timeout=60))
        (welcome, *_) = [w for w in c.down if isinstance(w, Welcome) and w.head_version == 2]
    with rig(tmp_path / "older", c) as r:
        c.drop_up = lambda leaf, said: True  # no hello comes through
        for at, nonce in ((1, {}), (2, {numbers.NONCE: bytes(numbers.NONCE_BYTES)})):
            c.after(at, lambda nonce=nonce: c.push(replace(welcome, more=nonce)))  # type: ignore[misc]
        r.serve(30)
        assert r.lineage.head().blocked == ""


def test_a_folder_whose_database_lost_its_last_words_is_no_copy_and_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        place = r.device.database.path
    before = place.read_bytes()  # no agent runs: all is in the file
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(rounds=2, timeout=60))
    place.write_bytes(before)
    with rig(tmp_path / "d", c) as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device, seed=3)
        one(r)
        r.serve(600)
        assert r.lineage.head().blocked == "" and c.stood_aside == []
        assert r.states()[r.lineage.head().version] == "verified" and r.lineage.head().version == 4


def test_it_goes_on_when_the_centre_holds_again_what_it_made(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "older", c) as r:
        with pytest.raises(TwoHistories):
            r.run(Goal(publish=True, timeout=60))
        lineage = c.lineages["pi-7", "tiny"]
        lineage.heads[1] = (1, lineage.versions[1].pop(2).parent)  # a backup of before was restored
        r.agent.stopping = ""
        r.serve(60)
        assert r.lineage.head().blocked == ""


def test_a_new_epoch_takes_along_what_is_served_and_keeps_what_was_verified(tmp_path: Path, clock: FakeClock) -> None:
    c = copied(tmp_path, clock)
    with rig(tmp_path / "older", c) as r:
        fill(r.device, seed=5)
        one(r)
        with pytest.raises(TwoHistories):
            r.run(Goal(publish=True, timeout=60))
        served = r.lineage.load().state.root
        before = r.device.state
        r.device.renew_state()
    with rig(tmp_path / "older", c) as r:
        assert r.device.state != before
        r.run(Goal(publish=True, timeout=60))
        head = r.lineage.head()
        assert (head.epoch, head.blocked) == (2, "") and r.lineage.load().state.root == served
        (snapshot,) = [u for u in sent(c) if u.header.epoch == 2]
        assert snapshot.header.kind is Kind.SNAPSHOT and snapshot.header.root == served and snapshot.header.version > 2
        assert r.states()[1] == "verified"
        r.run(Goal(rounds=r.lineage.head().rounds + 1, timeout=600))
        assert r.states()[r.lineage.head().version] == "verified"


def test_a_second_client_of_its_name_ends_a_run_that_has_a_goal_and_not_the_service(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        c.after(1, lambda: c._queue.append(Lost("gone", ousted="another client took its session 3 times")))
        r.serve(5)
        assert ousted(r.device.database) == "another client took its session 3 times"
    with rig(tmp_path / "d", c, link__resend="1h") as r:
        c.drop_up = lambda leaf, said: True
        c.after(1, lambda: c._queue.append(Lost("gone", ousted="another client took its session 3 times")))
        with pytest.raises(SessionTaken, match=r"two clients use the name home\.pi-7"):
            r.run(Goal(rounds=1, timeout=600))
