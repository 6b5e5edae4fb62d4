"""Charts as files: the same figures give the same bytes, by one release of matplotlib, which is loaded when a chart is asked for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecommon import files
from edgecommon.printing import visible
from modelwire.errors import BadArgument

FORMATS = (".svg", ".png")
NAMED = 80  # rows or columns up to which each has its name; of more every second, third, ...
WRITTEN = 240  # cells up to which each has its figure written in it
LONG = 28  # characters of a name that are shown
WITHOUT = "see what is there without --plot"
MISSING = "0.85"  # grey: what was not measured
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive", "tab:cyan", "black")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
_STYLE = {
    "svg.hashsalt": "edgecloud", "svg.fonttype": "none", "text.parse_math": False, "font.size": 8.0, "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"], "axes.titlesize": 9.0, "figure.dpi": 100.0, "savefig.dpi": 100.0, "figure.facecolor": "white",
    "savefig.bbox": "tight", "axes.unicode_minus": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Panel:
    """One part of a chart of bars: shares of the same categories in several things."""

    title: str
    categories: Sequence[str]
    shares: Mapping[str, Sequence[float]]  # a number a category, by the name of what it is of


def require_format(path: Path) -> None:
    """Raise BadArgument unless a chart can be drawn there: for a name that says no format, and where matplotlib is not installed.

    For commands, before they work for minutes.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadArgument(reason=f"{path.name!r} names no format of charts", fix="name the file FILE.svg or FILE.png")
    _matplotlib()


def heat(
    path: Path, values: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], *, title: str, unit: str,
    low: float | None = None, high: float | None = None,
) -> None:  # fmt: skip
    """Draw numbers as colours: values [rows, columns], NaN for what was not measured, which is grey.

    unit: what the numbers are, beside the scale; low, high: its ends, where they are not those of the numbers.
    Raises BadArgument as `require_format`, and for nothing to draw.
    """
    if values.shape != (len(rows), len(columns)) or not values.size:
        raise BadArgument(reason=f"there is nothing to draw: {len(rows)} rows and {len(columns)} columns", fix=WITHOUT)
    with _figure(path, _span(len(columns), 0.62, 3.0, 13.0), _span(len(rows), 0.24, 1.2, 16.0)) as figure:
        axes = figure.add_subplot()
        shown = np.ma.masked_invalid(values)
        colours = import_module("matplotlib").colormaps["viridis"].with_extremes(bad=MISSING)
        image = axes.imshow(shown, aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=high)
        _name(axes.xaxis, columns, turned=max(map(len, columns)) > 6 or len(columns) > 40)
        _name(axes.yaxis, rows)
        axes.set_title(_text(title), loc="left")
        figure.colorbar(image, ax=axes, label=_text(unit), fraction=0.05, pad=0.02)
        if values.size <= WRITTEN:
            _write_cells(axes, image, values)
        if np.ma.is_masked(shown):
            axes.set_xlabel("grey: not measured", loc="left", fontsize=7)


def scatter(path: Path, places: NDArray[np.float64], names: Sequence[str], groups: Sequence[str], *, title: str, note: str = "") -> None:
    """Draw things where they lie, [n, 2], each in the colour and mark of its group. note: said under the title.

    Names stand at up to NAMED of them, and none on another. Raises as `heat`.
    """
    if not len(places):
        raise BadArgument(reason="there is nothing to draw: no device", fix=WITHOUT)
    with _figure(path, 6.4, 5.2) as figure:
        axes = figure.add_subplot()
        for rank, group in enumerate(dict.fromkeys(groups)):
            here = np.array([one == group for one in groups])
            axes.scatter(
                places[here, 0], places[here, 1], s=26, color=COLOURS[rank % len(COLOURS)], marker=MARKS[rank % len(MARKS)],
                alpha=0.8, linewidths=0, label=_text(group),
            )  # fmt: skip
        axes.set_title("\n".join(filter(None, (_text(title), _text(note)))), loc="left")
        axes.set_aspect("equal", "datalim")
        axes.tick_params(labelbottom=False, labelleft=False, length=0)
        axes.margins(0.12)
        _legend(axes, len(set(groups)))
        if len(places) <= NAMED:
            _name_points(figure, axes, places, names)


def bars(path: Path, panels: Sequence[Panel], *, title: str, unit: str) -> None:
    """Draw shares beside each other, a panel a field. unit: what the numbers are. Raises as `heat`."""
    if not panels:
        raise BadArgument(reason="there is nothing to draw: the cards have no field in common", fix=WITHOUT)
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    with _figure(path, 4.6 * across, 0.5 + 2.3 * down) as figure:
        figure.suptitle(_text(title), x=0.02, ha="left", fontsize=9)
        for rank, panel in enumerate(panels):
            axes = figure.add_subplot(down, across, rank + 1)
            wide = 0.8 / max(1, len(panel.shares))
            for place, (name, shares) in enumerate(panel.shares.items()):
                at = np.arange(len(panel.categories)) + wide * (place + 0.5) - 0.4
                axes.bar(at, shares, width=wide, color=COLOURS[place % len(COLOURS)], label=_text(name))
            _name(axes.xaxis, panel.categories, turned=sum(map(len, panel.categories)) > 40)
            axes.set_title(_text(panel.title), loc="left", fontsize=8)
            axes.set_ylabel(_text(unit))
            axes.set_ylim(bottom=0)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


