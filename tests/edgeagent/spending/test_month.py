"""Bytes of a month: on the disk before they leave, over restarts and clocks that are set; at the limit no update goes, and answers do."""

from __future__ import annotations

import calendar
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagent import cli
from edgeagent.link.link_state import LinkState, note
from edgeagent.service.befallen import befallen, month_document
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.spending import month as counted
from edgeagent.spending.month import LEASE, LONGEST, Month, allowance, cost, month_of, months
from edgeagent.spending.tables import TABLES
from edgeagent.state.looking import look_at
from edgeagent.system.database import create_database, open_database
from edgecommon.sqlite import Database
from modelwire.errors import DiskUnwritable, MonthSpent
from tests.edgeagent.boards import Rig, centre, command, fill, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FakeClock

DAY = 86_400.0
NOVEMBER, DECEMBER = (float(calendar.timegm((2026, m, 10, 0, 0, 0))) for m in (11, 12))


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    database = open_database(path, 1) if path.exists() else create_database(path, TABLES, 1)
    try:
        yield database
    finally:
        database.close()


def begun(database: Database, limit: int = 100_000, wall: float = NOVEMBER) -> Month:
    month = Month(database, limit)
    month.begin(wall, 0.0)
    return month


def on_disk(database: Database) -> int:
    return months(database)[0].total


@given(sizes=st.lists(st.tuples(st.booleans(), st.integers(0, 20_000)), max_size=30), kill_at=st.integers(0, 30))
def test_a_kill_counts_too_much_and_never_too_little_and_an_end_counts_right(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[bool, int]], kill_at: int
) -> None:
    path = tmp_path_factory.mktemp("month") / "x.db"
    with opened(path) as database:
        month, sent, received = begun(database), 0, 0
        for i, (out, size) in enumerate(sizes):
            if i == kill_at:  # nothing is said to it any more
                assert sent <= months(database)[0].sent <= sent + LEASE
                assert received - LEASE <= months(database)[0].received <= received
                sent, received = months(database)[0].sent, months(database)[0].received
                month = begun(database)
            if out:
                month.sends(size)
                sent += size
                assert months(database)[0].sent >= sent, "on the disk before it leaves"
            else:
                month.receives(size)
                received += size
        month.close(NOVEMBER, 1.0)
        assert (months(database)[0].sent, months(database)[0].received) == (sent, received)


def test_what_is_set_apart_for_an_update_is_in_its_transaction(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database)
        before = on_disk(database)
        with pytest.raises(KeyError), month.setting_apart(50_000):
            raise KeyError
        assert on_disk(database) == before
        with month.setting_apart(50_000):
            pass
        assert on_disk(database) == before + 50_000
        month.sends(50_000)  # it was counted
        assert on_disk(database) == before + 50_000 and month.now.sent == 50_000


@given(walls=st.lists(st.floats(0, 4e9), min_size=1, max_size=40), starts=st.integers(1, 6))
def test_no_clock_gives_a_month_back_that_a_later_one_took(
    tmp_path_factory: pytest.TempPathFactory, walls: list[float], starts: int
) -> None:
    """Whatever the clock says, in one run or over several: a new month begins for a later one alone, within 31 days of running."""
    path = tmp_path_factory.mktemp("month") / "x.db"
    highest, now = -1, 0.0
    with opened(path) as database:
        month: Month | None = None
        for i, wall in enumerate(walls):
            if month is None or i % starts == 0:
                month = Month(database, 10_000)
                month.begin(wall, now)
            now += 60.0
            spent = month.now.total if month_of(wall) <= highest else 0
            month.look(wall, now)
            if month_of(wall) <= highest:
                assert month.now.total == spent and month.now.month == highest
            highest = max(highest, month_of(wall))
            month.sends(100)
        assert month is not None and month.now.month == highest


