"""What a simulated fleet is to do: how many devices for how many days over which link, and from which seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelwire.errors import BadArgument
from modelwire.tflite.file import write_weights
from modelwire.update.manifest import manifest_of
from tests.edgecloud.device import Base

from .links import DAY, ScriptedLink, link_of

DIGITS = Path(__file__).parents[2] / "models" / "digits.tflite"
DEVICES_MOST, DAYS_MOST = 100_000, 366
DENSITY_MOST = 0.05  # a week of such rounds, coalesced, still goes in one message
NOISE = 0.01  # standard deviation of what a round's training adds to each weight
MOVED = 1e-3  # and of what the variant's weights are apart from those of the first base

__all__ = ["DIGITS", "FleetScript", "first_base", "variant_of"]


@dataclass(frozen=True, slots=True)
class FleetScript:
    """One run. Raises BadArgument for a number out of range or a link that is none."""

    devices: int = 30
    days: int = 2
    link: str = "lte"
    seed: int = 1
    density: float = 0.003  # of a round: share of the weights that it changes
    rollout: bool = True  # whether a variant is rolled out in it
    failing: float = 0.005  # share of the devices on which the variant fails when it is tried

    def __post_init__(self) -> None:
        for name, most in (("devices", DEVICES_MOST), ("days", DAYS_MOST)):
            if not 1 <= getattr(self, name) <= most:
                raise BadArgument(reason=f"{getattr(self, name)} {name} can't be simulated", fix=f"give 1 to {most}")
        if not 0 < self.density <= DENSITY_MOST or not 0 <= self.failing <= 1:
            raise BadArgument(reason="a share is out of range", fix=f"give a density above 0, up to {DENSITY_MOST:g}")
        link_of(self.link)

    @property
    def scripted_link(self) -> ScriptedLink:
        return link_of(self.link)

    @property
    def end(self) -> float:
        """Seconds after which nobody trains any more."""
        return self.days * DAY

    @property
    def updates(self) -> int:
        return self.devices * self.days

    @property
    def soak(self) -> int:
        """Seconds that the variant is served before it is confirmed."""
        return int(min(6 * 3600.0, self.end / 20))

    def __str__(self) -> str:
        return f"{self.devices} devices for {self.days} days over {link_of(self.link).profile.name}, seed {self.seed}"


def first_base() -> Base:
    """Return the base that all devices begin with: digits, 50,826 weights."""
    return Base.of(DIGITS)


def variant_of(base: Base) -> Base:
    """Return a base of the same tensors and units with other weights: what a device has learned is kept on it, integer for integer."""
    rng = np.random.default_rng(7)
    moved = [w + (rng.standard_normal(len(w)) * MOVED).astype(np.float32) for w in base.weights]
    made = Base(write_weights(base.parsed, base.manifest.schema.shaped(moved)))
    assert manifest_of(made.file).exponents == base.manifest.exponents, "its units are others: what was learned could not be kept"
    return made
