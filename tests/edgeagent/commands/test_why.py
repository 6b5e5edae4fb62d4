"""`edgeagent why`: a decision on one screen, by whatever name a person gives, also where nothing was decided."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from edgeagent import cli
from edgeagent.commands.estimate import _sent
from edgeagent.planning.figures import WAKEUP
from edgeagent.service.goal import Goal
from tests.edgeagent.boards import centre, fill, rig
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import FakeClock
from tests.stock import runtime


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A board of which two versions wait, the second of them a snapshot that somebody asked for."""
    with rig(tmp_path / "d", centre(FakeClock()), link__profile="lte-sleeping", train__every="6h") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 1)
        r.lineage.snapshot(0, note="asked for")
    return tmp_path / "d"


def said(capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert cli.main([*words, "--dir", str(folder), "--json"]) == code
    out = capsys.readouterr()
    return json.loads(out.err if code else out.out)


@pytest.mark.parametrize("name", [(), ("tiny",), ("tiny@1",), ("@1",), ("pi-7@1",), ("pi-7/tiny@1",), ("pi-7",), ("@latest",)])
def test_any_way_to_name_it_gives_the_decision(board: Path, capsys: pytest.CaptureFixture[str], name: tuple[str, ...]) -> None:
    (decision,) = said(capsys, board, "why", *name)["decisions"]
    assert (decision["name"], decision["decision"]["choice"], decision["state"]) == ("tiny@1", "wait", "queued")
    assert cli.main(["why", *name, "--dir", str(board)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert lines[0].startswith("tiny@1: waits about ") and any(line.startswith("  wait ") for line in lines)


def test_what_was_told_is_said_to_be_so(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (told,) = said(capsys, board, "why", "tiny@2")["decisions"]
    assert told["decision"] is None and told["note"] == "it was told, not decided: snapshot; asked for"


@pytest.mark.parametrize("name", ["tiny@9", "digits", "@x", "tiny@-1", "tiny@" + "9" * 40, "pi-8/tiny@1"])
def test_a_name_that_is_none_is_refused_with_what_to_do(board: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    error = said(capsys, board, "why", name, code=15)
    assert error["error"] == "BadArgument" and error["hint"].startswith("edgeagent ")


def test_status_says_what_waits_and_outbox_retry_lets_it_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rig(tmp_path / "d", centre(clock := FakeClock()), link__profile="lte-sleeping", train__every="6h") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 2)
        now = int(time.time())  # of whoever runs this test
        r.device.database.run("UPDATE plan SET at=?, hold=?", now - 60, now + 80_000)
        clock.now = now - 1_800_000_000.0
        assert r.lineage.plans.waits(clock.wall()) is not None
    (model,) = said(capsys, tmp_path / "d", "status")["models"]
    assert model["sends"]["updates"] == 2 and "a wake-up of the link takes 12.6 J" in model["sends"]["reason"]
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "waits to send: 2 updates, " in capsys.readouterr().out
    with rig(tmp_path / "d", centre(clock)) as r:
        r.device.database.run("UPDATE plan SET decision='[]'")
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "because so it was decided; until " in capsys.readouterr().out
    said(capsys, tmp_path / "d", "outbox", "retry")
    assert said(capsys, tmp_path / "d", "status")["models"][0]["sends"] is None


def test_estimate_shows_the_next_decision(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runtime()
    row = said(capsys, board, "estimate")["models"][0]["next"]
    forms = {r["name"]: r["bytes"] for r in row["decision"]["rows"] if not r["why"]}
    assert {"snapshot", "wait"} < set(forms) and row["bytes"] == row["forms"][row["kind"]] == min(row["forms"].values())
    assert cli.main(["estimate", "--dir", str(board)]) == 0
    assert "in millionths" in (text := capsys.readouterr().out) and "it went by" in text


def test_why_stays_on_one_screen_and_names_what_an_update_became_part_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), link__profile="lte-sleeping", train__every="6h") as r:
        r.run(Goal(publish=True, timeout=60))
        fill(r.device)
        train(r, 3)
        db = r.device.database
        (text,) = db.one("SELECT decision FROM plan WHERE version=3")
        document = {**json.loads(text), "sources": [[f"figure {n}", 1.0, "measured: 9 receipts"] for n in range(30)]}
        db.run("UPDATE plan SET at=?, hold=?", int(time.time()) - 60, int(time.time()) + 80_000)  # by the clock of whoever runs this test
        db.run("UPDATE plan SET decision=? WHERE version=3", json.dumps(document))
        assert cli.main(["why", "--dir", str(tmp_path / "d")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 24 and max(map(len, lines)) <= 80 and any(line.startswith("it waits until ") for line in lines)
        assert any(line.startswith("of all 3 updates that waited, ") for line in lines)
        assert r.lineage.coalesce() == [1, 2]
    assert cli.main(["why", "tiny@1", "--dir", str(tmp_path / "d")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "it is part of @3"


def test_estimate_says_recipe_only_of_who_asks_for_recipes() -> None:
    update = {"kind": "snapshot", "bytes": 100, "forms": {"snapshot": 100, "delta": 95}, "decision": {"choice": "snapshot"}}
    assert _sent(update) == "it would go as a snapshot of 100 bytes; it would take 95 as a delta"
    assert _sent({**update, "decision": {"choice": "wait"}}).startswith("it would wait, and go as a snapshot")
    assert "update.kind" in _sent({**update, "decision": None})


def test_calibrate_says_the_joules_that_count_and_does_not_pass_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rig(tmp_path / "d", centre(FakeClock()), link__profile="lte-sleeping") as r:
        assert "by its profile lte-sleeping" in said(capsys, tmp_path / "d", "calibrate", "--known")["joules"]
        r.lineage.link_figures.put(WAKEUP, 9.5, "calibrated: m.toml", 1)
        joules = said(capsys, tmp_path / "d", "calibrate", "--known")["joules"]
        assert "of the link 9.5 J a wake-up (calibrated: m.toml), else by its profile lte-sleeping" in joules
    (tmp_path / "m.toml").write_text("watts = 2.4")
    assert cli.main(["calibrate", "--known", "--meter", str(tmp_path / "m.toml"), "--dir", str(tmp_path / "d")]) == 2
    assert "--meter does nothing beside --known" in capsys.readouterr().err
