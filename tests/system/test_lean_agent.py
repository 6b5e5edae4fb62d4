"""How much memory an agent in mode features takes, measured of real processes, over what the bare runtime takes with the same model."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeagent.board.sensors import Sensors
from edgecommon.runtime import load
from modelwire.errors import RuntimeUnusable
from modelwire.update.manifest import manifest_of
from tests import broker
from tests.edgeagent.heads import grafted
from tests.system.fleet import Fleet, Process, one_thread

pytestmark = [
    pytest.mark.slow("starts a fleet of processes and measures their memory", seconds=10),
    pytest.mark.skipif(broker.program() is None, reason=broker.MISSING),
]

try:
    RUNTIME = load().interpreter.__name__
except RuntimeUnusable:
    pytest.skip("no TFLite runtime is installed", allow_module_level=True)

AGENT = 6.0  # MiB over the bare runtime that the agent may take, at its most
IDLE = 52.0  # MiB that it holds between rounds: 48 are promised, and `python -m tests.evidence.flash.lean` measures them
COMPUTING = 13.0  # and the process that computes features, while there are new samples
SAMPLES, ROUNDS = 320, 5

# numpy and the runtime imported, the model opened from its file, its tensors allocated, and one sample inferred: what any application
# that runs this model with this runtime holds.
BARE = """
import sys, numpy, importlib
interpreter = importlib.import_module(sys.argv[1]).Interpreter(model_path=sys.argv[2], num_threads=1)
interpreter.allocate_tensors()
interpreter.get_signature_runner("infer")(x=numpy.zeros((1, 96, 96, 3), numpy.float32))
"""
COMPUTE = "import sys; from edgeagent.features.extraction import main; main(sys.argv[1:])"
PEAK = "print([int(x.split()[1]) / 1024 for x in open('/proc/self/status') if x.startswith('VmHWM:')][0])"


def peak_of(code: str, *words: str) -> float:
    """Return the most MiB that a process of this code ever held; its last line says so."""
    command = [sys.executable, "-c", f"{code}\n{PEAK}", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread(os.environ), check=True, timeout=500)
    return float(done.stdout.splitlines()[-1])


def test_an_agent_whose_head_learns_takes_little_over_the_bare_runtime(tmp_path: Path) -> None:
    base = tmp_path / "cam.tflite"
    base.write_bytes(grafted("mobilenet", optimizer="adam"))
    bare = peak_of(BARE, RUNTIME, str(base))
    settings = {
        "train.mode": "features", "train.epochs": "5", "train.learning_rate": "0.001", "train.margin": "1000", "link.resend": "1s",
        "train.min_new_samples": "0", "train.every": "0s",
    }  # fmt: skip
    with broker.mosquitto(tmp_path) as hub:
        fleet = Fleet(tmp_path / "fleet", hub.url)
        try:
            fleet.add_base("cam", base)
            fleet.ingester.start()
            device = fleet.add_device("pi-7", {"cam": base}, settings)
            rng = np.random.default_rng(0)
            with fleet.spool("pi-7") as spool:
                for at in range(0, SAMPLES, 32):
                    y = np.arange(at, at + 32) % 4
                    spool.extend("cam", rng.random((32, 96, 96, 3), np.float32) * (1 + y[:, None, None, None]), y.tolist())
            state = fleet.home("pi-7") / "state"
            commit = manifest_of(base.read_bytes()).commit.hex()
            computing = peak_of(COMPUTE, str(state), "cam", commit, str(base), str(SAMPLES), "1")
            device.start()
            agent = watched(device, f"verified: @{ROUNDS}")
            assert not [line for line in Path(f"/proc/{device.pid}/maps").read_text().splitlines() if "litert" in line or "tflite" in line]
            end = time.monotonic() + 60
            while (idle := resident(device)) > IDLE and time.monotonic() < end:
                time.sleep(0.2)
            assert device.stop() == 0, device.tail()
            proof = fleet.cloud("verify", "--all")
            assert proof["wrong"] == [] and proof["exact"] >= ROUNDS
        finally:
            fleet.close()
    print(f"\nbare runtime {bare:.1f} MiB; agent {agent:.1f}, idle {idle:.1f}; process that computes features {computing:.1f}")
    assert agent - bare <= AGENT
    assert idle <= IDLE
    assert computing - bare <= COMPUTING


def watched(device: Process, line: str) -> float:
    """Return the most MiB that the process has held when its log says so."""
    end = time.monotonic() + 500
    while line not in device.log.read_text():
        assert device.running and time.monotonic() < end, device.tail()
        time.sleep(0.2)
    status = Path(f"/proc/{device.pid}/status").read_text()
    return next(int(said.split()[1]) / 1024 for said in status.splitlines() if said.startswith("VmHWM:"))


def resident(device: Process) -> float:
    return Sensors().resident(device.pid) / 2**20
