"""A board loses its disk, is set up anew with a new key, and gets its last models back: real processes, all of them killed on the way."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwire import limits
from tests import broker
from tests.system.fleet import Fleet, Process, agent
from tests.worlds import MODELS, world

SETTINGS = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "2",
    "train.margin": "1000", "train.learning_rate": "0.2", "update.density": "1", "update.max_bytes": "8MiB", "store.history": "50",
}  # fmt: skip
BACK = "took its last model back"  # says the note of the version by which it goes on
END_SECONDS = 500.0  # a safety limit for a machine that hangs
Samples = Callable[[Fleet], None]  # puts samples into the spool of pi-7


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


def measure(folder: Path) -> Return:
    """Bring two models back over a broker of their own, each by an update that is too large for a record."""
    with broker.mosquitto(folder) as hub:
        fleet = Fleet(folder / "fleet", hub.url)
        try:
            fleet.ingester.start()
            return bring_back(fleet, {name: MODELS / f"{name}.tflite" for name in ("digits", "motion")}, views)
        finally:
            fleet.close()


def views(fleet: Fleet) -> None:
    """Let pi-7 see digits and motions."""
    with fleet.spool("pi-7") as spool:
        for name in ("digits", "motion"):
            x, y = world(name, 0).stream(0, 96)
            spool.extend(name, x, y.tolist())


def bring_back(
    fleet: Fleet, files: Mapping[str, Path], samples: Samples, *, seed: int = 1, exact: bool = False, settings: Mapping[str, str] = SETTINGS
) -> Return:
    """Let pi-7 learn, lose its disk and its key, and get its models back while it and the centre are killed. The ingester runs."""
    for name, file in files.items():
        fleet.add_base(name, file, exact=exact)
    process = fleet.add_device("pi-7", dict(files), dict(settings), exact=exact)
    samples(fleet)
    fleet.agent("pi-7", "run", "--rounds", "3", "--timeout", f"{END_SECONDS:.0f}s")
    before = {name: _served(fleet, name) for name in files}
    shutil.rmtree(fleet.home("pi-7"))
    _set_up_anew(fleet, files, {**settings, "train.every": "365d"}, exact)
    samples(fleet)  # a round would be due at once
    process.start()
    _until(lambda: all(_wishes(fleet).values()))
    assert process.said("round 1 on") == 0, "it waits"
    process.kill()  # it would have it before the second question
    asked = {one["model"].partition("/")[2]: one for one in fleet.cloud("devices", "resume", "pi-7")["resumed"]}
    again = {one["model"].partition("/")[2]: one for one in fleet.cloud("devices", "resume", "pi-7")["resumed"]}
    assert again == asked and asked.keys() == files.keys(), "asked once"
    _kill_until(lambda: all(one["ok"] for one in _requests(fleet)), process, fleet.ingester, random.Random(seed))
    _until(lambda: all(_back(fleet, name) for name in files))  # the answer may come before the version that it tells of
    process.stop()
    assert all(m["resume"] is None and m["taking"] is None for m in fleet.agent("pi-7", "status")["models"])
    same = all(_came_back(fleet, name) == file for name, file in before.items())
    proof = fleet.cloud("verify", "--all")
    whole = proof["wrong"] == [] and proof["exact"] == proof["checked"] > 0
    return Return(same, whole, {name: asked[name]["bytes"] for name in files}, process.kills + fleet.ingester.kills)


def _kill_until(reached: Callable[[], bool], device: Process, centre: Process, rng: random.Random) -> None:
    """Kill the two, one or both at a time, four times and then until it is reached."""
    end, times = time.monotonic() + END_SECONDS, 0
    while times < 4 or not reached():
        times += 1
        assert time.monotonic() < end, device.tail()
        for process in rng.sample([device, centre], rng.randint(1, 2)):
            process.kill()
        for process in (device, centre):
            if not process.running:
                process.start()
        _until(lambda: device.said("connected to") > 0 and centre.said("listening on") > 0)
        time.sleep(rng.uniform(0.0, 0.05) * 1.5**times)  # longer and longer: a busy machine gets there, too


def _back(fleet: Fleet, name: str) -> list[int]:
    """Return the versions by which a model came back, as far as the centre has them."""
    return [v["version"] for v in fleet.cloud("log", f"pi-7/{name}")["versions"] if v["metrics"].get("note") == BACK]


def _came_back(fleet: Fleet, name: str) -> bytes:
    """Return the file that the device served when it had its last model back, which is the one that the centre makes of that version."""
    out = fleet.folder / f"{name}.tflite"
    came = _back(fleet, name)
    assert len(came) == 1, "once, and no more"
    fleet.cloud("materialise", f"pi-7/{name}@{came[0]}", "-o", str(out))
    # It may have gone on from there since.
    kept = (fleet.home("pi-7") / "state" / "models" / name / "history" / f"{came[0]}.tflite").read_bytes()
    assert kept == out.read_bytes()
    return kept


def _set_up_anew(fleet: Fleet, files: Mapping[str, Path], settings: Mapping[str, str], exact: bool) -> None:
    """Make the board's folder again, with another key, which the operator lets in."""
    home = fleet.home("pi-7")
    arguments = ["init", "--device", "pi-7", "--fleet", "demo", "--broker", fleet.url, "--dir", str(home), "--resume"]
    arguments += ["--fleet-key", str(fleet.db.parent / "fleet.pub"), *(["--exact"] if exact else [])]
    for model, file in files.items():
        arguments += ["--model", f"{model}={file}"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]
    made = agent(*arguments)
    fleet.cloud("devices", "add", "pi-7", made["public_key"], "--replace")


def _served(fleet: Fleet, model: str) -> bytes:
    return (fleet.home("pi-7") / "state" / "models" / model / "served.tflite").read_bytes()


def _wishes(fleet: Fleet) -> dict[str, int | None]:
    return {m["model"]: m["would_resume"] for m in fleet.look_up("devices")["devices"][0]["models"]}


def _requests(fleet: Fleet) -> list[dict[str, object]]:
    return [one for model in fleet.look_up("show", "pi-7")["models"] for one in model["requests"]]


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + END_SECONDS
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