def test_a_clock_that_was_ahead_holds_the_month_for_31_days_of_running_and_no_longer(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database, wall=NOVEMBER + 3650 * DAY)
        month.sends(90_000)
        now = 0.0
        while now < LONGEST - DAY:
            now += DAY / 2
            month.look(NOVEMBER, now)
            assert not month.admits(20_000)
        month.close(NOVEMBER, now)
        month = Month(database, 100_000)  # a restart keeps what it ran
        month.begin(NOVEMBER, 0.0)
        assert not month.admits(20_000)
        month.look(NOVEMBER, 2 * DAY)
        assert month.admits(20_000) and month.now.month == month_of(NOVEMBER)


def test_a_clock_that_the_centre_bears_out_sets_the_month_right_and_gives_nothing_twice(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database)
        month.sends(30_000)
        month.look(NOVEMBER + 3650 * DAY, 1.0)
        month.sends(40_000)
        month.receives(5_000)
        month.set_right(NOVEMBER)
        assert (month.now.month, month.now.sent, month.now.received) == (month_of(NOVEMBER), 70_000, 5_000)
        assert months(database) == [month.now], "the month that was left is in it again"
        month.set_right(DECEMBER)  # to begin a later one is for `look`
        assert month.now.month == month_of(NOVEMBER)
        month.look(DECEMBER, 2.0)
        assert month.now.total == 0 and [one.total for one in months(database)] == [0, 75_000]


def test_an_update_that_no_month_takes_says_so(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database)
        assert "wait for the next month" in month.error(100_000).next_step
        assert "no month takes it" in month.error(100_001).next_step


def test_a_month_ends_and_the_ones_before_are_kept_for_a_year(tmp_path: Path) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database)
        month.sends(70_000)
        month.look(DECEMBER, 1.0)
        assert month.now.total == 0 and [one.total for one in months(database)] == [0, 70_000]
        for i in range(40):
            month.look(DECEMBER + 31 * DAY * (i + 1), 2.0 + i)
        assert len(months(database)) == 13


def test_a_disk_that_takes_nothing_keeps_no_hello_back_and_what_was_said_is_counted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "x.db") as database:
        month = begun(database)
        plain = database.run

        def full(sql: str, *values: object) -> int:
            raise DiskUnwritable(path="x", reason="full", disk="none", fix="")

        monkeypatch.setattr(database, "run", full)
        month.sends(30_000)
        month.receives(30_000)
        monkeypatch.setattr(database, "run", plain)
        assert month.now.total == 60_000
        month.sends(1)
        assert on_disk(database) >= 30_001


@pytest.mark.parametrize("wall", [-1e30, -1.0, 0.0, 1e12, 1e300, float("inf")])
def test_no_time_is_beyond_a_month(wall: float) -> None:
    assert month_of(wall) >= 12 * 1970


def test_what_a_message_costs_rises_with_it_and_is_never_less_than_it() -> None:
    costs = [cost(30, size) for size in range(0, 10_000, 7)]
    assert costs == sorted(costs) and all(c > size + 30 for c, size in zip(costs, range(0, 10_000, 7), strict=True))


# On a board.


def already(r: Rig, total: int) -> None:
    """Let so many bytes be spent before the next run."""
    month = Month(r.device.database, 0)
    month.begin(r.centre.clock.wall(), 0.0)
    month.now = counted.MonthBytes(month.now.month, total, 0)
    month.close(r.centre.clock.wall(), 0.0)


def limited(limit: int) -> dict[str, str]:
    return {"link__monthly_bytes": f"{limit}B"}


def test_at_the_limit_no_update_leaves_and_commands_are_taken_and_answered(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, **limited(20_000)) as r:
        fill(r.device)
        r.serve(30)
        train(r, 12)
        held = len(c.held("pi-7", "tiny"))
        already(r, 19_990)
        c.commands.append(command(r, 1, "no such verb"))
        r.serve(600)
        assert len(c.held("pi-7", "tiny")) == held == 1, "nothing left"
        assert [a.number for a in c.answers] == [1], "the command was answered"
        assert 0 < r.agent._counts.month.now.total - 20_000 < allowance(20_000)
        assert set(r.states().values()) == {"verified", "queued", "skipped"}, "what waits became one"
        assert sum(s == "queued" for s in r.states().values()) <= 9
    path = tmp_path / "d" / reading.FILE
    with look_at(reading.load(path, environment={}, flags={})) as look:
        assert [one.id for one in befallen(look, clock.wall())] == ["month-spent"]
        document = month_document(look, clock.wall())
        assert document is not None and document["limit"] == 20_000 and document["left"] == 0


