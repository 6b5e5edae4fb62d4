"""What commands answer where there is no score, no such model, no such host and no such count."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from edgeagent import cli
from edgeagent.commands.answer import _fields
from edgeagent.program import _surroundings
from edgeagent.service.goal import Goal
from edgeagent.settings import tree
from modelwire.errors import ConfigError
from tests.edgeagent.boards import ScriptedModel, centre, fill, make, rig
from tests.edgeagent.centre import FakeClock
from tests.house.pages import ROOT


def test_status_of_a_round_from_a_model_without_a_score(tmp_path: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    def sick(file: bytes, name: str) -> ScriptedModel:
        asked: list[bool] = []

        def answer(x: np.ndarray, weights: object) -> np.ndarray:  # type: ignore[type-arg]
            asked.append(True)
            return np.full((len(x), 3), np.nan if len(asked) == 1 else 1 / 3, np.float32)

        return ScriptedModel(file, answer=answer)

    with rig(tmp_path / "d", centre(clock), sick) as r:
        fill(r.device)
        r.run(Goal(rounds=1, timeout=60))
        assert r.lineage.head().version == 1
    assert cli.main(["status", "--dir", str(tmp_path / "d")]) == 0
    assert "held-out loss none ->" in capsys.readouterr().out


def test_a_count_or_a_host_beyond_all_measure_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "d")
    assert cli.main(["log", "-n", "9" * 20, "--dir", str(tmp_path / "d")]) == 2
    assert "-n/--limit: '99999999999999999999' is not a whole number of 0 or more" in capsys.readouterr().err
    host = "link.broker=mqtt://" + "a" * 70 + ".example"
    assert cli.main(["doctor", "--dir", str(tmp_path / "d"), "--set", host]) == 1
    assert "FIX  broker" in capsys.readouterr().out


def test_samples_of_a_model_that_is_not_there_are_an_error_not_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "d")
    assert cli.main(["samples", "list", "nosuch", "--dir", str(tmp_path / "d")]) == ConfigError.code
    assert "it has tiny" in capsys.readouterr().err


def test_a_line_for_the_journal_says_whose_it_is_of_which_model_and_of_which_trouble() -> None:
    models = (tree.ModelSettings("digits", tree.TrainSettings(), tree.UpdateSettings()),)
    held = tree.Settings(tree.DeviceSettings(name="pi-7", fleet="home"), models=models)
    own = {"EDGE_FLEET": "home", "EDGE_DEVICE": "pi-7"}
    assert _fields(held, "connected to mqtt://127.0.0.1") == own
    assert _fields(held, "digits: @4 verified") == own | {"EDGE_MODEL": "digits"}
    assert _fields(held, "pears: @4 verified") == own, "no model of this board"
    said = "digits: trouble flash-spent: 3 MB today; you asked for this round"
    assert _fields(held, said) == own | {"EDGE_MODEL": "digits", "EDGE_TROUBLE": "flash-spent"}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
def test_want_of_means_is_no_fault_of_the_settings_with_which_systemd_gives_the_agent_up(number: int) -> None:
    unit = (ROOT / "deploy" / "edgeagent.service").read_text()
    (never,) = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.M)
    assert str(_surroundings("edgeagent run", OSError(number, "no more")).code) not in never.split()
