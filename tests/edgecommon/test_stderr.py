"""TFLite's own chatter is left out of standard error, and nothing else is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from edgecommon.runtime import load
from edgecommon.stderr import without_chatter
from modelwire.errors import RuntimeUnusable

CHATTER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nWARNING: Attempting to use a delegate\nVERBOSE: Replacing 3 out of 4\n"
WORDS = b"ERROR: tensor 7 has no buffer\n12:00:01 INFO    connected\nF0000 a check failed\nan INFO: in the middle\nno line end"
TINY = Path(__file__).parents[1] / "models" / "tiny.tflite"


def test_chatter_is_left_out_and_every_other_line_comes_through_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with without_chatter():
        os.write(2, CHATTER + WORDS)
    os.write(2, b"\nafter\n")
    assert capfd.readouterr().err.encode() == b"before\n" + WORDS + b"\nafter\n"


def test_all_of_it_comes_through_when_the_block_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no model"), without_chatter():
        os.write(2, CHATTER)
        raise ValueError("no model")
    assert capfd.readouterr().err.encode() == CHATTER


def test_threads_give_standard_error_back_one_after_the_other(capfd: pytest.CaptureFixture[str]) -> None:
    def speak(n: int) -> None:
        for _ in range(20):
            with without_chatter():
                os.write(2, b"INFO: chatter\n%d\n" % n)

    threads = [threading.Thread(target=speak, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    said = capfd.readouterr().err
    assert sorted(said.split()) == sorted(str(n) for n in range(4) for _ in range(20)) and "INFO" not in said


def test_without_files_in_memory_nothing_is_lost(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with without_chatter():
        os.write(2, CHATTER)
    assert capfd.readouterr().err.encode() == CHATTER


def test_a_model_opens_without_a_word_of_the_runtime(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        runtime = load()
    except RuntimeUnusable as e:
        pytest.skip(f"no TFLite runtime in this environment: {e}")
    runtime.open(TINY.read_bytes()).close()
    assert capfd.readouterr().err == ""
