"""Figures at full size stay in the tree with their date and commit, part by part; small ones are not kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evidence import lost, parts


def test_figures_at_full_size_are_kept_part_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "FULL", tmp_path / "full")
    monkeypatch.delenv("FULL", raising=False)
    parts.alone("lost", "blocks", lambda full: {"crash_states": 1000 if full else 30})
    assert json.loads(capsys.readouterr().out) == {"crash_states": 30} and parts.last_full("lost") == []
    monkeypatch.setenv("FULL", "1")
    parts.alone("lost", "blocks", lambda full: {"crash_states": 999})
    parts.alone("lost", "chaos", lambda full: {"chaos_lost": 0})
    parts.alone("lost", "blocks", lambda full: {"crash_states": 1000 if full else 30})
    kept = json.loads((tmp_path / "full" / "lost.json").read_text())
    assert {part: row["figures"] for part, row in kept.items()} == {"blocks": {"crash_states": 1000}, "chaos": {"chaos_lost": 0}}
    assert all(len(row["date"]) == 10 and row["commit"] for row in kept.values())
    assert [line.split(",")[0] for line in parts.last_full("lost")] == ["FULL=1 blocks", "FULL=1 chaos"]


def test_what_is_kept_is_of_parts_that_there_are() -> None:
    file = parts.FULL / "lost.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    assert set(kept) <= set(lost.PARTS)
    assert all(set(row) == {"date", "commit", "figures"} for row in kept.values())
