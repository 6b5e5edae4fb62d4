"""Measured figures: the newer weighs more, what is no measurement is none, and a full disk costs nothing but them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgeagent.planning.figures import ENCODE, UPLINK_BYTES, UPLINK_SECONDS, Figures
from edgeagent.planning.pace import UplinkPace
from edgeagent.state.folder import open_folder
from edgecommon.sqlite import Database
from modelwire.errors import DiskUnwritable
from tests.edgeagent.boards import make


def test_figures_are_means_that_follow_what_changes(tmp_path: Path) -> None:
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        figures = Figures(device.database, "tiny")
        assert figures.get(ENCODE) is None and figures.uplink() is None
        for value in (10.0, 20.0, 30.0):
            figures.note(ENCODE, value, "measured: rounds", 7.9)
        known = figures.get(ENCODE)
        assert known is not None and (known.value, known.count, known.source, known.at) == (20.0, 3, "measured: rounds", 7)
        for _ in range(30):
            figures.note(ENCODE, 100.0, "measured: rounds", 8)
        assert (figures.get(ENCODE) or known).value > 99, "a board that got faster is known to be"
        figures.note(ENCODE, 5.0, "calibrated: made-up rounds", 9)
        known = figures.get(ENCODE)
        assert known is not None and (known.value, known.count) == (5.0, 1), "another way to measure begins anew"
        assert Figures(device.database).get(ENCODE) is None and list(figures.all()) == [ENCODE]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e19])
def test_what_is_no_measurement_is_not_noted(tmp_path: Path, value: float) -> None:
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        device.lineages["tiny"].figures.note(ENCODE, value, "measured: rounds", 1)
        assert device.lineages["tiny"].figures.all() == {}


@pytest.mark.parametrize("value", ["much", None, -4.0, 1e300, b"\x00"])
def test_a_row_that_was_damaged_is_no_figure(tmp_path: Path, value: object) -> None:
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        figures = device.lineages["tiny"].figures
        figures.note(ENCODE, 4.0, "measured: rounds", 1)
        device.database.run("UPDATE OR IGNORE figure SET value=?", value)
        known = figures.get(ENCODE)
        assert known is None or known.value == 4.0
        figures.note(ENCODE, 6.0, "measured: rounds", 1)
        assert figures.get(ENCODE) is not None


def test_the_pace_is_from_the_first_handing_over_to_the_first_receipt(tmp_path: Path) -> None:
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        figures = device.lineages["tiny"].link_figures
        pace = UplinkPace(figures)
        pace.sent(1, 1000, 10.0)
        pace.sent(1, 1000, 14.0)  # again
        pace.receipted([1], 20.0, 99.0)
        pace.receipted([1], 30.0, 99.0)  # verified, which is no news of the link
        known = figures.uplink()
        assert known is not None and (known.value, known.count, known.source) == (100.0, 1, "measured: receipts")
        pace.sent(2, 1000, 40.0)
        pace.forget()
        pace.receipted([2], 50.0, 99.0)
        assert (figures.uplink() or known).count == 1, "a connection was lost meanwhile"
        assert {UPLINK_BYTES, UPLINK_SECONDS} == set(figures.all())


def test_a_full_disk_keeps_no_figure_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        def full(*_: object) -> int:
            raise DiskUnwritable(path=tmp_path, reason="full", fix="room")

        monkeypatch.setattr(Database, "run", full)
        device.lineages["tiny"].figures.note_all({ENCODE: 4.0}, "measured: rounds", 1)
        monkeypatch.undo()
        assert device.lineages["tiny"].figures.all() == {}

