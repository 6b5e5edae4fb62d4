"""The units of systemd: what they run can be typed, pages and files agree, and systemd reads them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgeagent.cli
import edgecloud.cli
from hw.deb.trial.units import exposures
from modelwire import errors
from tests.house.pages import DOCS, ROOT
from tests.house.test_commands_on_pages import our_commands

UNITS = sorted(path for path in (ROOT / "deploy").iterdir() if path.suffix in (".service", ".timer"))
SERVICES = ("edgeagent.service", "edgecloud-ingest.service", "edgecloud-director.service")
# Of whom an operator has to mend something before a start can be of use: the command line, a setting, a key, a file of another release.
EXPOSURE = 2.5  # of 10, as systemd-analyze counts it
SETTINGS = {errors.ConfigError.code, errors.UnknownKey.code, errors.WrongKeyKind.code, errors.OldWire.code, errors.RetiredKey.code}


def read(unit: Path) -> configparser.ConfigParser:
    made = configparser.ConfigParser(strict=False, interpolation=None)
    made.optionxform = str  # type: ignore[assignment,method-assign]
    made.read(unit)
    return made


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_says_what_it_is_and_a_page_tells_where_it_goes(unit: Path) -> None:
    assert read(unit)["Unit"]["Description"]
    assert unit.read_text().startswith("# "), "its first line says what it does"
    copied = re.compile(rf"^\$ sudo cp .*\bdeploy/{re.escape(unit.name)}\b", re.M)
    pages = [page.name for page in DOCS.glob("*.md") if copied.search(page.read_text())]
    assert pages, "no page shows how it is put in place"
    if unit.suffix == ".timer":
        assert unit.with_suffix(".service") in UNITS and read(unit)["Timer"]["OnCalendar"]


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_what_a_unit_runs_can_be_typed(unit: Path) -> None:
    parsers = {"edgeagent": edgeagent.cli.parser(), "edgecloud": edgecloud.cli.parser()}
    lines = re.findall(r"^ExecStart=\+?(.*)$", unit.read_text(), re.M)
    assert lines
    for line in lines:
        for program, *words in our_commands(line):
            parsers[program].parse_args(words)
        ours = re.match(r"/opt/(edgeagent|edgecloud)/bin/(\S+)", line)
        assert ours is None or ours.group(2) in ("edgeagent", "edgecloud") or (ROOT / "deploy" / ours.group(2)).exists()


def test_the_renewal_runs_its_three_steps_in_their_order() -> None:
    run = re.findall(r"^ExecStart=(.*)$", (ROOT / "deploy" / "edgecloud-renew.service").read_text(), re.M)
    assert [line.split()[1] for line in run] == ["ca", "broker", "reload"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_and_not_given_up_but_for_its_settings(name: str) -> None:
    service = read(ROOT / "deploy" / name)["Service"]
    assert service["Type"] == "notify" and service["Restart"] == "always" and service["WatchdogSec"]
    assert service["LimitCORE"] == "0", "a core dump holds the private key, and the watchdog makes one"
    codes = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert codes - {2} <= SETTINGS and {2, errors.WrongKeyKind.code, errors.OldWire.code} <= codes
    assert read(ROOT / "deploy" / name)["Unit"]["StartLimitIntervalSec"] == "0", "five starts in a row must not be the last ones"
    assert service["ProtectSystem"] == "strict" and service["NoNewPrivileges"] == "yes" and service["MemoryMax"]
    page = (DOCS / {"edgeagent.service": "board-setup.md"}.get(name, "centre.md")).read_text()
    for code in codes:
        assert re.search(rf"\b{code}\b", page), f"the page does not say that {code} is not started again"


def test_the_page_of_the_board_shows_the_unit_as_it_is() -> None:
    (shown,) = re.findall(r"^```ini\n(.*?)^```", (DOCS / "board-setup.md").read_text(), re.M | re.S)
    first, _, rest = (ROOT / "deploy" / "edgeagent.service").read_text().partition("\n")
    assert first.startswith("#") and shown == rest


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine: apt-get install systemd")
def test_systemd_reads_every_unit_without_a_complaint(tmp_path: Path) -> None:
    for unit in UNITS:  # what they run lies where this machine need not have it
        text = re.sub(r"^(ExecStart=\+?)\S+", rf"\1{sys.executable}", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or any(u.name in line for u in UNITS)]
    assert complaints == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine: apt-get install systemd")
def test_no_unit_is_exposed_beyond_what_is_promised(tmp_path: Path) -> None:
    found = exposures(tmp_path)
    assert found.keys() == {unit.name for unit in UNITS if unit.suffix == ".service"}
    assert max(found.values()) <= EXPOSURE, found
    agent = (ROOT / "deploy" / "edgeagent.service").read_text()
    assert "InaccessiblePaths" not in agent and "\nProcSubset=" not in agent, "LiteRT reads both, and trains to other bits without"
