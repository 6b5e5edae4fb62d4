"""The README and the first hour, pasted block by block as they stand."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from tests import broker
from tests.house.pages import DOCS, PAGES, ROOT
from tests.house.pasting import blocks_of, paste, script_of, without

README, HOUR = ROOT / "README.md", DOCS / "first-hour.md"
# `make bare` runs these too, in an empty Debian.
NOT_HERE = {
    README: {
        "sudo apt-get install -y git make gcc python3-dev python3-venv mosquitto": "needs root, and changes the machine",
        "make demo": "takes minutes; tests/system/test_end_to_end.py runs its parts",
        "python3 -m venv ~/edge": "the environment of the test stands for it",
        "source ~/edge/bin/activate": "the same",
        "pip install '.[cloud,litert]'": "asks a package index",
    },
    HOUR: {
        "make venv": "asks a package index",
        "source .venv/bin/activate": "the environment of the test stands for it",
    },
}


def pasted(page: Path, tmp_path: Path) -> str:
    """Paste a page, and return all that was said. Its clone is a folder with the tests alone, so that only what is installed runs."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "tests").symlink_to(ROOT / "tests")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("EDGECLOUD_", "EDGEAGENT_", "PYTHONPATH"))}
    # What Debian gives to an ordinary user: without /usr/sbin.
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    script = script_of(without(blocks_of(page), NOT_HERE[page]), port=broker.free_port())
    said = tmp_path / "said"
    code = paste(script, folder=clone, said=said, environment={**clean, "PATH": path, "HOME": str(tmp_path)}, seconds=500)
    assert code == 0, said.read_text()
    return said.read_text()


@pytest.mark.slow("types all of the README", seconds=10)
@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_the_blocks_of_the_readme_can_be_pasted_in_their_order(tmp_path: Path) -> None:
    text = pasted(README, tmp_path)
    assert "3 of 3 versions exact" in text
    served, rebuilt = tmp_path / "agent/state/models/digits/served.tflite", tmp_path / "centre/pi-7.tflite"
    assert hashlib.sha256(served.read_bytes()).digest() == hashlib.sha256(rebuilt.read_bytes()).digest()
    assert (tmp_path / "centre" / "doorbell.tflite").exists()


@pytest.mark.slow("types a whole hour of commands", seconds=10)
@pytest.mark.skipif(broker.program() is None, reason=broker.MISSING)
def test_the_first_hour_can_be_pasted_as_it_stands(tmp_path: Path) -> None:
    text = pasted(HOUR, tmp_path)
    assert "8 of 8 versions exact" in text
    first, second = re.findall(r"^([0-9a-f]{64})  \S+\.tflite$", text, re.M)
    assert first == second  # what the centre rebuilt and what the device served
    assert len(re.findall(r"^pi-7/digits@\d [0-9a-f]{12}$", text, re.M)) == 8  # what the Python block prints
    assert "16 of 16 versions exact" in text  # the device of one's own models, too
    for model, most in (("own", 96 * 1024), ("own-int8", 1024)):
        said = rf"^{model}: round (\d) \(\w+\) is @(\d): loss \S+ -> \S+, accuracy (\S+) -> ([\d.]+); delta of (\d+) bytes"
        rounds = re.findall(said, text, re.M)
        assert [(number, version) for number, version, *_ in rounds] == [(n, n) for n in "1234"], model
        assert float(rounds[-1][3]) > float(rounds[0][2]), f"{model} did not learn"
        assert all(0 < int(size) <= most for *_, size in rounds), model


def test_what_the_first_hour_converts_is_what_its_files_were_made_by() -> None:
    blocks = re.findall(r"^```py\n(.*?)^```", HOUR.read_text(), re.M | re.S)
    script = (ROOT / "tests" / "models" / "author_own.py").read_text().splitlines()
    assert len(blocks) == 2
    for line in (line for block in blocks for line in block.splitlines()):
        assert f"    {line}" in script, line


def test_the_agents_folder_is_the_same_on_all_pages() -> None:
    """`agent` in the home of who runs it; for the service that is /var/lib/edgeagent. Walks through a page have one beside them."""
    deployed = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    places = [*PAGES, *deployed, *(ROOT / "edgeagent").rglob("*.py"), *(ROOT / "cloud").rglob("*.py")]
    found: dict[str, list[str]] = {}
    folder = r"([~/][\w./~-]*)"
    named = re.compile(rf"edgeagent \w.*?--dir {folder}|EDGEAGENT_DIR={folder}|Spool\(\"{folder}|(/etc/edgeagent|/home/\w+/agent)\b")
    for place in places:
        for folder in ("".join(each) for each in named.findall(place.read_text())):
            found.setdefault(folder, []).append(str(place.relative_to(ROOT)))
    assert {"~/agent", "/var/lib/edgeagent/agent"} == found.keys(), found
