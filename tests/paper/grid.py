"""Which kind of update wins where: bandwidth, data, model size, share of the weights that moved and the link's energy, one by one.

Bytes come from what the flow measured, scaled by weights and rows; costs and the choice from the project's own cost model. A kind is
barred where it can't be had: a delta adopts its lattice, an exact update does not, so the grid asks both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelwire.planning import PROFILES, Candidate, Choice, Conditions, Figure, Forecast, Prices, decide

LINKS = ("ethernet", "wifi", "lte", "lte-sleeping", "lora-sf7")
RATES = (1e4, 1e6, 1e8)  # bits/s of the uplink
ROWS = (10, 100, 1000)  # samples that a round trains on
WEIGHTS = (50_000, 3_500_000, 11_700_000)
SHARES = {"head": 0.37, "all": 1.0}  # of the weights that a round moves: MobileNetV2's last layer is 37 % of it
INTERVAL, WINDOW = 3600.0, 600.0  # seconds: between two updates; for which a connection lasts


@dataclass(frozen=True)
class BytesPer:
    """What one unit costs in bytes, measured by the flow on MobileNetV2."""

    snapshot_weight: float
    delta_weight: float  # of weights that a round moves
    exact_weight: float
    recipe_row: float
    whole_weight: float = 4.0  # float32, as it lies in a file


@dataclass(frozen=True)
class Cell:
    """One place of the grid."""

    link: str
    bits_per_s: float
    rows: int
    weights: int
    share: str
    lossless: bool  # the device keeps the very weights that it trained: no lattice
    sizes: Mapping[str, float]  # bytes by kind
    smallest: str
    choice: str  # the planner's
    waits: bool
    seconds: float  # that the chosen kind takes on the link; 0 for one that waits
    total: float  # J of the choice, in euros


def cells(per: BytesPer) -> Iterator[Cell]:
    """Yield every place of the grid, in order."""
    for lossless in (False, True):
        for link in LINKS:
            for rate in RATES:
                for weights in WEIGHTS:
                    for share in SHARES:
                        for rows in ROWS:
                            yield _cell(per, link, rate, rows, weights, share, lossless)


def _cell(per: BytesPer, link: str, rate: float, rows: int, weights: int, share: str, lossless: bool) -> Cell:
    moved = weights * SHARES[share]
    sizes = {"exact": per.exact_weight * moved} if lossless else {"delta": per.delta_weight * moved + 250}
    sizes["snapshot"] = (per.whole_weight if lossless else per.snapshot_weight) * weights
    if share == "head":
        sizes["recipe"] = per.recipe_row * rows
    candidates = [Candidate(Choice[name.upper()], size, alone=size if name != "snapshot" else None, full=sizes["snapshot"],
                            recover_s=_recover_s(name, size, weights, rows)) for name, size in sizes.items()]  # fmt: skip
    said = Conditions(
        link=PROFILES[link], uplink=Figure(rate / 8), window_left_s=Figure(WINDOW), recipes=True, trainer_known=True,
        forecast=Forecast(Figure(INTERVAL)),
    )  # fmt: skip
    plan = decide(candidates, said, Prices())
    form = plan.form.name.lower() if plan.form is not None else "none"
    waits = plan.choice is Choice.WAIT and plan.form is not None
    chosen = plan.rows[plan.chosen] if plan.chosen is not None else None
    speed = said.rate.value if said.rate is not None else rate / 8
    seconds = 0.0 if waits or chosen is None else chosen.bytes / speed
    total = plan.rows[-1].total if waits else chosen.total if chosen is not None else 0.0
    return Cell(link, rate, rows, weights, share, lossless, sizes, min(sizes, key=lambda k: sizes[k]), form, waits, seconds, total)


def _recover_s(kind: str, size: float, weights: int, rows: int) -> float:
    """Return seconds: a kept state read and proven, and the update applied; a recipe's head is trained once more."""
    proven = 4.0 * weights / 400e6  # hashed and read at 400 MB/s
    return proven + (rows * 12 * 1280 * 1000 / 2e9 if kind == "recipe" else size / 50e6)
