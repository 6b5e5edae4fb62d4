"""The charts by their geometry: no legend on data, a figure on each bar that can't be seen, no name on another, no empty panel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="the charts need matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402
from matplotlib.text import Annotation  # noqa: E402

from tests.bench import charts  # noqa: E402
from tests.charts import LOW  # noqa: E402
from tests.stories import camera, har, turbine  # noqa: E402
from tests.stories.story import Told, Version  # noqa: E402
from tests.system import demo  # noqa: E402

pytestmark = pytest.mark.slow("draws charts", seconds=8)


def told(device: str, model: str, stock: int, sizes: list[int]) -> Told:
    versions = tuple(Version(n, b"", "delta", size, 0) for n, size in enumerate(sizes, 1))
    return Told(device, model, b"", stock, versions, len(sizes), 0, 0, {})


def a_demo(path: Path) -> None:
    scores = [[0.2, *[0.9 - n / 20] * 6] for n in range(4)]
    demo.draw([demo.Row(f"pi-{n}", "digits", 6, 0.2, 0.9, 6000, 10**6, 0.5, 0, 0, scores[n], [1000 + n] * 6) for n in range(4)], path)


def a_watch(path: Path) -> None:
    people = ["anna", "bela", "cleo"]
    scores = {name: [0.4, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0] for name in people}
    matrix = {model: dict.fromkeys(people, 0.5) for model in ("base", *people)}
    har._draw({name: told(name, "motion", 90_000, [1000, 760, 1080]) for name in people}, scores, matrix, path)


def a_turbine(path: Path) -> None:
    def heard(false: float, caught: float) -> turbine.Heard:
        return turbine.Heard({"rub": 0.9}, {"rub": caught}, false)

    by = {"base": heard(1440.0, 1.0), turbine.BASE_HERE: heard(0.0, 0.0), turbine.OWN: heard(0.5, 0.9)}
    devices = ("ridge", "shore", "plain", "orbiter")
    turbine._draw(dict.fromkeys(devices, by), {d: told(d, "vibration", 17_000, [1500, 1400]) for d in devices}, path)


def a_camera(path: Path) -> None:
    read = [camera.Read(t.camera.name, s[0], s[3], (0.4, 0.9, 0.95)) for t in camera.TASKS for s in t.scenes]
    names = {t.camera.name for t in camera.TASKS}
    camera._draw(read, {name: told(name, "meter", 30_000, [800 * len(name)] * 8) for name in names}, path)


def a_bench(path: Path) -> None:
    chains = [SimpleNamespace(net=net, weights=10**6, ratio=800.0, loss=0.47, loss_float32=0.473) for net in ("mlp", "cnn", "mbn")]
    patches = {"zstd -3 --patch-from": 90.0, "bsdiff4": 50.0, "blosc2 XOR+shuffle+zstd": 60.0}
    points = [
        ("modelwire 0.1 %", 0.02, 7.0), ("modelwire 1 %", 0.16, 10.0), ("zstd -3 --patch-from", 91.0, 290.0), ("xdelta3 -9", 91.0, 5000.0),
        ("zipnn of XOR", 68.0, 54.0), ("blosc2 XOR+shuffle+zstd", 65.0, 46.0), ("blosc2 XOR+bitshuffle+zstd", 71.0, 50.0),
    ]  # fmt: skip
    report: Any = SimpleNamespace(
        chains=chains, sweeps={"mlp": [(0.001, 0.06, 0.462), (0.01, 0.2, 0.42)]}, patches={c.net: patches for c in chains}, points=points
    )
    charts.bytes_and_loss(report, path.with_suffix(".1.svg"))
    charts.speed_and_bytes(report, path)


@pytest.fixture(scope="module", params=[a_demo, a_watch, a_turbine, a_camera, a_bench], ids=lambda draw: draw.__name__)
def figures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """The figures that a chart was saved from."""
    kept: list[Any] = []
    draw: Callable[[Path], None] = request.param
    with pytest.MonkeyPatch.context() as drawing:
        drawing.setattr(pyplot, "close", kept.append)
        draw(tmp_path_factory.mktemp("charts") / ("chart.svg" if draw is a_bench else "chart.png"))
    assert kept
    for one in kept:
        one.canvas.draw()
    yield kept
    for one in kept:
        pyplot.close(one)


def test_no_legend_lies_on_what_is_drawn_and_all_of_it_is_in_the_picture(figures: list[Any]) -> None:
    seen = 0
    for figure in figures:
        panels = [axes.get_window_extent() for axes in figure.axes]
        words = [axes.xaxis.get_label().get_window_extent() for axes in figure.axes if axes.get_xlabel()]
        words += [tick.get_window_extent() for axes in figure.axes for tick in axes.get_xticklabels() if tick.get_text()]
        for legend in [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]:
            box, seen = legend.get_window_extent(), seen + 1
            assert not any(box.overlaps(panel) for panel in panels), "on a panel, where bars and lines are"
            assert not any(box.overlaps(word) for word in words), "on the words of an axis"
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1, "cut off"
    assert seen


def test_each_bar_that_can_not_be_seen_has_its_figure(figures: list[Any]) -> None:
    for figure in figures:
        for axes in figure.axes:
            labels = [text for text in axes.texts if isinstance(text, Annotation)]
            for bar in (bar for bars in axes.containers for bar in bars):
                box = bar.get_window_extent()
                if box.height >= LOW * axes.get_window_extent().height:
                    continue
                mine = [t for t in labels if abs((t.get_window_extent().x0 + t.get_window_extent().x1) / 2 - (box.x0 + box.x1) / 2) < 2]
                assert [t.get_text() for t in mine] == [f"{bar.get_height():.2g}"]
                assert 0 <= mine[0].get_window_extent().y0 - box.y1 < 12


def test_names_of_points_lie_apart_and_inside_the_picture(figures: list[Any]) -> None:
    for figure in figures:
        for axes in figure.axes:
            names = [text.get_window_extent() for text in axes.texts if isinstance(text, Annotation)]
            assert not any(a.overlaps(b) for a, b in combinations(names, 2))
            assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in names)


def test_bytes_of_updates_fill_their_panel_on_a_linear_axis_from_zero(figures: list[Any]) -> None:
    for figure in figures:
        for axes in figure.axes:
            if axes.get_ylabel() != "bytes":
                continue
            assert axes.get_yscale() == "linear" and axes.get_ylim()[0] == 0
            most = max(np.max(line.get_ydata()) for line in axes.lines)
            assert most > 0.8 * axes.get_ylim()[1]
