"""What a sample says of all is what the mathematics of drawing without replacement says, and the same seed draws the same."""

from __future__ import annotations

from math import comb

import pytest

from edgecloud.proving import sampling
from modelwire.errors import BadArgument

from .fleets import Fleet


@pytest.mark.parametrize(
    ("total", "sampled"), [(10, 3), (100, 50), (1000, 459), (5, 5), (1, 1), (300, 299), (50, 1), (100, 99), (4200, 459)]
)
def test_the_most_that_may_be_damaged_is_exact(total: int, sampled: int) -> None:
    by_counting = max(d for d in range(total + 1) if 100 * comb(total - d, sampled) > comb(total, sampled))
    assert sampling.most_damaged(total, sampled) == by_counting


def test_it_is_said_in_words() -> None:
    assert sampling.in_words(10, 10) == "all 10 versions were looked at"
    assert sampling.in_words(1_000_000, 919) == (
        "99% sure that at most 4996 of 1000000 versions (0.5 %) are damaged: 919 were drawn and none was"
    )


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("500", 100), ("2%", 2), ("0.5%", 1), ("100%", 100), ("33.3%", 34)])
def test_a_sample_is_a_number_or_a_share(text: str, count: int) -> None:
    assert sampling.size_of(text, 100) == count


@pytest.mark.parametrize("text", ["0", "-1", "", "x", "0%", "101%", "1e3", "5 %", "%", "nan%", "1.2.3%"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="is no number of versions and no share"):
        sampling.size_of(text, 100)


def test_the_same_seed_draws_the_same_versions_and_another_others(fleet: Fleet) -> None:
    lineages = [fleet.lineage(name).id for name in fleet.devices]
    one, total = sampling.drawn(fleet.store, lineages, "10", 7)
    assert one == sampling.drawn(fleet.store, lineages, "10", 7)[0] and len(one) == 10 and total == 39
    assert one != sampling.drawn(fleet.store, lineages, "10", 8)[0]
    assert [v.id for v in one] == sorted(v.id for v in one)
    assert sampling.drawn(fleet.store, [], "10", 7) == ([], 0)
