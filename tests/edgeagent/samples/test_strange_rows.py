"""Whoever may append may write any row: what is no sample goes by name, what is one stays, and the agent trains on."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgeagent.samples.spool_tables import FILE, FOLDER
from edgeagent.service.goal import Goal
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.centre import FakeClock

GOOD = np.ones(4, "<f4").tobytes()
NAN = np.full(4, np.nan, "<f4").tobytes()
ROWS = {  # class, x, target, bytes, cell, rank
    "short": (1, GOOD[:-1], None, 15, 1, 1),
    "long": (1, GOOD * 3, None, 48, 1, 1),
    "huge": (1, bytes(8 << 20), None, 8 << 20, 1, 1),
    "text": (1, "x" * 16, None, 16, 1, 1),
    "nothing": (1, b"", None, 0, 1, 1),
    "class of another model": (99, GOOD, None, 16, 1, 1),
    "class that is text": ("one", GOOD, None, 16, 1, 1),
    "negative class": (-2, GOOD, None, 16, 1, 1),
    "no class and no target": (-1, GOOD, None, 16, 1, 1),
    "target of another shape": (-1, GOOD, GOOD, 32, 1, 1),
    "wrong size": (1, GOOD, None, -5, 1, 1),
    "no cell": (1, GOOD, None, 16, 4711, 1),
    "rank that is text": (1, GOOD, None, 16, 1, "first"),
    "no number": (1, NAN, None, 16, None, 1),
}


def plant(folder: Path, *names: str) -> None:
    with closing(sqlite3.connect(folder / "state" / FOLDER / FILE)) as database, database:
        for name in names:
            cls, x, target, size, cell, rank = ROWS[name]
            place = database.execute("SELECT id FROM cell WHERE class=1").fetchone()[0] if cell is None else cell
            database.execute(
                "INSERT INTO sample (model, class, x, target, bytes, at, cell, rank) VALUES ('tiny',?,?,?,?,0,?,?)",
                (cls, x, target, size, place, rank),
            )


@pytest.mark.parametrize("name", [*ROWS, ""])
def test_a_row_that_is_no_sample_is_dropped_by_name_and_the_round_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        r.run(Goal(publish=True, timeout=60))
        plant(tmp_path / "d", *([name] if name else ROWS))
        with caplog.at_level(logging.WARNING, "edgeagent"):
            r.run(Goal(rounds=1, timeout=600))
        assert r.agent.reports[-1].accepted and r.agent.reports[-1].outcome.samples <= 40
        count = 1 if name else len(ROWS)
        assert f"tiny: {count} rows of the spool were no samples of this model" in caplog.text and str(tmp_path) in caplog.text
        assert r.device.spool.count("tiny") == 40 == len(r.device.spool.ids("tiny", until=1 << 60))
        caplog.clear()
        r.run(Goal(rounds=2, timeout=600))
        assert "no samples of this model" not in caplog.text


def test_a_count_that_somebody_made_up_is_counted_again(tmp_path: Path) -> None:
    with rig(tmp_path / "d", centre(FakeClock())) as r:
        fill(r.device)
        with closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / FILE)) as database, database:
            database.execute("UPDATE cell SET samples=100000000, bytes=-7")
        r.run(Goal(rounds=1, timeout=600))
        assert r.device.spool.count("tiny") == 40
        assert sum(c.bytes for c in r.device.spool.classes("tiny")) == 40 * 16


@pytest.mark.parametrize("name", list(ROWS))
def test_an_agent_that_starts_on_such_rows_opens_its_folder(tmp_path: Path, name: str) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), spool__max_samples="40") as r:
        fill(r.device)
    plant(tmp_path / "d", name)
    with closing(sqlite3.connect(tmp_path / "d" / "state" / FOLDER / FILE)) as database, database:
        database.execute("UPDATE cell SET samples=samples+1")
    held = centre(FakeClock())
    with rig(tmp_path / "d", held) as r:
        r.run(Goal(rounds=1, timeout=600))
        assert r.agent.reports[-1].accepted and 37 <= r.device.spool.count("tiny") <= 40
