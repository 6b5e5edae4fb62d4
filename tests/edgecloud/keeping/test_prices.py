"""Policies and prices as people write them; what is none is named."""

from __future__ import annotations

import pytest

from edgecloud.keeping.prices import StorePolicy, parse_policy, parse_prices
from edgecloud.keeping.promise import parse_promise
from edgecloud.keeping.retention import parse_keep
from modelwire.errors import BadArgument
from modelwire.planning import Prices

TODAY = StorePolicy(parse_promise("2 states"), parse_keep("all"))


def test_what_is_not_said_is_as_today() -> None:
    assert str(parse_policy("recover_within=200 ms, keep=daily + last 50", TODAY)) == "200 ms, keep daily + last 50"
    assert parse_policy("keep=all", StorePolicy(parse_promise("3 states"), parse_keep("daily"))) == StorePolicy(
        parse_promise("3 states"), parse_keep("all")
    )
    assert parse_prices([]) == Prices()
    found = parse_prices(["storage=0.023/GB-month", "sent = 0.4 / MB", "energy=0.3/kWh", "recovery=3.6/h"])
    assert (found.per_byte_month, found.per_byte) == (0.023 / 1e9, 0.4 / 1e6)
    assert (found.per_joule, found.per_second) == (0.3 / 3.6e6, 0.001) and found.per_accuracy == Prices().per_accuracy


@pytest.mark.parametrize("text", ["", "keep", "keep=", "hold=all", "recover_within=soon", "keep=all, keep=all", "recover_within=0 ms", ","])
def test_what_is_no_policy_is_named(text: str) -> None:
    with pytest.raises(BadArgument):
        parse_policy(text, TODAY)


@pytest.mark.parametrize("text", [
    "", "storage", "storage=0.1", "storage=-0.1/GB-month", "storage=nan/GB-month", "storage=inf/GB-month", "storage=1e999/GB-month",
    "storage=x/GB-month", "storage=1/MB", "gold=1/g", "per_byte=1/MB", "sent=1e30/kB",
])  # fmt: skip
def test_what_is_no_price_is_named(text: str) -> None:
    with pytest.raises(BadArgument):
        parse_prices([text])


def test_a_price_is_given_once() -> None:
    with pytest.raises(BadArgument, match="twice"):
        parse_prices(["sent=1/MB", "sent=2/MB"])
