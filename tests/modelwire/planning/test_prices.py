"""A price that is none is refused by its name."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from modelwire.errors import BadArgument
from modelwire.planning import Prices


@pytest.mark.parametrize("name", [field.name for field in fields(Prices)])
@pytest.mark.parametrize("value", [-1, -1e-300, math.nan, math.inf, -math.inf, 1e13, True, "1", None])
def test_a_price_that_is_none_is_refused_by_its_name(name: str, value: float) -> None:
    with pytest.raises(BadArgument, match=name) as caught:
        Prices(**{name: value})
    assert "0 or more" in caught.value.next_step


def test_prices_of_0_are_prices() -> None:
    assert Prices(0, 0, 0, 0, 0, 0).per_byte == 0
