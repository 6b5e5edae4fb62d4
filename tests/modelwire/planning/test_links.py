"""Named links: what each costs, where that comes from, and what an unknown name is answered."""

from __future__ import annotations

import numpy as np
import pytest

from modelwire.errors import BadArgument
from modelwire.planning import PROFILES, Conditions, Figure, Origin, profile_of


def test_the_named_links_are_there_each_with_its_source() -> None:
    assert list(PROFILES) == ["ethernet", "wifi", "lte", "lte-sleeping", "nb-iot", "lora-sf7"]
    for name, profile in PROFILES.items():
        assert profile_of(name) is profile and profile.name == name and profile.source
        assert not (profile.always_on and profile.joules_per_wakeup)


def test_one_wake_up_of_a_sleeping_lte_modem_costs_as_much_as_2_3_mb() -> None:
    sleeping = profile_of("lte-sleeping")
    assert sleeping.joules_per_wakeup / sleeping.joules_per_byte == pytest.approx(2.3e6, rel=0.03)


def test_what_nobody_measured_says_so() -> None:
    assert "assumed" in profile_of("nb-iot").source and "2012" in profile_of("lte").source


@pytest.mark.parametrize("name", ["", "lte-sleepin", "LTE", "5g", "lte\n"])
def test_an_unknown_link_is_named_and_the_known_ones_are_listed(name: str) -> None:
    with pytest.raises(BadArgument) as caught:
        profile_of(name)
    assert repr(name) in caught.value.message
    assert all(known in caught.value.next_step for known in PROFILES)
    assert ("did you mean lte-sleeping?" in caught.value.message) == (name == "lte-sleepin")


def test_a_kilobyte_is_five_frames_of_lora() -> None:
    lora = profile_of("lora-sf7")
    assert lora.on_air(np.array([0.0, 1.0, 222.0, 223.0, 1000.0])).tolist() == [0, 222, 222, 444, 1110]
    assert lora.bytes_per_s is not None and 1110 / lora.bytes_per_s == pytest.approx(180)  # three minutes at 1 % duty


def test_what_was_measured_stands_before_the_profile_but_a_limit_of_the_link_before_both() -> None:
    measured = Figure(3.0, Origin.MEASURED, "2 runs")
    there = Conditions(profile_of("lte-sleeping"), joules_per_wakeup=measured, joules_per_byte=measured)
    assert there.wakeup is measured and there.byte is measured
    assert Conditions(profile_of("lte-sleeping")).wakeup.origin is Origin.PROFILE
    assert Conditions(profile_of("lte"), joules_per_wakeup=measured).wakeup.value == 0
    lora = profile_of("lora-sf7")
    for uplink in (None, Figure(1e6)):
        rate = Conditions(lora, uplink=uplink).rate
        assert rate is not None and rate.value == lora.bytes_per_s
    slow = Conditions(lora, uplink=measured).rate
    assert slow is measured
