"""A simulated fleet: how long it takes here, that all of its versions are exact, what memory it takes, and what a device sends.

    python -m tests.evidence.deploy.simulate          300 devices for 2 days; FULL=1: the promise, 10,000 for 7
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from tests.evidence.parts import Figures, alone

SMALL, PROMISED = (300, 2), (10_000, 7)  # devices, days
LINK, SEED = "lte", 1


def measure(full: bool) -> Figures:
    """Return the figures. full: the size of the promise. It is a process of its own: its peak of memory is nobody else's."""
    devices, days = PROMISED if full else SMALL
    with tempfile.TemporaryDirectory() as out:
        line = [sys.executable, "-m", "tests.simulator.fleet", "--json", "--no-charts", "--no-paper", "--out", out]
        line += ["--devices", str(devices), "--days", str(days), "--link", LINK, "--seed", str(SEED)]
        ran = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if not ran.stdout:
        raise RuntimeError(f"the simulation ended with {ran.returncode} and said nothing")
    said = json.loads(ran.stdout)
    verify = said["verify_all"]
    return {
        "simulate_devices": devices, "simulate_days": days, "simulate_minutes": said["minutes"], "simulate_versions": said["versions"],
        "simulate_wrong": said["wrong"] + len(verify["wrong"]) + len(verify["tampered"]), "simulate_verified": verify["exact"],
        "simulate_peak_mib": round(said["peak_mib"]), "simulate_cpu_ms_a_version": round(said["cpu_ms_a_version"], 2),
        "simulate_bytes_up_a_device_a_day": round(sum(said["bytes_up_a_device_a_day"].values())),
        "simulate_stored_bytes_a_version": round(said["stored_bytes_a_version"]), "simulate_digest": said["digest"],
    }  # fmt: skip


if __name__ == "__main__":
    alone("deploy", "simulate", measure)
