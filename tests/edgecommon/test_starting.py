"""Ctrl-C while a command still loads ends it at once, with 130, and says nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgecommon.starting import INTERRUPTED, quietly

MOMENTS = 20
# As pip's script of the command does it; the line tells that Python itself has started, and has found the program.
SCRIPT = "import sys; from {program}.cli import main; print('here', flush=True); sys.exit(main())"


def start(program: str, words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(program=program), *words], cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"here\n"
    return process


@pytest.mark.slow("starts the command twenty times", seconds=12)
@pytest.mark.parametrize(("program", "words"), [("edgeagent", ["samples", "list"]), ("edgecloud", ["devices"])])
def test_ctrl_c_at_any_moment_of_the_start_is_quiet(program: str, words: list[str], tmp_path: Path) -> None:
    begun = time.monotonic()
    _, usual = start(program, words, tmp_path).communicate(timeout=120)
    whole = time.monotonic() - begun
    assert b"is not there" in usual
    rng, ended = random.Random(7), set()
    for _ in range(MOMENTS):
        process = start(program, words, tmp_path)
        time.sleep(rng.uniform(0.0, whole))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        assert b"Traceback" not in said and b"KeyboardInterrupt" not in said, said
        if said == usual and process.returncode != INTERRUPTED:  # it had ended, and Python had begun to put itself away
            assert process.returncode in (12, -signal.SIGINT)
        else:  # also in the middle of saying what is wrong
            told = said.removesuffix(b"edgeagent: stopped by the keyboard\n")
            assert process.returncode == INTERRUPTED and usual.startswith(told), said
        ended.add(process.returncode)
    assert INTERRUPTED in ended


def test_a_program_that_takes_ctrl_c_itself_keeps_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with quietly():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with quietly():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
