"""What a person writes of policies and prices to compare: "recover_within=2 states, keep=last 50", "storage=0.023/GB-month"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelwire.errors import BadArgument
from modelwire.planning import Prices

from .promise import Promise, parse_promise
from .retention import Keep, parse_keep

# Name: the field of Prices, and how many of its units one of each written unit is.
_UNITS: dict[str, tuple[str, dict[str, float]]] = {
    "storage": ("per_byte_month", {"GB-month": 1e9, "TB-month": 1e12, "MB-month": 1e6}),
    "sent": ("per_byte", {"MB": 1e6, "GB": 1e9, "kB": 1e3}),
    "energy": ("per_joule", {"J": 1.0, "kJ": 1e3, "Wh": 3600.0, "kWh": 3.6e6}),
    "recovery": ("per_second", {"s": 1.0, "min": 60.0, "h": 3600.0}),
}
PRICE_FORMS = "; ".join(f"{name}=NUMBER/{next(iter(units))}" for name, (_, units) in _UNITS.items())
POLICY_FORM = '--policy "recover_within=2 states, keep=last 50"'


@dataclass(frozen=True, slots=True)
class StorePolicy:
    """How fast any version comes back, and which stay recoverable."""

    promise: Promise
    keep: Keep

    def __str__(self) -> str:
        return f"{self.promise}, keep {self.keep}"


def parse_policy(text: str, default: StorePolicy) -> StorePolicy:
    """Return a policy from what a person writes; what is not said is as in `default`. Raises BadArgument."""
    said: dict[str, str] = {}
    for part in text.split(","):
        name, given, value = (word.strip() for word in part.partition("="))
        if name not in ("recover_within", "keep") or not given:
            raise BadArgument(reason=f"{part.strip()[:60]!r} is no part of a policy: recover_within and keep are", fix=POLICY_FORM)
        if name in said:
            raise BadArgument(reason=f"{name} is given twice in {text[:60]!r}", fix="for two policies, give --policy twice")
        said[name] = value
    return StorePolicy(
        parse_promise(said["recover_within"]) if "recover_within" in said else default.promise,
        parse_keep(said["keep"]) if "keep" in said else default.keep,
    )


def parse_prices(texts: Iterable[str], prices: Prices | None = None) -> Prices:
    """Return prices from what a person writes, the usual ones for all that is not named.

    Raises BadArgument for an unknown name or unit, and for a price that is negative, no number, or not finite.
    """
    prices = prices or Prices()
    seen: set[str] = set()
    for text in texts:
        name, given, rest = (word.strip() for word in text.partition("="))
        if name not in _UNITS or not given:
            raise BadArgument(reason=f"{text[:60]!r} is no price: {', '.join(_UNITS)} have one", fix=PRICE_FORMS)
        if name in seen:
            raise BadArgument(reason=f"the price of {name} is given twice", fix="give each price once")
        seen.add(name)
        field, units = _UNITS[name]
        number, slash, unit = (word.strip() for word in rest.partition("/"))
        if not slash or unit not in units:
            raise BadArgument(reason=f"{text[:60]!r} names no unit of {name}: {', '.join(units)}", fix=PRICE_FORMS)
        try:
            value = float(number)
        except ValueError:
            raise BadArgument(reason=f"{number[:40]!r} is no number", fix=PRICE_FORMS) from None
        if not math.isfinite(value) or value < 0:
            raise BadArgument(reason=f"the price of {name} can't be {number[:40]}", fix="give a finite price of 0 or more")
        try:
            prices = replace(prices, **{field: value / units[unit]})
        except BadArgument as error:  # it names the field
            raise BadArgument(reason=f"the price of {name} can't be {number[:40]}/{unit}", fix=error.next_step) from None
    return prices