def test_what_waits_goes_in_the_next_month_as_it_is(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, **limited(40_000)) as r:
        fill(r.device)
        r.serve(30)
        already(r, 39_900)
        train(r, 5)
        r.serve(100)
        waiting = [n for n, s in r.states().items() if s != "verified"]
        assert len(waiting) == 5 and len(c.held("pi-7", "tiny")) == 1
        clock.now += 32 * DAY
        r.serve(60)  # a round is due after so long
        assert set(r.states().values()) <= {"verified", "skipped"} and r.states()[max(waiting)] == "verified"


def test_a_run_that_ends_says_that_the_month_is_spent(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c) as r:
        fill(r.device)
        r.serve(30)
        train(r, 1)
        held = c.held("pi-7", "tiny")
    path = tmp_path / "d" / reading.FILE
    path.write_text(path.read_text().replace('#monthly_bytes = "0B"', 'monthly_bytes = "10B"'))
    with rig(tmp_path / "d", c) as r:
        for goal in (Goal(publish=True, timeout=60), Goal(once=True, timeout=60), Goal(rounds=1, timeout=60)):
            with pytest.raises(MonthSpent, match="of the 10 bytes of 2027-01") as e:
                r.run(goal)
            assert "link.monthly_bytes" in e.value.next_step
        assert c.held("pi-7", "tiny") == held


def test_beyond_the_allowance_nothing_is_said_at_all(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, **limited(1000)) as r:
        already(r, 1000 + allowance(1000))
        r.serve(100)
        assert [leaf for leaf, _ in c.up] == ["state"], "its farewell alone"
        r.agent.stopping = ""
        with pytest.raises(MonthSpent):  # it would wait for an answer to what it never says
            r.run(Goal(publish=True, timeout=60))
    path = tmp_path / "d" / reading.FILE
    with look_at(reading.load(path, environment={}, flags={})) as look:
        assert [one.id for one in befallen(look, clock.wall())] == ["month-spent"], "though no update waits"


def test_a_board_that_runs_a_minute_a_day_is_not_held_for_years_by_a_clock_that_was_ahead(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, **limited(40_000)) as r:
        already(r, 39_900)
        r.device.database.run("UPDATE month SET month=month+120")
    with rig(tmp_path / "d", c, **limited(40_000)) as r:
        fill(r.device)
        r.serve(30)
        train(r, 1)
        r.serve(30)
        assert c.held("pi-7", "tiny") == {}, "nothing was given twice"
        clock.now += 32 * DAY
        r.serve(60)
        assert len(c.held("pi-7", "tiny")) > 0


def test_a_board_that_may_not_ask_does_not_blame_its_centre(tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with rig(tmp_path / "d", centre(clock), **limited(1000)) as r:
        note(r.device.database, LinkState(True, r.device.settings.link.broker, 1))
        for spent, blamed in ((1000, True), (1000 + allowance(1000), False)):
            month = Month(r.device.database, 0)
            month.begin(time.time(), 0.0)
            month.now = counted.MonthBytes(month.now.month, spent, 0)
            month.close(time.time(), 0.0)
            cli.main(["doctor", "--dir", str(tmp_path / "d"), "--json"])
            found = {one["key"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
            assert (found["welcome"]["ok"] is False) == blamed == ("month-spent" not in found), found["welcome"]


def test_the_setting_is_one_of_bytes(tmp_path: Path, clock: FakeClock) -> None:
    with rig(tmp_path / "d", centre(clock), link__monthly_bytes="25MB") as r:
        assert r.device.settings.link.monthly_bytes == 25_000_000
