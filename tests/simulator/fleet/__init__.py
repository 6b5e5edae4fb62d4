"""A whole fleet for a week: thousands of devices that train once a day over a scripted link, and a rollout among them.

docs/simulating.md tells more.
"""

from __future__ import annotations

from .links import LINKS, ScriptedLink, link_of
from .script import FleetScript
from .simulated import FleetReport, SimulatedFleet, simulated

__all__ = ["LINKS", "FleetReport", "FleetScript", "ScriptedLink", "SimulatedFleet", "link_of", "simulated"]
