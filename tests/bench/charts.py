"""Draws the two charts of a bench run as SVG: bytes against held-out loss, and speed against bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file

from matplotlib import pyplot  # noqa: E402

from tests.bench.measure import Report  # noqa: E402
from tests.bench.rivals import LOSSLESS  # noqa: E402
from tests.charts import name_points  # noqa: E402

OURS, THEIRS = "#0072b2", "#777777"


def bytes_and_loss(report: Report, path: Path) -> None:
    """Write the chart of held-out loss at the end of a chain against the bytes of an update."""
    figure, axes = pyplot.subplots(1, len(report.chains), figsize=(4.2 * len(report.chains), 3.8), constrained_layout=True)
    colors = {rival.name: f"C{number + 1}" for number, rival in enumerate(LOSSLESS)}  # alike in all panels: one legend serves them
    for axis, result in zip(axes, report.chains, strict=True):
        net = result.net
        sweep = report.sweeps.get(net) or [(0.0, 100 / result.ratio, result.loss)]
        axis.axhline(result.loss_float32, color=THEIRS, lw=1, ls="--")
        axis.plot([p for _, p, _ in sweep], [loss for _, _, loss in sweep], "o-", color=OURS, label="modelwire containers")
        for density, percent, loss in sweep if len(sweep) > 1 else []:
            axis.annotate(f"{100 * density:g} %", (percent, loss), xytext=(5, 5), textcoords="offset points", fontsize=7, color=OURS)
        # Whatever is lossless has the loss of float32; only its bytes differ.
        for name, percent in report.patches.get(net, {}).items():
            axis.plot([percent], [result.loss_float32], "x", color=colors[name], label=name)
        axis.plot([100], [result.loss_float32], "s", color=THEIRS, label="the whole file")
        axis.set(xscale="log", xlabel="bytes of an update, % of the float32 file", title=f"{net}, {result.weights:,} weights")
    axes[0].set_ylabel("held-out loss after the last update\n(dashed: full float32 fine-tuning)")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=5, frameon=False)
    _save(figure, path)


def speed_and_bytes(report: Report, path: Path) -> None:
    """Write the chart of encoding time against bytes, on all layers of the MobileNet."""
    figure, axis = pyplot.subplots(figsize=(7, 4.4), constrained_layout=True)
    for name, percent, ratio in report.points:
        color = OURS if name.startswith("modelwire") else THEIRS
        axis.plot([percent], [ratio], "o", color=color)
    axis.margins(x=0.1)
    axis.set(
        xscale="log", yscale="log", xlabel="bytes, % of the float32 file", ylabel="encoding, CPU time over one memcpy of the model",
        title="MobileNetV2-like net, all layers trained (lossless rivals in grey)",
    )  # fmt: skip
    name_points(axis, [(name, x, y, OURS if name.startswith("modelwire") else THEIRS) for name, x, y in report.points])
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
