"""What this board knows of itself and its link when it decides, as the cost model takes it: each figure with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from edgeagent.settings.tree import ModelSettings, UpdateSettings
from modelwire.planning import Conditions, Figure, Forecast, Origin, Prices, profile_of

from .figures import ENCODE, GAIN, INTERVAL, PER_BYTE, STEP, WAKEUP, WATTS, Figures, KnownFigure

# Of a Raspberry Pi 4 that trains on one core, above idle: about 20 s at 2 W for the last blocks of a MobileNetV2.
ASSUMED_WATTS = Figure(2.0, Origin.DEFAULT, "a Raspberry Pi 4 that trains on one core; edgeagent calibrate measures this board's")
ASSUMED_GAIN = Figure(0.01, Origin.DEFAULT, "a round is taken to gain one point at least")
_ORIGINS = {"measured": Origin.MEASURED, "calibrated": Origin.CALIBRATED}


@dataclass(frozen=True, slots=True)
class Basis:
    """Whatever decisions of one model stand on beside the round itself."""

    profile: str  # of the link, by name
    prices: Prices
    figures: Figures  # of the model
    link: Figures  # of the board and its link
    update: UpdateSettings
    every: float  # seconds between two rounds, as the settings say


def basis_of(settings: ModelSettings, figures: Figures, link: Figures) -> Basis:
    """Return what decisions about a model stand on. figures: of the model; link: of the board and its link. Raises BadArgument."""
    p = settings.prices
    prices = Prices(p.per_byte, p.per_joule, p.per_byte_month, p.per_second, p.per_accuracy, p.per_hour_waiting)
    return Basis(settings.profile, prices, figures, link, settings.update, settings.train.every)


def longest_wait(settings: ModelSettings) -> float:
    """Return for how many seconds at most an update of a model may wait for others; 0: none waits."""
    waits = settings.update.planned and not profile_of(settings.profile).always_on
    return settings.update.wait_most if waits else 0.0


def figure_of(known: KnownFigure | None, otherwise: Figure | None = None) -> Figure | None:
    """Return a measured figure as the cost model takes it; `otherwise` where there is none."""
    if known is None:
        return otherwise
    origin, _, what = known.source.partition(": ")
    detail = f"{known.count} {what.removesuffix('s') if known.count == 1 else what}" if origin == "measured" else what
    return Figure(known.value, _ORIGINS.get(origin, Origin.MEASURED), detail or known.source)


def conditions(
    basis: Basis, *, mode: str, waiting: int, oldest: float, recipes: bool, trainer_known: bool, waits: bool = True
) -> Conditions:
    """Return what a decision goes by. mode: of the round; waiting: updates that would go, this one included; oldest: seconds of the first.

    waits: whether waiting is a choice here.
    """
    interval = figure_of(basis.figures.get(INTERVAL), Figure(max(basis.every, 1e-3), Origin.SETTINGS, "train.every"))
    assert interval is not None
    forecast = Forecast(interval, waiting, max(0.0, oldest), basis.update.wait_most) if waits else None
    return Conditions(
        profile_of(basis.profile), figure_of(basis.link.uplink()), None, None, figure_of(basis.figures.get(ENCODE)),
        figure_of(basis.figures.get(STEP + mode)), figure_of(basis.link.get(WATTS), ASSUMED_WATTS), figure_of(basis.link.get(WAKEUP)),
        figure_of(basis.link.get(PER_BYTE)), recipes=recipes, trainer_known=trainer_known, forecast=forecast,
    )  # fmt: skip


def gain_of(basis: Basis) -> Figure:
    """Return what a round gains in accuracy, of 1: one point at least. Few held-out samples see less than there is."""
    known = figure_of(basis.figures.get(GAIN))
    return known if known is not None and known.value > ASSUMED_GAIN.value else ASSUMED_GAIN
