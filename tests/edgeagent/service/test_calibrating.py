"""What `calibrate` measures, where it comes from, and that an interrupt or a full disk leaves everything as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeagent import cli
from edgeagent.board.budget import Cost
from edgeagent.board.meters import Meter
from edgeagent.planning.figures import DISK, ENCODE, PER_BYTE, STEP, WAKEUP, WATTS
from edgeagent.service import calibrating
from edgeagent.service.calibrating import Calibrated, calibrate, own_figures
from edgeagent.service.measuring import Measured, Measuring
from edgeagent.state.folder import DeviceFolder, open_folder
from edgeagent.system.clock import Clock
from modelwire.errors import BadArgument, DiskUnwritable, MissingFile
from tests.edgeagent.boards import fill, make


def measured(monkeypatch: pytest.MonkeyPatch, *said: Measured) -> None:
    """Let every mode be measured at once, as said."""

    def at_once(self: Measuring) -> None:
        self.measured = list(said)

    monkeypatch.setattr(Measuring, "_work", at_once)


def run(device: DeviceFolder, meter: Meter | None = None, **own: tuple[float, str]) -> Calibrated:
    return calibrate(device, device.lineages, {"tiny": "runtime 1"}, own=own, meter=meter, say=lambda _: None, clock=Clock())


def test_all_figures_are_written_with_their_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, Measured("head", Cost(0.002, 1 << 20)), Measured("all", None, "it broke"))
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        fill(device)
        before = device.lineages["tiny"].head(), device.lineages["tiny"].load().state.root
        done = run(device, **{WAKEUP: (9.5, "calibrated: meter.toml")})
        lineage = device.lineages["tiny"]
        assert (lineage.head(), lineage.load().state.root) == before
        assert done.trouble == {"tiny all": "it broke"}
        step, encode = lineage.figures.get(STEP + "head"), lineage.figures.get(ENCODE)
        assert step is not None and (step.value, step.source) == (0.002, "calibrated: a round that was tried")
        assert encode is not None and encode.value > 0
        assert set(lineage.link_figures.all()) == {DISK, WAKEUP}
        assert lineage.costs.of("runtime 1")["head"].seconds == 0.002, "as `measure` writes it"
        assert [p.name for p in (tmp_path / "d" / "state").iterdir() if "calibrate" in p.name] == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DiskUnwritable(path="x", reason="full", fix="room")])
@pytest.mark.parametrize("at", ["_encode_rate", "_steps", "put"])
def test_what_is_interrupted_has_written_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: str) -> None:
    measured(monkeypatch, Measured("head", Cost(0.002, 1 << 20)))

    def broken(*_: object, **__: object) -> Any:
        raise error

    with open_folder(make(tmp_path / "d"), alone=True) as device:
        fill(device)
        lineage = device.lineages["tiny"]
        if at == "put":
            monkeypatch.setattr(type(lineage.figures), "put", broken)
        else:
            monkeypatch.setattr(calibrating, at, broken)
        with pytest.raises(type(error)):
            run(device)
        assert lineage.figures.all() == {} and lineage.link_figures.all() == {} and lineage.costs.of("runtime 1") == {}


def test_a_meter_gives_the_watts_above_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch)
    monkeypatch.setattr(calibrating, "IDLE_S", 0.0)
    file = tmp_path / "energy_uj"
    file.write_text("0")
    plain = Measuring.wait

    def draws(self: Measuring) -> None:
        plain(self)
        file.write_text("1000")

    monkeypatch.setattr(Measuring, "wait", draws)
    with open_folder(make(tmp_path / "d"), alone=True) as device:
        fill(device)
        run(device, Meter("the rails", (file,), True, (0.0,)))
        watts = device.lineages["tiny"].link_figures.get(WATTS)
        assert watts is not None and watts.value > 0 and "the rails" in watts.source


def test_a_file_of_own_figures_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "meter.toml"
    file.write_text("joules_per_wakeup = 9.5\njoules_per_byte = 4e-6\nwatts = 2\n")
    source = "calibrated: meter.toml"
    assert own_figures(file) == {WAKEUP: (9.5, source), PER_BYTE: (4e-6, source), WATTS: (2.0, source)}
    with pytest.raises(MissingFile):
        own_figures(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    ["", "watts = -1", "watts = nan", "watts = inf", "watts = true", 'watts = "2"', "watt = 2", "watts = [", "watts = 1e300", "[watts]",
     "\x00", "#" * 70_000],
)  # fmt: skip
def test_a_file_that_says_anything_else_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "meter.toml"
    file.write_text(text)
    with pytest.raises(BadArgument, match=r"meter\.toml"):
        own_figures(file)


def test_a_meters_file_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe watts = 2")
    for path in (tmp_path / "bytes", tmp_path):
        with pytest.raises(BadArgument):
            own_figures(path)


def test_the_command_says_which_profile_stands_for_a_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "d", link__profile="nb-iot")
    assert cli.main(["calibrate", "--known", "--dir", str(tmp_path / "d")]) == 0
    text = capsys.readouterr().out
    assert "nothing was measured yet" in text and "nb-iot" in text and "no figure in joules was found" in text
    assert cli.main(["calibrate", "--known", "--json", "--dir", str(tmp_path / "d")]) == 0
    assert json.loads(capsys.readouterr().out)["figures"] == []
