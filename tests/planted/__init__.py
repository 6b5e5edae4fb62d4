"""A planted fleet: cars that read digits in six worlds, so that who is alike, who is biased and whose model fits is known beforehand.

`fleet(folder, Plan(...))` gives a registry that real training went into by the update path. `cards(Plan(...))` gives the cards alone.
"""

from __future__ import annotations

from .agreement import rand_index
from .fleet import Plan, PlantedFleet, cards, fleet, probes
from .worlds import BIASES, WORLDS, PlantedWorld, SeenRows, seen

__all__ = ["BIASES", "WORLDS", "Plan", "PlantedFleet", "PlantedWorld", "SeenRows", "cards", "fleet", "probes", "rand_index", "seen"]
