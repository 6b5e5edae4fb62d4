"""Recipes on the board: they wait as they are, whatever else becomes one update, and are given up only for an outbox that is full."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgeagent.rounds import round as rounds
from edgeagent.service.goal import Goal
from edgeagent.state.outcome import merged
from modelwire.errors import OutboxFull
from modelwire.update.container import parse
from modelwire.update.sections import Kind
from modelwire.wire.records import Level
from tests.edgeagent.boards import Rig, centre, fill, rig, standing
from tests.edgeagent.by_hand import train
from tests.edgeagent.centre import Centre, FakeClock
from tests.edgeagent.recipes import learn


def welcomed(r: Rig) -> None:
    r.run(Goal(publish=True, timeout=60))
    fill(r.device)


def queued(r: Rig) -> list[tuple[int, str]]:
    return [(w.version, w.kind) for w in r.lineage.outbox.waiting("queued")]


def at_the_centre(c: Centre) -> tuple[int, Kind, bytes]:
    """Return the last version that the centre has: its number, kind and root."""
    held = c.held("pi-7", "tiny")
    last = held[max(held)]
    assert last.state is not None and last.level is Level.VERIFIED
    return last.version, last.kind, last.state.root


def test_deltas_behind_the_last_recipe_become_one_and_the_recipes_stay(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="100") as r:
        welcomed(r)
        train(r, 2)
        learn(r.lineage, range(9))
        train(r, 3)
        assert r.lineage.coalesce() == [4, 5]
        assert queued(r) == [(1, "delta"), (2, "delta"), (3, "recipe"), (6, "delta")]
        assert r.lineage.coalesce() == []
        learn(r.lineage, range(4, 12))
        assert r.lineage.coalesce() == []
        root = r.lineage.load().state.root
        r.serve(60)
        assert set(r.states().values()) == {"verified", "skipped"}
        assert at_the_centre(c) == (7, Kind.RECIPE, root)


def test_a_sum_says_nothing_that_is_true_of_one_version_alone() -> None:
    said = merged([{"rows": b"\1", "forgot": b"\1", "note": "forgot 1 samples", "steps": 2}, {"steps": 3}], [4, 5])
    assert said == {"note": "forgot 1 samples", "steps": 5, "skipped": [[4, 4]]}


def test_a_full_outbox_gives_recipes_up_for_a_snapshot_and_says_so(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="100") as r:
        welcomed(r)
        train(r, 1)
        for n in range(3):
            learn(r.lineage, range(n, n + 40))
        train(r, 1)
        root, settings = r.lineage.load().state.root, r.device.settings.model("tiny")
        room = r.lineage.outbox.held_bytes() + settings.update.max_bytes
        rounds.check_due(standing(r.device), room)
        assert [kind for _, kind in queued(r)] == ["delta", "recipe", "recipe", "recipe", "delta"]
        with caplog.at_level(logging.WARNING):
            rounds.check_due(standing(r.device), room - 1)
        assert "a snapshot takes the place of the recipes of @2..@4" in caplog.text
        assert queued(r) == [(5, "snapshot")]
        body = parse(r.lineage.outbox.body(5))
        said = body.header.extension
        assert said["note"] == "the outbox was full: the recipes of @2..@4 were given up" and "rows" not in said
        assert r.lineage.versions(1)[0]["reason"] == said["note"]
        r.serve(60)
        assert at_the_centre(c) == (5, Kind.SNAPSHOT, root)


def test_recipes_are_kept_when_a_snapshot_would_be_no_smaller(tmp_path: Path, clock: FakeClock) -> None:
    c = centre(clock)
    with rig(tmp_path / "d", c, update__coalesce_after="100") as r:
        welcomed(r)
        learn(r.lineage, [5, 6])
        small = r.lineage.outbox.held_bytes()
        state = r.lineage.load().state
        snapshot = len(r.lineage.seal(r.lineage.head(), Kind.SNAPSHOT, state.snapshot(), state, {}).data)
        with pytest.raises(OutboxFull):
            rounds.check_due(standing(r.device), small)
        assert queued(r) == [(1, "recipe" if snapshot + 60 >= small else "snapshot")]
