"""The charts behind `--plot`: which rows of an answer are drawn, and how."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecloud.bias import telling, views
from edgecloud.bias.skew import Finding, Judgement
from edgecloud.bias.telling import Told
from edgecloud.charts import drawing, placing
from edgecloud.charts.drawing import Panel
from edgecloud.registry import SqliteStore, VersionRow
from edgecloud.searching.gathering import gather
from edgecloud.versions import changes
from modelwire.cards.card import Card
from modelwire.cards.sketch import Channel
from modelwire.errors import BadArgument

if TYPE_CHECKING:  # names alone: `card` and `show` do without what these rooms load
    from edgecloud.bias.fleet import FleetCards
    from edgecloud.feasibility.matrix import FeasibilityMatrix, MatrixRow
    from edgecloud.probes.comparing import LayerApart
    from edgecloud.searching.cluster import Clustered

PANELS = 8  # of a chart of cards
PANELS_OF_FIELD = 2  # of them, for ways to differ in one field
STEPS = 200  # versions of a heat map
MAPPED = 600  # devices of a map; of more, every second, third, ...
GROUP_MAX = 60  # characters of a cohort in the legend
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
    drawing.heat(
        path, found.values(rows), names, contexts, title=f"{found.model} on {found.probes.name}: models by contexts (rows of the set)",
        unit="accuracy" if found.classes else "mean loss",
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
    """Draw what is biased, each beside all other devices, and return whether there was any: of devices that are alike the first."""
    axes: dict[str, Channel] = {}
    for one in fleet.told:
        axes |= one.axes
    place = {one.device: n for n, one in enumerate(fleet.told)}
    alike: dict[tuple[str, str], list[Finding]] = {}
    for finding in found.biased:
        alike.setdefault((finding.field, finding.event), []).append(finding)
    panels = list[Panel]()
    of_field = Counter[str]()
    for first, *more in alike.values():
        of_field[first.field] += 1
        if of_field[first.field] > PANELS_OF_FIELD or len(panels) == PANELS:
            continue
        title = f"{first.device}{f' and {len(more)} more' if more else ''}: {first.field}, psi {first.psi:.2f}"
        panels.append(_panel(title, first.field, fleet.told, axes, place[first.device], (THE_DEVICE, OTHERS)))
    if panels:
        drawing.bars(path, panels, title=f"{fleet.model}: who sees another world than the fleet", unit="share of samples")
    return bool(panels)


def draw_cohorts(path: Path, store: SqliteStore, found: Clustered, bases: dict[bytes, str]) -> None:
    """Draw where models lie by the angles between their sketches; of several bases the one with the most devices."""
    sizes = Counter[bytes]()
    for cohort in found.cohorts:
        sizes[cohort.base] += len(cohort.members)
    base = max(sorted(sizes), key=lambda one: sizes[one])
    members = [(cohort, *one) for cohort in found.cohorts if cohort.base == base for one in cohort.members]
    gathered = gather(store, base)
    row_of = {id: row for row, id in enumerate(gathered.ids)}
    members = [one for one in members if one[2].id in row_of][:: -(-len(members) // MAPPED)]
    rows = gathered.sketches[[row_of[version.id] for _, _, version in members]].astype(np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
    places, share = placing.places(np.sqrt(np.maximum(0.0, 2 - 2 * np.clip(rows @ rows.T, -1, 1))))
    groups = [f"{cohort.number}: {len(cohort.members)} devices, {cohort.why.partition('; ')[0]}"[:GROUP_MAX] for cohort, _, _ in members]
    note = f"by the angle between their sketches; the plane shows {share:.0%} of it"
    title = f"{found.model}: cohorts of {sizes[base]} devices on {bases[base]}"
    drawing.scatter(path, places, [lineage.device for _, lineage, _ in members], groups, title=title, note=note)


def draw_changes(path: Path, store: SqliteStore, name: str, versions: Sequence[VersionRow], progress: Callable[[int, int], None]) -> None:
    """Draw how far each tensor moved at each of a model's versions, oldest first; the last of them where they are many."""
    found = changes.changes(store, versions[-STEPS:], progress)
    if found is None:
        raise BadArgument(reason=f"none of {name}'s versions can be rebuilt: there is nothing to draw", fix=f"edgecloud log {name}")
    drawing.heat(
        path, found.relative, found.tensors, [f"@{n}" for n in found.versions], title=f"{name}: how far each tensor moved",
        unit="norm of the change over the norm before",
    )  # fmt: skip


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
