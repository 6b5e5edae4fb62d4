"""Memory that is not used goes back, and nothing that is used is lost with it."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgecommon import memory

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


@pytest.mark.skipif(sys.platform != "linux", reason="it asks Linux")
def test_memory_at_the_addresses_of_an_emulator_is_let_alone(tmp_path: Path) -> None:
    """An emulator shows the program that it runs that one's mappings in `maps` and its own in `smaps`, a page further on."""
    maps, smaps = (Path("/proc/self", name).read_bytes() for name in ("maps", "smaps"))
    (tmp_path / "maps").write_bytes(maps)
    (tmp_path / "smaps").write_bytes(smaps)
    assert len(memory._clean(str(tmp_path))) > 2
    (tmp_path / "smaps").write_bytes(re.sub(rb"(?m)^([0-9a-f]+)-([0-9a-f]+) ", _further, smaps))
    assert memory._clean(str(tmp_path)) == []


def _further(place: re.Match[bytes]) -> bytes:
    return b"%08x-%08x " % tuple(int(address, 16) + mmap.PAGESIZE for address in place.groups())
