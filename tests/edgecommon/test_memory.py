"""Memory that is not used goes back, and nothing that is used is lost with it."""

from __future__ import annotations

import ctypes
import json
import mmap
import subprocess
import sys

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
@pytest.mark.parametrize("own", [True, False])
def test_memory_at_the_addresses_of_another_program_is_let_alone(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator shows the program that it runs its own mappings: what lies at those addresses in the program is something else."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.write(b"needed")
    begin = ctypes.addressof(ctypes.c_char.from_buffer(page))
    here = ctypes.cast(ctypes.CDLL(None).madvise, ctypes.c_void_p).value
    assert here
    told = [(begin, begin + mmap.PAGESIZE, True), *([(here, here + 1, False)] if own else [])]
    monkeypatch.setattr(memory, "_mappings", lambda: iter(told))
    memory.give_back(code=True)
    assert page[:6] == (bytes(6) if own else b"needed")
