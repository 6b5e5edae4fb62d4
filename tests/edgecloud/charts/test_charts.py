"""Charts are files: the same figures give the same bytes, what others wrote is text, and what is missing is said by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edgecloud.charts import drawing, placing
from modelwire.errors import BadArgument

pytest.importorskip("matplotlib", reason="the charts need matplotlib")
HOSTILE = ("$\\frac{1}{0$", "<script>&", "a\x1b[2Jb\n", "x" * 500, "\u65e5\u672c")
RNG = np.random.default_rng(15)
VALUES = np.where(RNG.random((5, 5)) < 0.2, np.nan, RNG.random((5, 5)))
CHARTS: dict[str, Callable[[Path], None]] = {
    "heat": lambda path: drawing.heat(path, VALUES, HOSTILE, HOSTILE, title=HOSTILE[0], unit=HOSTILE[1]),
    "scatter": lambda path: drawing.scatter(path, RNG_PLACES, HOSTILE, HOSTILE, title=HOSTILE[2], note=HOSTILE[0]),
    "bars": lambda path: drawing.bars(path, [drawing.Panel(HOSTILE[0], HOSTILE, {HOSTILE[1]: [1.0] * 5})], title=HOSTILE[2], unit="share"),
    "stacked": lambda path: drawing.stacked(
        path, HOSTILE, {h: range(5) for h in HOSTILE[:3]}, {HOSTILE[0]: "tab:red"}, title=HOSTILE[0], note=HOSTILE[1], unit="u"
    ),
    "levels": lambda path: drawing.levels(path, HOSTILE, {h: range(5) for h in HOSTILE[:2]}, title=HOSTILE[0], unit="u", mark=1.0),
}
RNG_PLACES = RNG.standard_normal((5, 2))


@pytest.mark.slow("draws each chart three times", seconds=6)
@pytest.mark.parametrize("name", CHARTS)
def test_the_same_figures_give_the_same_bytes_and_hostile_names_are_text(tmp_path: Path, name: str) -> None:
    made = [tmp_path / one for one in ("a.svg", "b.svg", "c.png")]
    for path in made:
        CHARTS[name](path)
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[2].read_bytes().startswith(b"\x89PNG")
    told = "".join(ElementTree.fromstring(made[0].read_bytes()).itertext())
    assert "$\\frac{1}{0$" in told and "\x1b" not in told
    assert not [path for path in tmp_path.iterdir() if path not in made]


def test_what_cannot_be_drawn_is_refused_by_name_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadArgument, match="names no format"):
        CHARTS["heat"](tmp_path / "chart.pdf")
    empty: tuple[Callable[[Path], None], ...] = (
        lambda p: drawing.heat(p, np.zeros((0, 0)), [], [], title="", unit=""), lambda p: drawing.bars(p, [], title="", unit=""),
        lambda p: drawing.scatter(p, np.zeros((0, 2)), [], [], title=""), lambda p: drawing.levels(p, [], {}, title="", unit=""),
        lambda p: drawing.stacked(p, ["phase 1"], {"waiting": [0]}, {}, title="", note="", unit=""),
    )  # fmt: skip
    for nothing in empty:
        with pytest.raises(BadArgument, match="nothing to draw"):
            nothing(tmp_path / "chart.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BadArgument, match="need the package matplotlib") as error:
        drawing.require_format(tmp_path / "chart.svg")
    assert error.value.next_step == "pip install 'edgeagent[plot]'"
    assert not list(tmp_path.iterdir())


def test_places_keep_the_distances_of_what_lies_on_a_plane_whatever_the_order() -> None:
    points = np.array([[0, 0], [3, 0], [3, 4], [-1, 2], [5, 5]], float)

    def apart(of: np.ndarray) -> np.ndarray:
        return np.sqrt(((of[:, None] - of[None]) ** 2).sum(-1))

    found, share = placing.places(apart(points))
    assert np.allclose(apart(found), apart(points)) and share == pytest.approx(1)
    order = [3, 1, 4, 0, 2]
    assert np.allclose(placing.places(apart(points[order]))[0], found[order])
    for few in (0, 1):
        assert placing.places(np.zeros((few, few)))[0].shape == (few, 2)
    assert (placing.places(np.zeros((4, 4)))[0] == 0).all()
    with pytest.raises(ValueError, match="finite"):
        placing.places(np.full((2, 2), np.nan))
