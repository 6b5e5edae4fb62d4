"""Nothing that one fleet, role or direction has signed is taken in another: every pair is tried, on the code of both sides."""

from __future__ import annotations

from pathlib import Path

from tests.system import replays


def test_no_message_is_taken_where_it_does_not_belong(tmp_path: Path) -> None:
    tally = replays.measure(tmp_path)
    assert tally.wrongly == []
    assert tally.pairs > 20_000 and tally.taken > 20  # what belongs is taken: the check can fail
