"""Memory that is not used goes back, and nothing that is used is lost with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CODE = """
import hashlib, json, os, sqlite3
import numpy as np
from edgecommon.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def work():
    rng = np.random.default_rng(7)
    a = rng.standard_normal((60, 60))
    rows = sqlite3.connect(":memory:").execute("SELECT sqlite_version(), abs(-3)").fetchall()
    return hashlib.sha256((a @ a).tobytes() + repr(rows).encode()).hexdigest()

before = work()
full = resident()
give_back(code=True)
lean = resident()
print(json.dumps({"same": work() == before, "full": full, "lean": lean}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux")
def test_code_that_a_start_needed_goes_back_and_comes_again_when_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)
    said = json.loads(done.stdout)
    assert said["same"]
    assert said["lean"] < said["full"] - (4 << 20), said
