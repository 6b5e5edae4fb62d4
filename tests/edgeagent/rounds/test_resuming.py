"""A round that was interrupted goes on where it stood, and comes to the same bits as one that was not."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeagent.board.budget import Cost
from edgeagent.board.sensors import Sensors
from edgeagent.commands.train import finish
from edgeagent.rounds import in_memory, journal, resuming
from edgeagent.rounds import round as rounds
from edgeagent.samples.spool import Spool
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from edgeagent.training.batches import Trainable
from edgecloud.graft.grafting import Wish, graft
from edgecommon import runtime
from modelwire.errors import NoModeFits, RuntimeUnusable
from modelwire.tflite import file as tflite_file
from tests.edgeagent.boards import Rig, centre, make_with, rig, standing
from tests.edgeagent.centre import FakeClock
from tests.edgeagent.opened.processes import gone

try:
    RUNTIME = runtime.load()
except RuntimeUnusable as e:
    pytest.skip(f"no TFLite runtime in this environment: {e}", allow_module_level=True)

pytestmark = pytest.mark.slow("trains real nets, each of them twice")
ROOT = Path(__file__).parents[3]
SETTINGS = {"train.margin": "1000", "train.learning_rate": "0.01", "train.epochs": "3", "update.density": "1"}
OPTIMIZERS = ("sgd", "momentum", "adam")


def open_model(file: bytes, name: str) -> Trainable:
    return RUNTIME.open(file, model=name, signature="")


@functools.cache
def grafted(stock: str, optimizer: str, train: str = "all", modes: tuple[str, ...] = (), batch: int = 4) -> bytes:
    file = (ROOT / "tests" / "models" / "stock" / f"{stock}.tflite").read_bytes()
    return graft(file, Wish(train=(train,), modes=modes, optimizer=optimizer, batch=batch)).file


def prepare(folder: Path, file: bytes, *, samples: int = 40, settings: dict[str, str] | None = None) -> None:
    """Make a device that was welcomed and has samples, the same ones each time."""
    make_with(folder, {**SETTINGS, **(settings or {})}, models={"m": file})
    contract = tflite_file.contract(file)
    rng = np.random.default_rng(5)
    with rig(folder, centre(FakeClock(), file=file), open_model) as r:
        r.run(Goal(publish=True, timeout=60))
        x = rng.standard_normal((samples, *contract.x_shape), np.float32)
        if len(contract.y_shape) == 1:
            r.device.spool.extend("m", x, rng.integers(contract.classes, size=samples))
        else:
            r.device.spool.extend("m", x, targets=rng.standard_normal((samples, *contract.y_shape), np.float32))


def round_of(r: Rig) -> rounds.Round:
    return rounds.run(standing(r.device, open_model, "m"))


def take(steps: rounds.Round, count: int) -> rounds.Progress:
    for _ in range(count):
        at = next(steps)
    return at


def root_after(folder: Path, file: bytes, interrupt: Callable[[Rig], None] | None = None) -> bytes:
    """Return the root of the version that a round comes to. interrupt: what happens to rounds before it."""
    with rig(folder, centre(FakeClock(), file=file), open_model) as r:
        if interrupt is not None:
            interrupt(r)
        report = finish(round_of(r))
        assert report.accepted and report.version == 1, report.reason
        assert not r.lineage.journal.exists()
        return r.lineage.load().state.root


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stock", ["dense", "har"])
def test_a_round_interrupted_after_any_step_comes_to_the_same_bits(tmp_path: Path, stock: str, optimizer: str) -> None:
    file = grafted(stock, optimizer)
    prepare(tmp_path / "whole", file)
    prepare(tmp_path / "parts", file)

    def interrupt(r: Rig) -> None:
        done = 0
        for more in (1, 5, 2, 8):  # past the end of an epoch, too
            steps = round_of(r)
            done = take(steps, more).done
            steps.close()
        assert done == 16
        found = journal.read(r.lineage.journal)
        assert found is not None and found.done == 16 and found.facts.whole
        assert r.lineage.head().rounds == 0 and r.lineage.head().version == 0

    assert root_after(tmp_path / "parts", file, interrupt) == root_after(tmp_path / "whole", file)


def test_each_mode_of_a_file_is_taken_up_as_it_was(tmp_path: Path) -> None:
    file = grafted("har", "adam", "all", ("head",))
    for mode in ("head", "all"):
        settings = {"train.mode": mode}
        prepare(tmp_path / mode / "whole", file, settings=settings)
        prepare(tmp_path / mode / "parts", file, settings=settings)

        def interrupt(r: Rig, mode: str = mode) -> None:
            steps = round_of(r)
            assert take(steps, 9).mode == mode
            steps.close()

        assert root_after(tmp_path / mode / "parts", file, interrupt) == root_after(tmp_path / mode / "whole", file)


def test_new_samples_wait_for_the_next_round_and_forgotten_ones_let_it_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = grafted("dense", "sgd")
    prepare(tmp_path / "d", file)
    with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
        steps = round_of(r)
        take(steps, 5)
        steps.close()
        x = np.zeros((1, *tflite_file.contract(file).x_shape), np.float32)
        r.device.spool.extend("m", x, [0])
        steps = round_of(r)
        assert next(steps).done == 6
        steps.close()
        r.device.spool.drop("m", [3])
        with caplog.at_level("INFO", "edgeagent"):
            steps = round_of(r)
            assert next(steps).done == 1
            steps.close()
        assert "begins anew after 6 steps: samples that it used are gone" in caplog.text


def test_samples_that_the_reservoir_spares_stay_until_the_round_under_way_is_over(tmp_path: Path) -> None:
    file = grafted("dense", "adam")
    settings = {"spool.max_samples": "40"}
    prepare(tmp_path / "whole", file, settings=settings)
    prepare(tmp_path / "parts", file, settings=settings)

    def interrupt(r: Rig) -> None:
        steps = round_of(r)
        take(steps, 5)
        steps.close()
        with Spool(r.device.database.path.parent) as application:  # another process, and a full spool
            rng = np.random.default_rng(9)
            x = rng.standard_normal((60, *r.device.spool.shape("m").x), np.float32)
            application.extend("m", x, rng.integers(3, size=60))
            assert application.count("m") == 40
            assert sum(len(side) for side in application.split("m", 0.2, until=40)) == 40, "all that it trains on are there"
            assert sum(application.sides("m", 0.2)) == 40 and application.last_id("m") == 100

    assert root_after(tmp_path / "parts", file, interrupt) == root_after(tmp_path / "whole", file)
    with rig(tmp_path / "parts", centre(FakeClock(), file=file), open_model) as r:
        assert r.device.spool.database.one("SELECT count(*) FROM sample")[0] == 40, "the round is over"


@pytest.mark.parametrize("end", ["its settings change", "it can't begin", "a kill before its first step"])
def test_nothing_is_held_for_a_round_that_is_given_up(tmp_path: Path, end: str) -> None:
    file = grafted("dense", "sgd")
    prepare(tmp_path / "d", file)
    path = tmp_path / "d" / reading.FILE
    flags = {"train.epochs": "9"} if end == "its settings change" else {}

    def full(spool: Spool) -> int:
        x = np.zeros((40, *spool.shape("m").x), np.float32)
        spool.register("m", (), (), max_samples=40, max_bytes=1 << 30)
        spool.extend("m", x, np.zeros(40, np.int64))
        return int(spool.database.one("SELECT count(*) FROM sample")[0])

    with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
        if end == "its settings change":
            steps = round_of(r)
            take(steps, 3)
            steps.close()
            assert full(r.device.spool) > 40
        elif end == "a kill before its first step":
            r.device.spool.hold("m")
            assert full(r.device.spool) > 40
    with open_folder(reading.load(path, environment={}, flags=flags), alone=True) as opened:
        again = Rig(opened, centre(FakeClock(), file=file), open_model)
        if end == "its settings change":
            resuming.interrupted(again.agent.standing(again.lineage))
        elif end == "it can't begin":
            settings = opened.settings.model("m")
            wrong = replace(settings, train=replace(settings.train, mode="none"))
            steps = rounds.run(standing(opened, open_model, "m", settings=wrong))
            with pytest.raises(NoModeFits):
                next(steps)
        assert opened.spool.database.one("SELECT held FROM model")[0] == 0
        assert full(opened.spool) == 40


def test_another_setting_or_another_model_lets_a_round_begin_anew(tmp_path: Path) -> None:
    file = grafted("dense", "sgd")
    prepare(tmp_path / "d", file)
    path = tmp_path / "d" / reading.FILE
    for key, value, goes_on in (("train.margin", "7", True), ("train.epochs", "4", False), ("train.learning_rate", "0.02", False)):
        with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
            steps = round_of(r)
            before = take(steps, 3).done
            steps.close()
        with open_folder(reading.load(path, environment={}, flags={key: value}), alone=True) as opened:
            again = Rig(opened, centre(FakeClock(), file=file), open_model)
            steps = round_of(again)
            assert next(steps).done == (before + 1 if goes_on else 1), key
            steps.close()
    with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
        steps = round_of(r)
        take(steps, 3)
        steps.close()
        kept = r.lineage.journal.read_bytes()
        assert finish(round_of(r)).version == 1
        r.lineage.journal.write_bytes(kept)  # as if the kill had come between the round's end and the journal's
        steps = round_of(r)
        assert next(steps).done == 1
        steps.close()
        assert r.lineage.head().version == 1


def test_a_round_in_a_mode_that_is_too_large_by_now_is_not_taken_up(tmp_path: Path) -> None:
    file = grafted("har", "adam", "all", ("head",))
    prepare(tmp_path / "d", file, settings={"train.mode": "auto"})
    with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
        steps = round_of(r)
        assert take(steps, 3).mode == "all"
        steps.close()
        key = r.lineage.head().runtime
        r.lineage.costs.note(key, "all", Cost(0.001, 1 << 40), 0)
        r.lineage.costs.note(key, "head", Cost(0.001, 1 << 10), 0)
    path = tmp_path / "d" / reading.FILE
    with open_folder(reading.load(path, environment={}, flags={"budget.max_ram": str(64 << 30)}), alone=True) as opened:
        steps = round_of(Rig(opened, centre(FakeClock(), file=file), open_model))
        assert (at := next(steps)).mode == "head" and at.done == 1
        steps.close()


def test_the_agent_takes_up_a_round_that_a_stop_interrupted(tmp_path: Path) -> None:
    file = grafted("har", "adam")
    settings = {"train.epochs": "60", "train.min_new_samples": "20"}
    for name in ("whole", "parts"):
        prepare(tmp_path / name, file, settings=settings)
    roots = []
    for name in ("whole", "parts"):
        with rig(tmp_path / name, centre(FakeClock(), file=file), open_model) as r:
            if name == "parts":
                steps = round_of(r)
                take(steps, 300)
                steps.close()
                stands = r.agent.standing(r.lineage)
                assert r.agent._due(Goal(), stands, resuming.interrupted(stands))
            r.run(Goal(rounds=1, timeout=600))
            roots.append(r.lineage.load().state.root)
    assert roots[0] == roots[1]


def run_and_kill(folder: Path, seconds: float, more: float, whom: str) -> tuple[int, float, bool]:
    """Train for so long after the first step, kill the agent or the process that runs its model.

    Return (the last step that was said, its seconds, whether all was done).

    seconds: of training, as the process counts them: on a busy machine it may have taken no step in as long by the clock.
    more: by the clock, so that the kill comes in the middle of a step, or of writing it down.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.edgeagent.resuming", str(folder)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "started\n", process.stderr.read()
    lines = [process.stdout.readline()]  # the model was opened, and a step taken
    first = lines[0].split()
    while lines[-1] and not lines[-1].startswith("done") and float(lines[-1].split()[1]) < float(first[1]) + seconds:
        lines.append(process.stdout.readline())
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or []))
    reader.start()
    time.sleep(more)
    models = Sensors().children(process.pid)
    if whom == "agent":
        process.kill()
    for model in models if whom == "model" else ():
        with contextlib.suppress(ProcessLookupError):  # the round was over
            os.kill(model, signal.SIGKILL)
    process.wait()
    reader.join()
    assert gone(*models), "a process that ran a model is left"
    if lines and lines[-1].startswith("done"):
        return 0, 0.0, True
    said = [line.split() for line in lines if line.endswith("\n")]
    return (int(said[-1][0]), float(said[-1][1]), False) if said else (0, 0.0, False)


