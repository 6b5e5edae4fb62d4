"""kill -9 at random moments of a device that does everything at once: nothing is lost, nothing is left over, counts are right."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeagent.service.goal import Goal
from modelwire.wire.records import Level
from tests.edgeagent.boards import centre, fill, make_with, rig
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.invariants import check_invariants

KILLS = 12
ROUNDS = 12  # the most that the device says are done between two kills: the machine may be a busy one, so its clock tells nothing
PART = 0.05  # seconds that the round after them may go on, at most; it takes about as long
SETTINGS = {"update.coalesce_after": "3", "store.history": "4", "train.margin": "1000", "train.min_samples": "8"}


@pytest.mark.slow("starts and kills a device twelve times")
@pytest.mark.one_environment("what kill -9 leaves in files and SQLite; the model is a scripted one, and others train it in both")
@pytest.mark.parametrize("profile", ["ethernet", "lte-sleeping"])
def test_kills_at_random_moments_lose_nothing(tmp_path: Path, profile: str) -> None:
    folder = tmp_path / "d"
    make_with(folder, {**SETTINGS, "link.profile": profile})
    with rig(folder, centre(FakeClock())) as r:
        fill(r.device)
    rng = random.Random(20)
    done = 0
    for kill in range(KILLS):
        told = run_and_kill(folder, rng.randint(0, ROUNDS), rng.uniform(0, PART), seed=kill)
        with rig(folder, centre(FakeClock())) as r:
            rounds = r.lineage.head().rounds
            last = told[-1] if told else done
            assert last <= rounds <= last + 1, "at most the round whose line was not read yet more"
            assert rounds == r.device.database.one("SELECT count(DISTINCT round) FROM version WHERE round>0")[0]
            done = rounds
            check_invariants(r)
            undecided = "SELECT count(*) FROM version LEFT JOIN plan p USING (model, version) WHERE p.version IS NULL"
            trained = "version IS NOT NULL AND loss_after IS NOT NULL"
            assert r.device.database.number(f"{undecided} AND {trained}") == 0, "each version has its decision"
            assert r.device.database.number("SELECT count(*) FROM plan WHERE version NOT IN (SELECT version FROM version)") == 0
            check_files(folder / "state" / "models" / "tiny", r.lineage.head().slot)
            r.device.database.check()
            held = {w.version for w in r.lineage.outbox.waiting()}
            live = {v for v, s in r.states().items() if s in ("queued", "offered", "stored")}
            assert held == live, "the bytes of what may still be sent are there, and no others"
    assert done > KILLS, "the device was killed in its work, not before it"
    c = centre(FakeClock())
    with rig(folder, c) as r:
        r.run(Goal(rounds=done + 2, timeout=6000))
        newest = max(c.held("pi-7", "tiny").items())[1]
        assert newest.level is Level.VERIFIED and newest.state is not None
        assert newest.state.root == r.lineage.load().state.root, "a centre that knew nothing holds the very model that is served"


def check_files(model: Path, slot: str) -> None:
    """Nothing lies about but what belongs there."""
    found = {str(p.relative_to(model)) for p in model.rglob("*") if not p.is_dir()}
    history = {name for name in found if name.startswith("history/")}
    assert found - history - {"round", "sent"} == {"base.tflite", "served.tflite", f"{slot}/model.tflite", f"{slot}/private"}
    assert len(history) <= 4


def run_and_kill(folder: Path, rounds: int, seconds: float, *, seed: int) -> list[int]:
    """Run the device for so many rounds and so long after them, kill it, and return the rounds that it said were done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.edgeagent.kill_loop", str(folder), str(seed)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    started = process.stdout.readline()
    assert started == "started\n", process.stderr.read()
    lines = [process.stdout.readline() for _ in range(rounds)]
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or []))
    reader.start()
    time.sleep(seconds)
    assert process.poll() is None, process.stderr.read()
    process.kill()
    process.wait()
    reader.join()
    return [int(line) for line in lines if line.endswith("\n")]
