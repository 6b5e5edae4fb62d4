"""The charts behind `--plot`: which rows of an answer are drawn, and how."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from edgecloud.bias import telling, views
from edgecloud.bias.fleet import FleetCards
from edgecloud.bias.skew import Judgement
from edgecloud.bias.telling import Told
from edgecloud.charts import drawing
from edgecloud.charts.drawing import Panel
from edgecloud.feasibility.matrix import FeasibilityMatrix, MatrixRow
from edgecloud.probes.comparing import LayerApart
from modelwire.cards.card import Card
from modelwire.cards.sketch import Channel

PANELS = 8  # fields that one chart of cards shows
THE_DEVICE, OTHERS = "the device", "all others"


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    """Take --plot. what: is drawn."""
    parser.add_argument("--plot", metavar="FILE", help=f"draw {what}: FILE.svg or FILE.png; needs matplotlib")


def plot_of(args: argparse.Namespace) -> Path | None:
    """Return the file to draw to, None where none is asked for. Raises BadArgument, before there is work, where it can't be drawn."""
    if args.plot is None:
        return None
    path = Path(args.plot)
    drawing.require_format(path)
    return path


def draw_matrix(path: Path, found: FeasibilityMatrix, rows: Sequence[MatrixRow], names: Sequence[str]) -> None:
    """Draw scores of models by contexts. rows: in their order, with their names."""
    contexts = [f"{context or 'all rows'} ({n})" for context, n in zip(found.contexts, found.sizes, strict=True)]
    ends = (0.0, 1.0) if found.classes else (None, None)
    drawing.heat(
        path, found.values(rows), names, contexts, title=f"{found.model} on {found.probes.name}: models by contexts (rows of the set)",
        unit="accuracy" if found.classes else "mean loss", low=ends[0], high=ends[1],
    )  # fmt: skip


def draw_layers(path: Path, layers: Sequence[LayerApart], first: str, second: str, threshold: float) -> None:
    """Draw how far what each layer gives is apart."""
    far = [one.relative if math.isfinite(one.relative) else math.nan for one in layers]
    drawing.levels(
        path, [one.name for one in layers], {"apart": far}, title=f"{first} against {second}: where they part",
        unit="difference over the norm", mark=threshold,
    )  # fmt: skip


def draw_cards(path: Path, card: Card, name: str, other: Card, against: str, fields: Sequence[str]) -> None:
    """Draw two cards beside each other. fields: that both have, the farthest apart first."""
    axes: dict[str, Channel] = {}
    told = [telling.told_by(of, [one], axes) for of, one in ((name, card), (against, other))]
    panels = [_panel(field, field, told, axes, 0, (name, against)) for field in fields[:PANELS]]
    drawing.bars(path, panels, title=f"{name} against {against}", unit="share of samples")


def draw_biased(path: Path, fleet: FleetCards, found: Judgement) -> bool:
    """Draw the first of what is biased, each beside all other devices; return whether there was any."""
    axes: dict[str, Channel] = {}
    for one in fleet.told:
        axes |= one.axes
    place = {one.device: n for n, one in enumerate(fleet.told)}
    panels = [
        _panel(f"{one.device}: {one.field}, psi {one.psi:.2f}", one.field, fleet.told, axes, place[one.device], (THE_DEVICE, OTHERS))
        for one in found.biased[:PANELS]
    ]  # fmt: skip
    if panels:
        drawing.bars(path, panels, title=f"{fleet.model}: who sees another world than the fleet", unit="share of samples")
    return bool(panels)


def _panel(title: str, field: str, told: Sequence[Told], axes: dict[str, Channel], device: int, names: tuple[str, str]) -> Panel:
    """Return the shares of a field's cells in one device's samples and in those of all others that tell of it."""
    view = views.view_of(field, told, axes)
    assert view is not None  # two tell of it at least
    mine = view.counts[view.devices.index(device)]
    others = view.counts.sum(0) - mine
    cells = view.cells
    if field.startswith("channels."):
        cells = ("less", *(f"{one.removeprefix('below ')}.." for one in view.events))
    shares = [(of / max(1.0, float(of.sum()))).tolist() for of in (mine, others)]
    return Panel(title, cells, dict(zip(names, shares, strict=True)))
