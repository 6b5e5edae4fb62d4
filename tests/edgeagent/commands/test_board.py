"""A board's profile by the commands: listed, shown, as limits for systemd, written by init, held against the board by doctor."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeagent import boards, cli
from edgeagent.board.sensors import Sensors
from edgeagent.boards import recognising
from edgeagent.commands import run
from edgeagent.service.goal import Goal
from edgeagent.settings import reading
from edgeagent.state.folder import open_folder
from modelwire.errors import BadArgument, ConfigError
from modelwire.wire.keys import write_fleet
from modelwire.wire.more import troubles_in
from modelwire.wire.records import Hello
from tests import keys
from tests.edgeagent.boards import TINY, Rig, centre, make, rig
from tests.edgeagent.centre import FakeClock


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the words of init for a board in `tmp_path`/d, but for --board."""
    (tmp_path / "fleet.pub").write_text(f"{write_fleet(keys.FLEET)}\n")
    (tmp_path / "tiny.tflite").write_bytes(TINY)
    return [
        "init", "--device", "pi-7", "--fleet", "home", "--fleet-key", str(tmp_path / "fleet.pub"), "--model",
        f"tiny={tmp_path / 'tiny.tflite'}", "--dir", str(tmp_path / "d"),
    ]  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert cli.main([*words, "--json"]) == code
    out, err = capsys.readouterr()
    return json.loads(out or err.splitlines()[-1])


