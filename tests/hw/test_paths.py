"""docs/board-setup.md: its commands are those that hw.paths types, and the settings that it shows set a board up."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from edgeagent.provisioning import provision
from hw import paths
from modelwire.wire.keys import write_fleet
from tests import keys
from tests.edgeagent.boards import TOKEN
from tests.house.pages import ROOT, rows, section

TEXT = paths.PAGE.read_text()


@pytest.mark.parametrize("way", paths.WAYS.values(), ids=lambda way: way.name)
def test_each_way_has_commands_that_are_typed_and_leaves_out_systemd_alone(way: paths.Way) -> None:
    for heading in (*way.headings, paths.SETTINGS):
        shown = re.findall(r"^\$ (.*)$", section(TEXT, heading), re.M)
        assert shown and [line for line in shown if "systemctl" not in line] == paths.commands(TEXT, heading)
    typed = [line for heading in (*way.headings, paths.SETTINGS) for line in paths.commands(TEXT, heading)]
    assert "install" in typed[0] and "doctor" in typed[-1]


def test_a_heading_without_a_command_is_an_error() -> None:
    with pytest.raises(LookupError, match="no command"):
        paths.commands("## A\n\nwords\n\n## B\n", "A")


def test_what_the_page_puts_onto_a_card_sets_a_board_up(tmp_path: Path) -> None:
    (settings,) = re.findall(r"^```toml\n(.*?)^```", section(TEXT, "An image"), re.M | re.S)
    names = [row[0].strip("`") for row in rows(section(TEXT, "An image"))]
    assert names == ["edgeagent.toml", "fleet.pub", "digits.tflite", "line-3.claim", "device.key", "authorized_keys", "wifi.toml"]
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "edgeagent.toml").write_text(settings)
    (boot / "fleet.pub").write_text(write_fleet(keys.FLEET))
    (boot / "line-3.claim").write_text(f"{TOKEN}\n")
    shutil.copy(ROOT / "tests" / "models" / "digits.tflite", boot)
    made = provision(boot, tmp_path / "agent")
    assert (made.state.value, made.device, made.error) == ("set up", "pi-7", "")
    assert not (boot / "line-3.claim").exists() and (tmp_path / "agent" / "device.claim").exists()
