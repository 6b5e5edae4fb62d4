"""Settings come from flags, the environment or their defaults; the log is text or JSON."""

from __future__ import annotations

import json
import logging

import pytest

from edgecloud import settings
from modelwire.errors import BadArgument


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    assert settings.from_environment("BROKER", "default", {}) == "default"
    assert settings.from_environment("BROKER", "default", {"EDGECLOUD_BROKER": ""}) == "default"
    assert settings.from_environment("BROKER", "default", {"EDGECLOUD_BROKER": "set"}) == "set"
    assert str(settings.registry_path("flag.db")) == "flag.db"


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1h"])
def test_a_time_is_a_number_of_seconds_above_zero(text: str) -> None:
    with pytest.raises(BadArgument):
        settings.seconds(text)


def test_log_lines_are_one_json_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    settings.start_log("json", "info")
    logger = logging.getLogger("edgecloud.test")
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it failed: %s", 'with "quotes"\nand lines')
    logger.debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["level"] == "error" and said["message"].startswith("it failed") and "ValueError: why" in said["exception"]
    settings.start_log("text", "warning")
    logger.info("not shown")
    logger.warning("shown")
    assert capsys.readouterr().err.strip().endswith("WARNING edgecloud.test shown")


@pytest.mark.parametrize(
    ("line", "device", "model"),
    [
        ("verified pi-7/digits@12", "pi-7", "digits"), ("dropped pi-7/digits: Malformed: record", "pi-7", "digits"),
        ("pi-7/digits.v2@3 met a fault of this program", "pi-7", "digits.v2"), ("pi-7/digits is two: see", "pi-7", "digits"),
        ("connected to mqtts://localhost:8883, listening on e1/home/+/+/up/#", None, None),
        ("/var/lib/edgecloud/fleet.db: no room", None, None),
        ("an answer on e1/home/pi-7/digits/dn/x is left out", None, None), ("refused what pi-8 said of pi-7/digits", None, None),
        ("", None, None), ("verified pi-7/digits\nEDGE_DEVICE=pi-8", "pi-7", "digits"),
    ],
)  # fmt: skip
def test_a_line_for_the_journal_names_the_device_that_it_begins_with(line: str, device: str | None, model: str | None) -> None:
    wanted = {"EDGE_DEVICE": device, "EDGE_MODEL": model} if device else {}
    assert settings._fields(line) == wanted
