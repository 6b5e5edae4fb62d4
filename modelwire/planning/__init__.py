"""What one update costs in each form, and whether to send it now: one cost model for board and centre, as plain arithmetic.

Knows no model, no message, no clock and no disk: figures come in, a table and a choice go out, with the same bits on every machine.
docs/cost-model.md has the formulas.
"""

from __future__ import annotations

from .candidates import Bar, Candidate, Choice, coalesced_bytes
from .conditions import Conditions, Forecast
from .costs import RecoverySpeeds, recovery_cost, recovery_s, storage_cost
from .deciding import HYSTERESIS, SAID, CostRow, SendPlan, Terms, decide
from .figures import Average, Figure, Origin, Rate
from .links import PROFILES, LinkProfile, profile_of
from .notes import NOTE_MOST, PlanNote, decode, encode
from .presets import mistique_gamma, mistique_keeps, mistique_read_s, mistique_rerun_s, sigmod2020_utility
from .prices import Prices

__all__ = [
    "HYSTERESIS", "NOTE_MOST", "PROFILES", "SAID", "Average", "Bar", "Candidate", "Choice", "Conditions", "CostRow", "Figure", "Forecast",
    "LinkProfile", "Origin", "PlanNote", "Prices", "Rate", "RecoverySpeeds", "SendPlan", "Terms", "coalesced_bytes", "decide", "decode",
    "encode", "mistique_gamma", "mistique_keeps", "mistique_read_s", "mistique_rerun_s", "profile_of", "recovery_cost", "recovery_s",
    "sigmod2020_utility", "storage_cost",
]  # fmt: skip
