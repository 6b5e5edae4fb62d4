"""hw/porting.md: its commands fill an empty root with the files that it lists, and the agent starts there."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import porting

TEXT = porting.PAGE.read_text()
LISTED = porting.listed(TEXT)
NAMES = st.text("abcdefgh._-", min_size=1, max_size=12)


def covered(line: str, name: str) -> str:
    """Return a file that a line of the list covers."""
    return line.replace("*", name) + (name if line.endswith("/") else "")


@given(name=NAMES)
def test_a_root_with_a_file_for_each_line_is_as_listed(name: str) -> None:
    assert porting.strangers([covered(line, name) for line in LISTED], LISTED) == ([], [])


@given(name=NAMES, folder=st.sampled_from(["/", "/usr/", "/usr/bin/", f"{porting.SITE}/", "/var/lib/edgeagent/", "/etc/"]))
def test_a_file_that_no_line_covers_is_named(name: str, folder: str) -> None:
    files = [covered(line, "x") for line in LISTED]
    stranger = f"{folder}_{name}"
    assert porting.strangers([*files, stranger], LISTED) == ([stranger], [])


@pytest.mark.parametrize("line", LISTED)
def test_a_line_that_covers_nothing_is_named(line: str) -> None:
    assert porting.strangers([covered(other, "x") for other in LISTED if other != line], LISTED) == ([], [line])


def test_each_command_of_the_page_is_run_on_one_side_or_the_other() -> None:
    shown = [line for line in re.findall(r"^\$ (.*)$", TEXT, re.M) if f"$ {line}" != porting.THIS]
    here = [line for block in porting.commands(TEXT, cross=True) for line in block.text.splitlines()]
    assert [*here, *porting.first_start(TEXT, broker=porting.BROKER)] == shown
    native = [line for block in porting.commands(TEXT, cross=False) for line in block.text.splitlines()]
    assert len(here) - len(native) == 2 and all(line.startswith("export ") for line in here if line not in native)


def test_what_a_doctor_finds_wrong_on_the_board_fails_it_and_a_broker_that_is_away_does_not() -> None:
    def report(**wrong: bool) -> dict[str, object]:
        return {"checks": [{"what": name.replace("_", " "), "ok": ok} for name, ok in {"kernels": True, **wrong}.items()]}

    assert porting.well(report(broker_port=False)) == "doctor: kernels ok"
    for bad in (report(disk=False), {"checks": []}):
        with pytest.raises(porting.NotAsThePageSays):
            porting.well(bad)


def test_user_and_folder_are_those_of_the_unit(tmp_path: Path) -> None:
    unit = (porting.ROOT / "deploy" / "edgeagent.service").read_text()
    (user,) = re.findall(r"^User=(.*)$", unit, re.M)
    (folder,) = re.findall(r"^StateDirectory=(.*)$", unit, re.M)
    (mode,) = re.findall(r"^StateDirectoryMode=(.*)$", unit, re.M)
    recipe = porting.ROOT / "hw" / "recipe"
    assert f"\nd /var/lib/{folder} {mode} {user} {user}\n" in (recipe / "edgeagent.tmpfiles").read_text()
    sysusers = recipe / "edgeagent.sysusers"
    assert re.search(rf'^u {user} - "[^"]+" /var/lib/{folder}$', sysusers.read_text(), re.M)
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd-sysusers is not on this machine: apt-get install systemd")
    command = ["systemd-sysusers", "--dry-run", f"--root={tmp_path}", str(sysusers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"Creating user '{user}'" in done.stderr + done.stdout and "Failed" not in done.stderr


@pytest.mark.slow("makes an archive of the sources, a wheel of that, a root of that, and starts the agent there", seconds=40)
@pytest.mark.one_environment("what is installed is asked, not which runtime there is")
@pytest.mark.skipif(find_spec("edgecloud") is None or find_spec("Cython") is None, reason="edgecloud or Cython is not installed here")
def test_the_page_s_commands_fill_an_empty_root_with_what_it_lists_and_the_agent_starts(tmp_path: Path) -> None:
    own = [target for target in porting.TARGETS.values() if target.machine == platform.machine()]
    if not own:
        pytest.skip(f"the page is tried for {', '.join(porting.TARGETS)}, not for this machine's processor")
    porting.ported(own[0], tmp_path / "ported", here=True)
