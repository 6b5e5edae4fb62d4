"""How much memory the agent takes on this machine, of real processes: idle after rounds, in mode features, and all processes together.

    python -m tests.evidence.flash.lean

A digits board trains whole rounds through the runtime; a camera's board (MobileNetV2-0.35 at 96 x 96) learns in mode features. Both talk to
a broker and an ingester of their own. RSS as the kernel says it, each process in full: pages that two share count twice. The names of the
figures say which processor it is; a board's are measured where one is booted.
"""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeagent.board.sensors import Sensors
from tests import broker
from tests.edgeagent.heads import grafted
from tests.evidence.parts import Figures, alone
from tests.system.fleet import Fleet, Process
from tests.worlds import MODELS, world

ROUNDS, SAMPLES = 4, 320
LIMIT = 600.0  # seconds; a safety limit
SETTLED = 4.0  # seconds after a round in which what it took has gone back; it takes 2
LOOK = 0.01  # seconds between two looks at all processes
MIB = 1 << 20
COMMON = {
    "train.epochs": "5", "train.margin": "1000", "link.resend": "1s", "train.min_new_samples": "8", "train.every": "30d",
}  # fmt: skip


class Watched:
    """What was seen of an agent and the processes that work for it."""

    def __init__(self, device: Process) -> None:
        self.device, self.sensors, self.together = device, Sensors(), 0

    def until(self, line: str) -> None:
        """Look at the memory again and again until the log says so."""
        end = time.monotonic() + LIMIT
        while line not in self.device.log.read_text():
            assert self.device.running and time.monotonic() < end, self.device.tail()
            for _ in range(20):
                self.together = max(self.together, self.sensors.together(self.device.pid))
                time.sleep(LOOK)

    def idle(self) -> int:
        """Return the most bytes that the agent holds while it has nothing to do; no process works for it then."""
        held = []
        time.sleep(SETTLED)
        for _ in range(30):
            time.sleep(0.1)
            held.append(self.sensors.resident(self.device.pid))
        assert not self.sensors.children(self.device.pid), "a process is left"
        return max(held)


def measure(full: bool) -> Figures:
    """Return the figures. full changes nothing: they are at their size at once."""
    if broker.program() is None:
        print(broker.MISSING)
        return {}
    with tempfile.TemporaryDirectory() as name, broker.mosquitto(Path(name)) as hub:
        digits = _digits(Path(name) / "digits", hub.url)
        camera = _camera(Path(name) / "camera", hub.url)
    figures = {
        "rss_idle_mib": max(digits[0], camera[0]), "rss_features_mib": camera[1], "rss_all_mib": max(digits[2], camera[2]),
        "rss_all_digits_mib": digits[2], "rss_all_features_mib": camera[2],
    }  # fmt: skip
    return {f"{key}_{platform.machine()}": round(value / MIB, 1) for key, value in figures.items()}


def _digits(folder: Path, url: str) -> tuple[int, int, int]:
    x, y = world("digits", 1).stream(1, SAMPLES)
    folder.mkdir()
    return _run(folder, url, "digits", MODELS / "digits.tflite", x, y, {"train.mode": "all"})


def _camera(folder: Path, url: str) -> tuple[int, int, int]:
    folder.mkdir()
    base = folder / "cam.tflite"
    base.write_bytes(grafted("mobilenet", optimizer="adam"))
    rng = np.random.default_rng(0)
    y = np.arange(SAMPLES) % 4
    x = rng.random((SAMPLES, 96, 96, 3), np.float32) * (1 + y[:, None, None, None]).astype(np.float32)
    return _run(folder, url, "cam", base, x, y, {"train.mode": "features", "train.learning_rate": "0.001"})


def _run(folder: Path, url: str, model: str, base: Path, x: np.ndarray, y: np.ndarray, how: dict[str, str]) -> tuple[int, int, int]:
    """Return bytes: of the agent idle after its rounds, of the agent at its most, of all processes at their most."""
    fleet = Fleet(folder / "fleet", url)
    try:
        fleet.add_base(model, base)
        fleet.ingester.start()
        device = fleet.add_device("pi-7", {model: base}, {**COMMON, **how})
        device.start()
        watched = Watched(device)
        each = len(x) // ROUNDS
        for number in range(1, ROUNDS + 1):
            with fleet.spool("pi-7") as spool:
                spool.extend(model, x[(number - 1) * each : number * each], y[(number - 1) * each : number * each].tolist())
            watched.until(f"verified: @{number}")
        idle, peak = watched.idle(), watched.sensors.peak(device.pid)
        assert device.stop() == 0, device.tail()
        proof = fleet.cloud("verify", "--all")
        assert proof["wrong"] == [] and proof["exact"] >= ROUNDS
        return idle, peak, watched.together
    finally:
        fleet.close()


if __name__ == "__main__":
    alone("flash", "lean", measure)
