"""The centre's process is killed with SIGKILL at moments that nobody chose, again and again, and loses nothing that it had said."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from edgecloud.registry import open_registry
from tests.house.pages import ROOT
from tests.simulator.audit import audit, wrong_in_log
from tests.simulator.small_fleet import small_fleet


@pytest.mark.slow("starts a process some times and kills it", seconds=10)
def test_a_centre_that_is_killed_for_real_loses_nothing_that_it_said(tmp_path: Path) -> None:
    fleet, rng = small_fleet(tmp_path, devices=3, versions=6), Random(14)
    (tmp_path / "said").write_bytes(pickle.dumps(fleet.said))
    kills, starts = 0, 8
    for start in range(starts):
        ended = live(tmp_path, None if start == starts - 1 else rng.randrange(1, 12))
        kills += not ended
        store = open_registry(tmp_path / "fleet.db")
        verdict = audit(store, fleet.remembered(), fleet.keys(), again=10)
        wrong = wrong_in_log(store) + store.problems() if not store.erasures.under_way() else []
        store.close()
        assert verdict.diverged == [] and wrong == [], start
    assert kills >= starts - 3 and ended


def live(folder: Path, words: int | None) -> bool:
    """Let the centre live until it has said so many words, then kill it in whatever comes next; return whether it came to its end."""
    command = [sys.executable, "-m", "tests.simulator.killed", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for heard, _ in enumerate(process.stdout, 1):
            if heard == words:
                process.kill()
                break
        return process.wait() == 0
