"""The tables at the end of `make demo` and of the stories: on a terminal of 80 columns no figure and no name is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.stories import camera, har, story, turbine
from tests.stories.story import Told, Version
from tests.system import demo, telling

CARD = {
    "samples": 1600, "labels": {str(label): 150 for label in range(11)}, "tags": {"light": {"day": 400, "backlit": 1200}},
    "channels": [{"name": "x.mean", "mean": -0.714, "deviation": 0.74}],
}  # fmt: skip


def told(device: str, model: str, stock: int = 143_424) -> Told:
    return Told(device, model, b"", stock, tuple(Version(n, b"", "delta", 1374, 136) for n in range(8)), 8, 0, 0, CARD)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "Console", lambda width: Console(width=80))


def fits(said: str, *whole: str) -> None:
    assert max(map(len, said.splitlines())) <= 80 and "…" not in said, said
    for figure in whole:
        assert figure in said, said


@pytest.mark.usefixtures("narrow")
def test_the_demos_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    row = demo.Row("pi-1", "digits", 6, 0.258, 0.853, 6_035, 1_343_520, 0.5, 0, 0, [], [])
    demo.show([row])
    said = capsys.readouterr().out
    fits(said, "versions", "0.258 -> 0.853", "6,035", "1,343,520", "1/223")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert [line.rstrip() for line in said.splitlines()[:3]] == readme.split("<!-- demo output -->\n```\n")[1].splitlines()[:3]
    demo.show([replace(row, bytes_sent=16_035)])
    fits(capsys.readouterr().out, "digits ", "16,035", "1,343,520", "1/84")


@pytest.mark.usefixtures("narrow")
def test_the_stories_tables_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for model, stock, whole in (("vibration", 16_776, "134,208"), ("camera", 143_424, "1,147,392")):
        everyone = {"orbiter": told("orbiter", model, stock)}
        telling.show(story.travelled(everyone), story.cards(everyone))
        fits(capsys.readouterr().out, f"orbiter  {model} ", "10,992", "1,088", whole, "-0.714 ± 0.740")


@pytest.mark.usefixtures("narrow")
def test_a_storys_own_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    everyone = {name: told(name, "motion") for name in ("anna", "bela", "cleo")}
    har._show(everyone, {name: [0.42, 1.0] for name in everyone}, {name: dict.fromkeys(everyone, 0.5) for name in ("base", *everyone)})
    fits(capsys.readouterr().out, "on the other arm", "+58.0")
    heard = turbine.Heard({"unbalance": 0.438}, {"unbalance": 0.89}, 1440.0)
    turbine._show({"orbiter": {"base, threshold set here": heard}}, {"orbiter": told("orbiter", "shuttle")})
    fits(capsys.readouterr().out, "1440.0", "base, threshold set here")
    read = [camera.Read(task.camera.name, task.scenes[0][0], True, (0.461, 0.894)) for task in camera.TASKS]
    camera._show(read, {task.camera.name: told(task.camera.name, "camera") for task in camera.TASKS})
    fits(capsys.readouterr().out, "+43.3", "last:3")
