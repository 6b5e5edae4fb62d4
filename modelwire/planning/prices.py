"""What bytes, joules, storage, recovery, accuracy and waiting are worth, in one currency."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from modelwire.errors import BadArgument

MOST = 1e12  # of a price


@dataclass(frozen=True, slots=True)
class Prices:
    """The weights of the cost model, in one currency; the defaults are euros, and settings, not facts: docs/cost-model.md, "Prices".

    Only their ratios count. Raises BadArgument, naming the price, for one that is negative, not finite or above 1e12.
    """

    per_byte: float = 1e-7  # w_b, sent: 0.10 EUR/MB; cellular contracts for machines ask 0.05 to 1
    per_joule: float = 5e-5  # w_e: about 12 EUR for a lithium cell of 240 kJ; from the mains it is 600 times less
    per_byte_month: float = 2.3e-11  # w_s: 0.023 a GB and month, an object store's list price
    per_second: float = 1e-5  # w_r, of recovering a version: a server's core at 0.036 an hour
    per_accuracy: float = 1.0  # w_q, a version: what all of accuracy, 1.0, would be worth; a point is a hundredth
    per_hour_waiting: float = 1e-5  # an update and hour that the centre goes without it

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not 0 <= value <= MOST:
                raise BadArgument(reason=f"the price {field.name} can't be {value!r}", fix="give a finite price of 0 or more, up to 1e12")
