"""Killed at each of its writes a device ends confirmed or reverted, and serves the one that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from .killed import killed_at_each_write


@pytest.mark.slow("starts a device some hundred times")
@pytest.mark.parametrize("way", ["auto", "anew", "veto", "back"])
def test_killed_at_a_write_it_ends_whole(tmp_path: Path, way: str) -> None:
    tried, wrong = killed_at_each_write(tmp_path / "story", way, every=7)
    assert tried > 5 and wrong == []
