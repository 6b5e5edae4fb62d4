"""A day's bytes to the disk, counted by the disk itself, stay within what is promised; and what the agent counts is what it was written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelwire.tflite.notes import notes_of
from modelwire.update.manifest import manifest_of
from tests.wear import loop
from tests.wear.day import measured
from tests.wear.net import LAST, wide_net

LACKING = loop.lacking()
needs_disk = pytest.mark.skipif(bool(LACKING), reason=LACKING or "it has one")
PROMISED = 20e6  # bytes: issue 18, Show 6

COUNTS = """
import os
from tests.wear.loop import mounted
with mounted() as disk:
    disk.flush()
    before = disk.written()
    (disk.path / "file").write_bytes(os.urandom(10_000_000))
    kept = disk.written() - before
    disk.flush()
    print(kept, disk.written() - before)
"""


@needs_disk
def test_the_disk_counts_what_reaches_it_and_not_what_lies_in_the_cache() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTS], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    kept, flushed = map(int, done.stdout.split())
    assert kept < 1_000_000 and 10_000_000 <= flushed <= 10_500_000
    assert "edgeagent" not in Path("/proc/self/mounts").read_text()


def test_the_wide_net_is_one_of_three_and_a_half_million_weights_with_large_last_layers() -> None:
    file = wide_net()
    (mode,) = notes_of(file).modes
    assert mode.name == LAST and 13.5e6 < len(file) < 14.5e6 and manifest_of(file).schema.size == 1_999_400


@needs_disk
@pytest.mark.slow("lives through a day of a board, with real rounds", seconds=15)
def test_a_day_of_the_digits_head_writes_less_than_promised() -> None:
    said = measured("digits")
    assert said["versions"] >= 4 and set(said["states"]) == {"verified"}
    assert said["bytes"][0] <= PROMISED
    counted = sum(said["parts"].values())
    assert 0.3 * said["bytes"][0] <= counted <= 1.1 * said["bytes"][0], "the agent counts its pages; the rest is the file system's own"
