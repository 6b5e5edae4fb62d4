"""The first hour, typed as its page stands."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker import free_port
from tests.house.pages import DOCS, ROOT, console_lines


@pytest.mark.slow("types a whole hour of commands", seconds=10)
@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed")
def test_the_first_hour_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    page = DOCS / "first-hour.md"
    lines = console_lines(page)
    lines = lines[lines.index("cd build/first-hour") + 1 : lines.index("cd ../..")]
    typed = "\n".join(lines).replace("../..", str(ROOT)).replace("1884", str(free_port()))
    typed = re.sub(r"^(edgeagent init .*)$", r"\1 > init.out", typed, flags=re.M)
    typed = typed.replace("FINGERPRINT", "$(grep -oPm1 'fingerprint +\\K[-0-9a-f]+' init.out)")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with open(tmp_path / "said", "w+") as said:
        # A session of its own: whatever the hour leaves behind when it fails goes with it.
        shell = subprocess.Popen(
            ["bash", "-e", "-c", typed], cwd=tmp_path, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=500)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        said.seek(0)
        text = said.read()
    assert code == 0, text
    assert "8 of 8 versions exact" in text
    first, second = re.findall(r"^([0-9a-f]{64})  \S+\.tflite$", text, re.M)
    assert first == second  # what the centre rebuilt and what the device served
    run_python_examples(page, tmp_path)
    run_python_examples(ROOT / "README.md", tmp_path)


def run_python_examples(page: Path, folder: Path) -> None:
    """Run a page's Python blocks beside a registry fleet.db and a device's folder pi-7, as one program."""
    blocks = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
    program = "import numpy\nimage = numpy.zeros(64)\n" + blocks.replace("/home/pi/agent", "pi-7")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