def levels(
    path: Path, names: Sequence[str], values: Mapping[str, Sequence[float]], *, title: str, unit: str, mark: float | None = None
) -> None:
    """Draw numbers of things in their order as lines from left to right. mark: a level that counts, dashed. Raises as `heat`."""
    if not names:
        raise BadArgument(reason="there is nothing to draw", fix=WITHOUT)
    with _figure(path, _span(len(names), 0.45, 4.0, 13.0), 3.4) as figure:
        axes = figure.add_subplot()
        for rank, (name, series) in enumerate(values.items()):
            axes.plot(np.arange(len(names)), series, marker=MARKS[rank % len(MARKS)], markersize=4, color=COLOURS[rank % len(COLOURS)],
                      label=_text(name))  # fmt: skip
        if mark is not None:
            axes.axhline(mark, color="0.4", linestyle="--", linewidth=0.8)
        _name(axes.xaxis, names, turned=True)
        axes.set_title(_text(title), loc="left")
        axes.set_ylabel(_text(unit))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if len(values) > 1:
            _legend(axes, len(values))


def stacked(
    path: Path, names: Sequence[str], parts: Mapping[str, Sequence[float]], colours: Mapping[str, str], *, title: str, note: str, unit: str
) -> None:  # fmt: skip
    """Draw a bar a name, each made of parts on top of each other, with their figures where there is room. colours: by part.

    note: said under the title. Raises as `heat`.
    """
    if not names or not any(any(of) for of in parts.values()):
        raise BadArgument(reason="there is nothing to draw", fix=WITHOUT)
    with _figure(path, _span(len(names), 0.9, 4.0, 13.0), 3.6) as figure:
        axes = figure.add_subplot()
        high = max(map(sum, zip(*parts.values(), strict=True)))
        below = np.zeros(len(names))
        for name, of in parts.items():
            tall = np.asarray(of, np.float64)
            axes.bar(np.arange(len(names)), tall, bottom=below, width=0.7, color=colours.get(name, MISSING), label=_text(name))
            for at in np.flatnonzero(tall >= 0.05 * high):
                axes.text(at, below[at] + tall[at] / 2, f"{tall[at]:g}", ha="center", va="center", fontsize=7)
            below = below + tall
        _name(axes.xaxis, names)
        axes.set_title("\n".join(filter(None, (_text(title), _text(note)))), loc="left")
        axes.set_ylabel(_text(unit))
        axes.set_ylim(bottom=0)
        _legend(axes, len(parts))


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Give a figure of so many inches to draw on, and write it to its file, which is there whole or not at all."""
    require_format(path)
    with _matplotlib().rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that the font lacks is drawn as a box
        figure = import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
        yield figure
        kind, out = path.suffix.lower()[1:], io.BytesIO()
        figure.savefig(out, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
    files.write_named(path, out.getvalue())


def _matplotlib() -> Any:
    try:
        return import_module("matplotlib")
    except ImportError:
        raise BadArgument(reason="charts need the package matplotlib", fix="pip install 'edgeagent[plot]'") from None


def _span(count: int, each: float, least: float, most: float) -> float:
    """Return how many inches so many rows or columns take."""
    return min(max(1.6 + each * count, least), most)


def _text(said: str) -> str:
    """Return what others wrote as it may stand in a file: control characters made visible. Nothing of it is read as formulas."""
    return visible(said)


def _name(axis: Any, names: Sequence[str], *, turned: bool = False) -> None:
    """Write names along an axis: of too many every second, third, ..., and the start of long ones."""
    step = -(-len(names) // NAMED)
    shown = [n if len(n) <= LONG else n[: LONG - 3] + "..." for n in map(_text, names[::step])]
    axis.set_ticks(range(0, len(names), step), shown, rotation=90 if turned else 0, fontsize=7)
    axis.set_tick_params(length=0)


def _write_cells(axes: Any, image: Any, values: NDArray[np.float64]) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = image.norm(value) < 0.55
            axes.text(column, row, _short(value), ha="center", va="center", fontsize=6, color="white" if dark else "black")


def _short(value: float) -> str:
    """Return a number in five characters or so."""
    return f"{value:.2f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.1e}" if abs(value) < 0.01 else f"{value:.3g}"


def _legend(axes: Any, entries: int) -> None:
    """Put a legend below the panel, where nothing is drawn."""
    long = max(len(label) for label in axes.get_legend_handles_labels()[1]) > LONG
    axes.figure.legend(loc="outside lower center", ncols=min(2 if long else 4, entries), frameon=False, fontsize=7)


def _name_points(figure: Any, axes: Any, places: NDArray[np.float64], names: Sequence[str]) -> None:
    """Write names beside points. One that would lie on a name or a point is left out: its point is near another."""
    figure.draw_without_rendering()
    shown, taken, edge = axes.transData.transform(places), list[tuple[float, float, float]](), axes.get_window_extent().x1
    for (x, y), place, name in zip(shown, places, map(_text, names), strict=True):
        wide = 5.4 * min(len(name), LONG) + 8  # pixels
        left = x + wide > edge
        start = x - wide if left else x
        on_points = (np.abs(shown[:, 1] - y) < 7) & (shown[:, 0] > start - 3) & (shown[:, 0] < start + wide + 3) & (shown[:, 0] != x)
        if on_points.any() or any(abs(y - up) < 11 and start < across + length and across < start + wide for across, up, length in taken):
            continue
        taken.append((start, y, wide))
        side, apart = ("right", -4) if left else ("left", 4)
        axes.annotate(name[:LONG], place, xytext=(apart, -2), textcoords="offset points", fontsize=6, ha=side)
