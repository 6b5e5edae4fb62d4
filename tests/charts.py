"""What all charts do: a legend beside the data, a figure on a bar that is too low to be seen, and names that do not lie on each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LOW = 0.01  # of a panel's height: a bar below it can't be told from none
LINE = 9.0  # points from the foot of one small label to that of the next


def legend_below(axes: Any, columns: int = 3) -> None:
    """Put a panel's legend under it, where nothing is drawn."""
    under = -0.16 if axes.get_xlabel() else -0.08
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, under), ncols=columns, frameon=False)


def count_whole(axes: Any) -> None:
    """Let an axis of versions have no halves."""
    axes.xaxis.get_major_locator().set_params(integer=True)


def label_low_bars(axes: Any) -> None:
    """Write its figure on each bar that is too low to be seen. Comes after the scale is set."""
    axes.figure.canvas.draw()
    panel = axes.get_window_extent().height
    for bars in axes.containers:
        for bar in bars:
            if bar.get_window_extent().height < LOW * panel:
                middle = bar.get_x() + bar.get_width() / 2
                axes.annotate(f"{bar.get_height():.2g}", (middle, bar.get_height()), xytext=(0, 2), textcoords="offset points",
                              ha="center", fontsize=8)  # fmt: skip


def name_points(axes: Any, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Write the names of points beside them, towards the middle of the panel and apart from each other. points: (name, x, y, color)."""
    axes.figure.canvas.draw()
    panel, scale = axes.get_window_extent(), 72 / axes.figure.dpi
    shown = [(*axes.transData.transform((x, y)), name, x, y, color) for name, x, y, color in points]
    placed: list[tuple[float, float]] = []  # across, and the foot of the name
    for across, up, name, x, y, color in sorted(shown, key=lambda one: one[1]):
        side = "right" if across > (panel.x0 + panel.x1) / 2 else "left"
        near = [foot for there, foot in placed if abs(there - across) < panel.width / 3]
        foot = max(up * scale - 3, max(near, default=-LINE) + LINE)
        placed.append((across, foot))
        axes.annotate(name, (x, y), xytext=(-7 if side == "right" else 7, foot - up * scale), textcoords="offset points", ha=side,
                      fontsize=7, color=color)  # fmt: skip
