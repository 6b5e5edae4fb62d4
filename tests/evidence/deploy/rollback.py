"""A board that has trained for real goes back to each of its versions over a real broker: the very root and file, and in how many bytes."""

from __future__ import annotations

import hashlib
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests import broker
from tests.evidence.parts import Figures, alone
from tests.system.fleet import Fleet
from tests.worlds import world

MODEL = "digits"
SETTINGS = {
    "link.resend": "1s", "link.resend_max": "2s", "link.reconnect_min": "100ms", "link.reconnect_max": "1s", "train.epochs": "1",
    "train.margin": "1000", "train.learning_rate": "0.05", "train.every": "365d", "train.min_new_samples": "0", "store.history": "2",
}  # fmt: skip
SAMPLES = 96
VERSIONS, VERSIONS_FULL = 6, 50
SECONDS = "300s"  # a safety limit of each wait


def measure(full: bool) -> Figures:
    """Return how many rollbacks led to the very root and file of their version, and what they cost against the file."""
    with tempfile.TemporaryDirectory() as name, broker.mosquitto(Path(name)) as hub:
        fleet = Fleet(Path(name) / "fleet", hub.url, inside=True)
        try:
            return _measure(fleet, VERSIONS_FULL if full else VERSIONS)
        finally:
            fleet.close()


def _measure(fleet: Fleet, count: int) -> Figures:
    fleet.add_base(MODEL)
    process = fleet.add_device("pi-7", {MODEL: fleet_model()}, SETTINGS)
    x, y = world(MODEL, 0).stream(0, SAMPLES)
    with fleet.spool("pi-7") as spool:
        spool.extend(MODEL, x, y.tolist())
    fleet.ingester.start()
    fleet.agent("pi-7", "run", "--rounds", str(count), "--timeout", SECONDS)
    process.start()
    trained = [one for one in versions(fleet) if one["status"] != "refused"]
    exact, told = 0, list[dict[str, Any]]()
    # One after the other in the order of training would be as many single steps: from anywhere to anywhere is what an operator does.
    for done, one in enumerate(random.Random(1).sample(trained, len(trained))):
        said = fleet.cloud("rollback", f"pi-7@{one['version']}", "--wait", SECONDS)
        told += [] if said["already"] else [said]
        exact += came_back(fleet, one, said)
        print(f"rollback: {done + 1} of {len(trained)}", file=sys.stderr)
    process.stop()
    proof = fleet.cloud("verify", "--all")
    whole = proof["wrong"] == [] and proof["exact"] == proof["checked"] > 0
    shares = [100 * said["bytes"] / said["file_bytes"] for said in told]
    return {
        "rollbacks": len(trained), "rollbacks_exact": exact if whole else 0, "rollback_bytes_of_the_file_percent": round(max(shares), 1),
        "rollback_bytes_of_the_file_percent_median": round(statistics.median(shares), 1),
        "rollback_bytes_most": max(said["bytes"] for said in told), "rollback_file_bytes": told[0]["file_bytes"],
    }  # fmt: skip


def fleet_model() -> Path:
    """Return the file of the base."""
    return Path(__file__).parents[2] / "models" / f"{MODEL}.tflite"


def versions(fleet: Fleet) -> list[dict[str, Any]]:
    """Return what the centre lists of the board."""
    listed: list[dict[str, Any]] = fleet.cloud("log", "pi-7")["versions"]
    return listed


def came_back(fleet: Fleet, one: dict[str, Any], said: dict[str, Any]) -> bool:
    """Whether the new version has the root of the old one, and the board serves the file that the centre makes of the old one."""
    old, new = (fleet.cloud("show", f"pi-7@{number}")["root"] for number in (one["version"], said["version"]))
    out = fleet.folder / "out.tflite"
    out.unlink(missing_ok=True)
    fleet.cloud("materialise", f"pi-7@{one['version']}", "-o", str(out))
    served = fleet.home("pi-7") / "state" / "models" / MODEL / "served.tflite"
    same = hashlib.sha256(served.read_bytes()).digest() == hashlib.sha256(out.read_bytes()).digest()
    return bool(old == new == said["root"] and same)


if __name__ == "__main__":
    alone("deploy", "rollback", measure)
