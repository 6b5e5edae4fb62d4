"""What one update costs in each form, and whether to send it now: one cost model for board and centre, as plain arithmetic.

Knows no model, no message, no clock and no disk: figures come in, a table and a choice go out, with the same bits on every machine.
docs/cost-model.md has the formulas.
"""

from __future__ import annotations

from .candidates import Bar, Candidate, Choice, coalesced_bytes
from .conditions import Conditions, Forecast
from .deciding import CostRow, Plan, Terms, decide
from .figures import Average, Figure, Origin
from .links import PROFILES, LinkProfile, profile_of
from .notes import NOTE_MOST, PlanNote, decode, encode
from .presets import mistique_gamma, mistique_keeps, sigmod2020_utility
from .prices import Prices

__all__ = [
    "NOTE_MOST", "PROFILES", "Average", "Bar", "Candidate", "Choice", "Conditions", "CostRow", "Figure", "Forecast", "LinkProfile",
    "Origin", "Plan", "PlanNote", "Prices", "Terms", "coalesced_bytes", "decide", "decode", "encode", "mistique_gamma", "mistique_keeps",
    "profile_of", "sigmod2020_utility",
]  # fmt: skip