def memory_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let this machine be one with so many bytes of memory."""
    monkeypatch.setattr(Sensors, "memory", lambda self: size)
    monkeypatch.setattr(Sensors, "group_limit", lambda self: 0)


def hellos(r: Rig) -> list[dict[str, str]]:
    """Return the troubles that each hello said."""
    return [troubles_in(record.more) for _, record in r.centre.up if isinstance(record, Hello)]


def test_profiles_are_listed_and_each_is_shown_with_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["profile"] for row in said(capsys, "board", "list")["profiles"]] == list(boards.names())
    for name in boards.names():
        shown = said(capsys, "board", "show", name)
        assert shown["profile"] == name and all(one["from"] for part in ("has", "settings", "unit") for one in shown[part].values())
        assert cli.main(["board", "show", name]) == 0
        text = capsys.readouterr().out
        assert "not measured" in text and str(shown["settings"]["budget.max_ram"]["is"]) in text
    assert cli.main(["board", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in boards.names())


def test_the_limits_for_systemd_are_printed_as_they_are_put_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["board", "unit", "pi-zero-2w"]) == 0
    out = capsys.readouterr().out
    assert out == boards.unit_drop_in(boards.profile("pi-zero-2w")) and "\nMemoryMax=256M\n" in out
    found = said(capsys, "board", "unit", "pi-zero-2w")
    assert found["unit"]["MemoryMax"] == "256M" and found["place"].startswith("/etc/systemd/system/edgeagent.service.d/")


def test_auto_is_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    recognising.own_machine.cache_clear()
    monkeypatch.setattr(recognising, "own_machine", lambda: "aarch64")
    monkeypatch.setattr(recognising, "_words", lambda path: ("raspberrypi,model-zero-2-w",) if path.name == "compatible" else ())
    assert said(capsys, "board", "show", "auto")["profile"] == "pi-zero-2w"
    assert said(capsys, "board", "list")["here"] == "pi-zero-2w"


@pytest.mark.parametrize("words", [["show"], ["unit"], ["list", "pi-4"]])
def test_a_word_too_few_or_too_many_is_a_fault_of_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["board", *words]) == 2
    assert "edgeagent board" in capsys.readouterr().err


def test_init_writes_what_the_profile_says_each_line_with_its_source_and_an_own_word_wins(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(capsys, *files, "--board", "pi-zero-2w", "--set", "budget.max_ram=100MiB", "--set", "link.profile=lte")
    text = (tmp_path / "d" / "edgeagent.toml").read_text()
    loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
    assert loaded.settings.budget.max_ram == 100 * 2**20 and loaded.settings.link.profile == "lte", "what was given wins"
    profile = boards.profile("pi-zero-2w")
    assert loaded.settings.board.name == "pi-zero-2w" and loaded.settings.board.thermal_zones == ("cpu-thermal",)
    assert loaded.settings.budget.flash_bytes_a_day == 200 * 2**20 and loaded.settings.budget.max_celsius == 75
    own = {"budget.max_ram", "link.profile"}
    assert set(found["board"]["settings"]) == {"board.name", *profile.settings} - own
    for key, figure in profile.settings.items():
        lines = [line for line in text.splitlines() if line.startswith(f"{key.partition('.')[2]} = ")]
        assert any(f"# from the profile pi-zero-2w: {figure.source}" in line for line in lines) is (key not in own), key
    assert found["board"]["profile"] == "pi-zero-2w"


def test_auto_on_a_board_that_no_profile_knows_takes_the_one_of_its_architecture_and_says_so(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recognising, "own_machine", lambda: "aarch64")
    monkeypatch.setattr(recognising, "_words", lambda path: ("acme,anvil",) if path.name == "compatible" else ())
    assert cli.main([*files, "--board", "auto"]) == 0
    out = capsys.readouterr().out
    assert "profile generic-arm64" in out and "no profile knows acme,anvil" in out
    loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
    assert loaded.settings.board.name == "generic-arm64"


def test_a_board_of_no_profile_makes_nothing(tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, *files, "--board", "pi-9", code=BadArgument.code)
    assert "pi-zero-2w" in found["hint"] and not (tmp_path / "d").exists()


def test_a_profile_that_lies_about_memory_is_named_by_init_doctor_and_status_and_the_agent_keeps_to_what_there_is(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_of(monkeypatch, 487 * 2**20)
    where = ["--dir", str(tmp_path / "d")]
    assert cli.main([*files, "--board", "jetson-orin-nano", "--set", "train.min_new_samples=0"]) == 0
    assert "this machine has 487 MiB of memory" in capsys.readouterr().out
    checks = {c["key"]: c for c in said(capsys, "doctor", *where, code=1)["checks"]}
    for key in ("board-memory", "board-budget"):
        assert checks[key]["ok"] is False and checks[key]["trouble"] == "board-smaller" and checks[key]["hint"], key
    loaded = reading.load(tmp_path / "d" / "edgeagent.toml", environment={}, flags={})
    with open_folder(loaded, alone=False) as device:
        assert device.settings.budget.max_ram == device.settings.model("tiny").budget.max_ram == 487 * 2**20 // 2
        assert loaded.settings.budget.max_ram == 2**30, "the file stays as it is"
        assert "half of the 487 MiB" in device.lowered


def test_what_the_agent_keeps_to_is_a_trouble_until_it_runs_where_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "d"
    make(folder, budget__max_ram="1GiB", train__min_samples="1000")
    memory_of(monkeypatch, 487 * 2**20)
    with rig(folder, centre(FakeClock())) as r:
        r.run(Goal(publish=True, timeout=60))
        assert hellos(r) and all("half of the 487 MiB" in told["board-smaller"] for told in hellos(r)), "the centre hears it at each hello"
    assert "trouble board-smaller: budget.max_ram is 1024 MiB, and half of the 487 MiB of this board is 244 MiB" in caplog.text
    found = said(capsys, "status", "--dir", str(folder))
    (trouble,) = found["troubles"]
    assert trouble["id"] == "board-smaller" and "half of the 487 MiB" in trouble["text"] and trouble["asks"]
    assert cli.main(["status", "--dir", str(folder)]) == 0
    assert "trouble board-smaller: " in capsys.readouterr().out
    memory_of(monkeypatch, 8 << 30)
    with rig(folder, centre(FakeClock())) as r:
        r.run(Goal(publish=True, timeout=60))
        assert hellos(r) and not any(hellos(r)), "it fits: nothing is said any more"
    assert said(capsys, "status", "--dir", str(folder))["troubles"] == []


def test_a_limit_of_bytes_written_is_the_board_s_and_no_model_s(tmp_path: Path) -> None:
    make(tmp_path / "d", budget__flash_bytes_a_day="20MB")
    path = tmp_path / "d" / "edgeagent.toml"
    assert reading.load(path, environment={}, flags={}).settings.model("tiny").budget.flash_bytes_a_day == 20_000_000
    path.write_text(path.read_text() + "budget = { flash_bytes_a_day = 5 }\n")
    with pytest.raises(ConfigError, match="the whole board's"):
        reading.load(path, environment={}, flags={})


def test_the_agent_goes_by_the_zones_that_its_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "d", board__thermal_zones="cpu-thermal, soc-thermal")
    seen: list[Sensors] = []

    def no_agent(*given: object, sensors: Sensors, **more: object) -> None:
        seen.append(sensors)
        raise ConfigError(reason="seen enough")

    monkeypatch.setattr(run, "Agent", no_agent)
    monkeypatch.setattr(run, "opener", lambda device, eager: SimpleNamespace(extractors=None))
    assert cli.main(["run", "--once", "--dir", str(tmp_path / "d")]) == ConfigError.code
    assert [one.zones for one in seen] == [("cpu-thermal", "soc-thermal")]