@pytest.mark.parametrize("whom", ["agent", "model"])
@pytest.mark.parametrize(
    ("batch", "epochs", "samples"),
    [(256, "20", 640), (4, "300", 40)],  # steps longer and much shorter than the journal's 20 ms
    ids=["long steps", "short steps"],
)
def test_kill_9_at_random_moments_costs_a_step_at_most(tmp_path: Path, batch: int, epochs: str, samples: int, whom: str) -> None:
    killed(tmp_path, batch, epochs, samples, whom)


@pytest.mark.slow("trains in processes that are killed, in a folder on a disk", seconds=10)
def test_kill_9_costs_a_step_at_most_where_the_journal_stands_in_memory_beside_a_disk() -> None:
    """The temporary folders of these tests may lie in memory themselves, where a journal has one place alone."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        if in_memory.place_of(Path(folder) / "round") is None:
            pytest.skip("there is no tmpfs beside a disk here")
        killed(Path(folder), 256, "20", 640, "agent")


def killed(tmp_path: Path, batch: int, epochs: str, samples: int, whom: str) -> None:
    """Kill a process that trains, over and over; what it comes to is what one comes to that nobody kills."""
    file = grafted("har", "adam", batch=batch)
    settings = {"train.epochs": epochs, "train.learning_rate": "0.0001"}
    for name in ("whole", "parts"):
        prepare(tmp_path / name, file, samples=samples, settings=settings)
    expected = root_after(tmp_path / "whole", file)
    rng = random.Random(3)
    path = tmp_path / "parts" / "state" / "models" / "m" / "round"
    stood, took_up, done = 0, 0, False
    for _ in range(5):
        last, spent, done = run_and_kill(tmp_path / "parts", rng.uniform(0.0, 0.15), rng.uniform(0.0, 0.1), whom)
        if done:
            break
        found = journal.read(path)
        kept = found.done if found is not None else 0
        assert kept >= stood, "it never goes back behind a kill"
        took_up += stood > 0
        if last > kept + 1:
            assert found is not None
            lost = spent - _spent(found.path)
            assert lost <= journal.EVERY + 0.02, f"{last - kept} steps, {1000 * lost:.1f} ms of training"
        stood = kept
    assert took_up >= 3, "it was killed in the middle of the round, and went on"
    if not done:
        assert root_after(tmp_path / "parts", file) == expected
    else:
        with rig(tmp_path / "parts", centre(FakeClock(), file=file), open_model) as r:
            assert r.lineage.load().state.root == expected


def _spent(path: Path) -> float:
    with journal._reading(path) as f:
        _, half = journal._facts(f)
        return max(journal._halves(f, half))[2]


@pytest.mark.parametrize("goal", [Goal(rounds=1, timeout=600), Goal()], ids=["a number of rounds", "the service"])
def test_a_journal_is_read_once_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: Goal) -> None:
    file = grafted("dense", "sgd")
    prepare(tmp_path / "d", file, settings={"train.min_new_samples": "20"})
    reads = []

    def counted(path: Path) -> journal.Interrupted | None:
        reads.append(path)
        return read(path)

    read = journal.read
    with rig(tmp_path / "d", centre(FakeClock(), file=file), open_model) as r:
        steps = round_of(r)
        take(steps, 3)
        steps.close()
        monkeypatch.setattr(journal, "read", counted)
        r.centre.after(60, lambda: r.agent.stop("test"))
        r.run(goal)
        assert r.lineage.head().version == 1 and reads == [r.lineage.journal]
