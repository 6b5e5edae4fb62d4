"""Numbers beyond all measure in settings are errors that name their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeagent import cli
from modelwire.errors import ConfigError
from tests.edgeagent.boards import make


@pytest.mark.parametrize(
    "value",
    [
        "spool.max_samples=1" + "0" * 30,
        "spool.max_bytes=99999999999GiB",
        f"spool.max_bytes={'9' * 400}GiB",
        f"train.every={'9' * 400}d",
    ],
)
def test_a_setting_beyond_all_measure_is_an_error_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    make(tmp_path / "d")
    assert cli.main(["config", "show", "--dir", str(tmp_path / "d"), "--set", value]) == ConfigError.code
    assert value.partition("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("line", ["[train]\nmargin", "[link]\nresend", "[spool]\nmax_samples", "[train]\nmin_samples"])
def test_an_endless_number_in_the_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    file = tmp_path / "edgeagent.toml"
    file.write_text(f'[device]\nname="a"\nfleet="b"\n[[model]]\nname="m"\n{line}=1{"0" * 400}\n')
    assert cli.main(["config", "check", str(file)]) == ConfigError.code
