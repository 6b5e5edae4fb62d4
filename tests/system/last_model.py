"""A board loses its disk, is set up anew with a new key, and gets its last models back: real processes, all of them killed on the way."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelwire import limits
from tests.system.fleet import Fleet, Process, agent
from tests.worlds import MODELS, world

NAMES = ("digits", "motion")
SETTINGS = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2",
    "train.margin": "1000", "train.learning_rate": "0.2", "update.density": "1", "update.max_bytes": "8MiB", "store.history": "50",
}  # fmt: skip
BACK = "took its last model back"  # says the note of the version by which it goes on
END_SECONDS = 500.0  # a safety limit for a machine that hangs


@dataclass(frozen=True, slots=True)
class Return:
    """What came of it."""

    to_the_bit: bool  # the files that are served, and what the centre makes of them, are those from before
    exact: bool  # and every version at the centre is exact
    bytes: dict[str, int]  # of the update that led back, by model
    kills: int

    @property
    def in_parts(self) -> bool:
        """Whether every update was too large for a record."""
        return min(self.bytes.values()) > limits.DEFAULT.record


def bring_back(fleet: Fleet, *, seed: int = 1, exact: bool = False) -> Return:
    """Let pi-7 learn, lose its disk and its key, and get its models back while it and the centre are killed. The ingester runs."""
    for name in NAMES:
        fleet.add_base(name, exact=exact)
    files = {name: MODELS / f"{name}.tflite" for name in NAMES}
    first = fleet.add_device("pi-7", files, SETTINGS, exact=exact)
    _fill(fleet)
    fleet.agent("pi-7", "run", "--rounds", "3", "--timeout", f"{END_SECONDS:.0f}s")
    before = {name: _served(fleet, name) for name in NAMES}
    shutil.rmtree(fleet.home("pi-7"))
    agent_process = _set_up_anew(fleet, first, files, exact)
    _fill(fleet)  # a round would be due at once
    agent_process.start()
    _until(lambda: all(_wishes(fleet).values()))
    assert agent_process.said("round 1 on") == 0, "it waits"
    agent_process.kill()  # it would have it before the second question
    asked = {one["model"].partition("/")[2]: one for one in fleet.cloud("devices", "resume", "pi-7")["resumed"]}
    again = fleet.cloud("devices", "resume", "pi-7")["resumed"]
    assert [one["number"] for one in again] == [asked[name]["number"] for name in NAMES], "asked once"
    rng, end = random.Random(seed), time.monotonic() + END_SECONDS
    while not all(one["ok"] for one in _requests(fleet)):
        assert time.monotonic() < end, agent_process.tail()
        for process in rng.sample([agent_process, fleet.ingester], rng.randint(1, 2)):
            process.kill()
        for process in (agent_process, fleet.ingester):
            if not process.running:
                process.start()
        _until(lambda: agent_process.said("connected to") > 0 and fleet.ingester.said("listening on") > 0)
        time.sleep(rng.uniform(0.0, 0.1) * 1.5**agent_process.kills)  # longer and longer: a busy machine gets there, too
    agent_process.stop()
    assert all(m["resume"] is None and m["taking"] is None for m in fleet.agent("pi-7", "status")["models"])
    same = True
    for name in NAMES:
        out = fleet.folder / f"{name}.tflite"
        came = [v["version"] for v in fleet.cloud("log", f"pi-7/{name}")["versions"] if v["metrics"].get("note") == BACK]
        assert len(came) == 1, "once, and no more"
        fleet.cloud("materialise", f"pi-7/{name}@{came[0]}", "-o", str(out))
        kept = fleet.home("pi-7") / "state" / "models" / name / "history" / f"{came[0]}.tflite"  # it may have gone on from there since
        same = same and kept.read_bytes() == before[name] == out.read_bytes()
    proof = fleet.cloud("verify", "--all")
    whole = proof["wrong"] == [] and proof["exact"] == proof["checked"] > 0
    return Return(same, whole, {name: asked[name]["bytes"] for name in NAMES}, agent_process.kills + fleet.ingester.kills)


def _set_up_anew(fleet: Fleet, process: Process, files: dict[str, Path], exact: bool) -> Process:
    """Make the board's folder again, with another key, which the operator lets in by its fingerprint."""
    home = fleet.home("pi-7")
    arguments = ["init", "--device", "pi-7", "--fleet", "demo", "--broker", fleet.url, "--dir", str(home), "--resume"]
    arguments += ["--fleet-key", str(fleet.db.parent / "fleet.pub"), *(["--exact"] if exact else [])]
    for model, file in files.items():
        arguments += ["--model", f"{model}={file}"]
    for key, value in {**SETTINGS, "train.every": "365d"}.items():
        arguments += ["--set", f"{key}={value}"]
    made = agent(*arguments)
    fleet.cloud("devices", "add", "pi-7", made["public_key"], "--replace")
    return process


def _fill(fleet: Fleet) -> None:
    with fleet.spool("pi-7") as spool:
        for name in NAMES:
            x, y = world(name, 0).stream(0, 96)
            spool.extend(name, x, y.tolist())


def _served(fleet: Fleet, model: str) -> bytes:
    return (fleet.home("pi-7") / "state" / "models" / model / "served.tflite").read_bytes()


def _wishes(fleet: Fleet) -> dict[str, int | None]:
    return {m["model"]: m["would_resume"] for m in fleet.cloud("devices")["devices"][0]["models"]}


def _requests(fleet: Fleet) -> list[dict[str, object]]:
    return [one for model in fleet.cloud("show", "pi-7")["models"] for one in model["requests"]]


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + END_SECONDS
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.2)
