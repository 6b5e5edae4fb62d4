"""Charts of a run, as SVG: bytes, growth of the registry, how a rollout went through, how soon versions are there and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.charts import legend_below

from .simulated import FleetReport

MIB = 1 << 20


def draw(run: FleetReport, folder: Path) -> list[Path]:
    """Draw them, and return their paths. Needs matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    charts = {"bytes": _bytes, "growth": _growth, "soon": _soon, **({"rollout": _rollout} if run.curve else {})}
    paths = []
    with matplotlib.rc_context({"svg.hashsalt": "simulate", "font.size": 9.0, "axes.grid": True, "grid.alpha": 0.3}):
        for name, fill in charts.items():
            figure = Figure(figsize=(7.0, 3.6), layout="constrained")
            fill(run, figure)
            paths.append(folder / f"{name}.svg")
            figure.savefig(paths[-1], metadata={"Date": None})
    return paths


def _bytes(run: FleetReport, figure: Any) -> None:
    figure.suptitle(f"Bytes of MQTT a device a day: {run.script}", x=0.02, ha="left", fontsize=9)
    each = run.script.devices * run.simulated_days
    for place, (title, counts) in enumerate((("sent", run.up), ("heard", run.down))):
        axes = figure.add_subplot(1, 2, place + 1)
        names = [name for name, _ in counts.most_common()]
        values = [counts[name] / each for name in names]
        bars = axes.barh(np.arange(len(names)), values, color="tab:blue" if title == "sent" else "tab:orange")
        axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.1f}" for v in values], padding=2, fontsize=7)
        axes.set_yticks(np.arange(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.set_title(title, loc="left", fontsize=9)


def _growth(run: FleetReport, figure: Any) -> None:
    axes = figure.add_subplot()
    days = [0, *(d.day for d in run.days)]
    axes.plot(days, [run.empty / MIB, *(d.stored / MIB for d in run.days)], marker="o", label="registry, MiB")
    axes.set_xlabel("day")
    axes.set_ylim(bottom=0)
    beside = axes.twinx()
    beside.plot(days, [0, *(d.versions for d in run.days)], marker="s", color="tab:orange", label="versions")
    beside.set_ylim(bottom=0)
    beside.grid(visible=False)
    axes.set_ylabel("MiB")
    beside.set_ylabel("versions")
    axes.set_title(f"The registry grows: {run.script}", loc="left", fontsize=9)
    lines = [*axes.get_lines(), *beside.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], fontsize=8, loc="upper left", frameon=False)


def _rollout(run: FleetReport, figure: Any) -> None:
    axes = figure.add_subplot()
    hours = [24 * at for at, _, _ in run.curve]
    for label, place in (("were offered it", 1), ("have confirmed it", 2)):
        axes.step(hours, [100 * point[place] / run.script.devices for point in run.curve], where="post", label=label)
    axes.set_xlabel("hours since the rollout began")
    axes.set_ylabel("% of the devices")
    axes.set_ylim(0, 105)
    axes.set_title(f"A variant reaches the fleet: {run.script}", loc="left", fontsize=9)
    legend_below(axes)


def _soon(run: FleetReport, figure: Any) -> None:
    figure.suptitle(f"How soon: {run.script}", x=0.02, ha="left", fontsize=9)
    _shares(figure.add_subplot(1, 2, 1), run.took, "seconds from a round to `verified`")
    back = run.recovery.seconds if run.recovery is not None else ()
    _shares(figure.add_subplot(1, 2, 2), [1000 * s for s in back], "ms of a processor to recover a version")


def _shares(axes: Any, values: Sequence[float], label: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    if values:
        axes.plot(np.sort(values), 100 * (np.arange(len(values)) + 1) / len(values))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("% of them")
    axes.set_ylim(0, 102)
