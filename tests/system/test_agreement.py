"""Behind a broker that lies, and over a restored backup, board and centre say the same of every version number when they are at rest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.system import lying
from tests.system.lying import Faults, World


@pytest.mark.slow("a thousand messages through a broker that lies, each version rebuilt", seconds=12)
@pytest.mark.parametrize("seed", [2, 5])  # the first one once ended in 16 versions that only the board called verified
def test_all_numbers_agree_after_a_lying_broker_wrong_versions_and_a_restored_backup(tmp_path: Path, seed: int) -> None:
    found = lying.measure(tmp_path, seed)
    assert found.disagreements == []
    words = {state.split(":")[0].split(" @")[0] for state in found.states.values()}
    assert found.versions >= 60 and words == {"verified", "refused", "lost", "carried by"}


def test_a_muted_centre_and_old_welcomes_that_are_said_again_take_nothing_back(tmp_path: Path) -> None:
    world = World(tmp_path, 7)
    world.serve(100, bursts=[1] * 8)
    muted = world.serve(200, bursts=[2] * 6, faults=Faults(muted=True))
    assert "lost" not in muted.states.values() and not any(s.startswith("refused") for s in muted.states.values())
    rest = world.serve(lying.LONG)
    assert rest.disagreements == [] and set(rest.states.values()) <= {"verified", *(s for s in rest.states.values() if "carried" in s)}
    world.close()


def test_a_board_whose_database_lost_its_last_commit_says_by_number_what_it_gives_up_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, 3)
    world.serve(100, bursts=[1] * 3)
    file = tmp_path / "board" / "state" / "edgeagent.db"
    before = file.read_bytes()  # no agent runs: all is in the file
    world.serve(30, bursts=[1])
    file.write_bytes(before)
    with caplog.at_level(logging.WARNING, "edgeagent"):
        world.serve(5)
        assert "the centre's head is one that this folder knows nothing of" in caplog.text and "@5; waiting for receipts" in caplog.text
        world.serve(60, bursts=[2], faults=Faults(drop=1.0))
        rest = world.serve(lying.LONG)
    assert {n: s for n, s in rest.states.items() if n != 5} == {
        1: "verified", 2: "verified", 3: "verified", 4: "verified", 8: "verified", **{n: rest.states[n] for n in (6, 7)}
    }  # fmt: skip
    assert all(rest.states[n].startswith("refused: ") or rest.states[n] == "lost" for n in (6, 7))
    assert [line for line in rest.disagreements if not line.startswith("@5:")] == []
    assert "the centre refused @6: " in caplog.text and ("given up with @6: @7" in caplog.text or "refused @7" in caplog.text)
    world.close()


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.serve(100, bursts=[1] * 4)
    late = world.serve(30, bursts=[1], faults=Faults(drop=1.0))
    assert [line.split(":")[0] for line in late.disagreements] == ["@6"]
    world.close()
