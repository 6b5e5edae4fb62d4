"""The agent's own decisions for a fleet in memory: which form goes, and whether it waits. Equal questions are asked once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from edgeagent.planning.choosing import RoundPlanner, note_of
from edgeagent.planning.conditions import Basis
from edgeagent.planning.figures import INTERVAL, Figures, KnownFigure
from edgeagent.planning.plans import HeldUpdates, KeptPlan, Plans
from edgeagent.settings.tree import UpdateSettings
from modelwire.planning import Prices
from modelwire.update.sections import Kind

from .links import DAY, ScriptedLink

ROUND = 32  # bytes to which sizes are rounded up, and
MINUTES = 600.0  # seconds to which ages are: so that devices that stand alike ask alike
KEPT = 20_000  # answers


class LinkFigures(Figures):
    """What a board has measured of itself and its link, where no database is."""

    def __init__(self, rate: float, interval: float) -> None:
        self._rate = KnownFigure(rate, 10, "measured: receipts", 0)
        self._interval = KnownFigure(interval, 10, "measured: rounds", 0)

    def get(self, name: str) -> KnownFigure | None:
        return self._interval if name == INTERVAL else None

    def uplink(self) -> KnownFigure | None:
        return self._rate


class HeldPlans(Plans):
    """What waits on one board, and what was decided last, where no database is."""

    def __init__(self, held: HeldUpdates, last: KeptPlan | None) -> None:
        self._held, self._last = held, last

    def held(self) -> HeldUpdates:
        return self._held

    def last(self) -> KeptPlan | None:
        return self._last


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of a round's update."""

    kind: Kind  # in which it goes, now or later
    wait: float  # seconds that it waits for others at most; 0: it goes
    note: bytes  # for the extension
    plan: KeptPlan  # to be told when the next one is decided

    @property
    def choice(self) -> str:
        return self.plan.choice


class FleetPlanner:
    """The decisions of all boards of a fleet: `RoundPlanner`, which asks `modelwire.planning`."""

    def __init__(self, link: ScriptedLink, weights: int, density: float) -> None:
        figures = LinkFigures(link.rate, DAY)
        self._basis = Basis(link.profile.name, Prices(), figures, figures, UpdateSettings(), DAY)
        self._weights, self._density = weights, density
        self._known: OrderedDict[tuple[object, ...], Decided] = OrderedDict()
        self._alike: dict[tuple[object, ...], KeptPlan] = {}  # of one form and density, which is all that the next decision asks of it
        self.asked = 0

    def decide(self, sizes: dict[Kind, int], fixed: int, held: tuple[int, int, float], last: KeptPlan | None) -> Decided:
        """Return what becomes of an update.

        sizes: its bytes in each kind; fixed: those of them that say no weights; held: updates that wait, their bytes, and for how many
        seconds the first of them has; last: what was decided before.
        """
        count, size, age = held[0], _up(held[1], ROUND), _up(held[2], MINUTES)
        forms = {kind: (_up(one, ROUND), fixed) for kind, one in sizes.items()}
        key = (*((kind, one) for kind, (one, _) in forms.items()), count, size, age, last.document.get("note") if last else None)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        self.asked += 1
        now = 1e9  # only differences count
        most = self._basis.update.wait_most
        waits = HeldUpdates(count, int(size), count, int(now - age), int(now - age + most)) if count else HeldUpdates()
        planner = RoundPlanner("digits", self._basis, HeldPlans(waits, last), "head", False, self._weights, self._density)
        weighed = planner.decide(forms, now)
        kind = weighed.kind if weighed.kind is not None else Kind.DELTA
        kept = KeptPlan(0, 0, weighed.choice, weighed.hold, {"note": weighed.note.hex()})
        note = note_of(kept)
        alike = self._alike.setdefault((note.form, note.density_ppm) if note is not None else (), kept)
        plan = KeptPlan(0, 0, weighed.choice, weighed.hold, alike.document)
        decided = Decided(kind, max(0.0, weighed.hold - now) if weighed.hold else 0.0, weighed.note, plan)
        self._known[key] = decided
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return decided


def _up(value: float, step: float) -> int:
    return int(-(-value // step) * step)
