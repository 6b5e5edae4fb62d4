"""The page of the broker, typed as it stands."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import broker
from tests.house.pages import DOCS, ROOT, console_lines

PAGE = DOCS / "broker.md"


@pytest.mark.slow("types a page of commands", seconds=10)
@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_the_page_of_the_broker_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    lines = console_lines(PAGE)
    lines = lines[lines.index("cd build/broker") + 1 : lines.index("cd ../..")]
    typed = "\n".join(lines).replace("../..", str(ROOT)).replace("8883", str(broker.free_port()))
    typed = re.sub(r"^(edgeagent init .*)$", r"\1 > init.out", typed, flags=re.M)
    typed = typed.replace("PUBLICKEY", "$(grep -oPm1 'public key +\\K\\S+' init.out)")
    if os.geteuid() == 0:  # mosquitto would change to a user that can't read this folder
        typed = typed.replace("mosquitto -c", "echo user root >> broker/mosquitto.conf\nmosquitto -c")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGECLOUD_", "EDGEAGENT_"))}
    with open(tmp_path / "said", "w+") as said:
        # A session of its own: whatever the page leaves behind when it fails goes with it.
        shell = subprocess.Popen(
            ["bash", "-e", "-c", typed], cwd=tmp_path, env={**clean, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            code = shell.wait(timeout=500)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
        said.seek(0)
        text = said.read()
    assert code == 0, text + (tmp_path / "broker.log").read_text()[-2000:]
    assert "ok   certificate" in text and "pi-7 is off mqtts://localhost" in text
    assert re.search(r"^FIX +broker .*certificate revoked", text, re.M), text
    _of_the_centre, asked, issued = re.findall(r"of the key +(\S+)$", text, re.M)
    assert asked == issued, "board and centre show the same fingerprint of the key for TLS"
