"""Whom a phase goes to: every device once, names first, the same wherever it is asked, never more than the phase says."""

from __future__ import annotations

import argparse
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud.commands.deploying import asking
from edgecloud.rollouts import choosing, planning, power
from edgecloud.rollouts.planning import duration
from modelwire.deploying.plans import WHOLE, RolloutGates, RolloutPhase
from modelwire.errors import BadArgument
from modelwire.text import is_plain
from tests.edgecloud import rollouts

GROUPS = st.sets(st.integers(0, 400), min_size=1, max_size=80).map(lambda of: [f"pi-{n}" for n in sorted(of)])
PHASES = st.lists(
    st.builds(
        RolloutPhase, st.lists(st.sampled_from([f"pi-{n}" for n in range(20)]), max_size=4).map(tuple), st.integers(0, 100),
        st.integers(0, WHOLE),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@given(PHASES, GROUPS, st.binary(min_size=16, max_size=16), st.randoms(use_true_random=False))
def test_each_device_is_in_one_phase_whatever_order_the_group_comes_in(
    phases: list[RolloutPhase], group: list[str], id: bytes, rng: object
) -> None:
    found = choosing.by_phase(phases, id, group)
    flat = [name for of in found for name in of]
    assert len(flat) == len(set(flat)) and set(flat) <= set(group)
    shuffled = group[:]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choosing.by_phase(phases, id, shuffled) == found
    have = 0
    for phase, of in zip(phases, found, strict=True):
        have += len(of)
        assert have >= choosing.target(phase, len(group))  # it reaches what it says
        assert all(name in flat[:have] for name in phase.devices if name in group)
        by_chance = [name for name in of if name not in phase.devices]
        assert not by_chance or have == choosing.target(phase, len(group))  # and no further by chance


def test_canaries_differ_between_rollouts() -> None:
    group = [f"pi-{n}" for n in range(200)]
    first, second = (choosing.by_phase(choosing.USUAL, bytes([n]) * 16, group)[0] for n in (1, 2))
    assert len(first) == len(second) == choosing.CANARIES and set(first) != set(second)


@given(st.integers(1, 3000))
def test_the_usual_phases_add_somebody_each_and_end_with_all(count: int) -> None:
    group = [f"pi-{n}" for n in range(count)]
    phases = choosing.usual_for(choosing.USUAL, count)
    if count <= choosing.CANARIES:
        with pytest.raises(BadArgument, match="as large as its group"):
            choosing.require_sound(phases, group, bytes(16))
    else:
        assert sum(map(len, choosing.require_sound(phases, group, bytes(16)))) == count


def test_a_plan_has_one_id_for_one_text_and_another_for_any_other() -> None:
    plan = planning.identified(rollouts.plan(rollout=b""))
    assert planning.identified(rollouts.plan(rollout=b"", at=77, made_by="berta")).rollout == plan.rollout
    assert planning.identified(rollouts.plan(rollout=b"", soak=61)).rollout != plan.rollout and len(plan.rollout) == 16


@given(st.text(max_size=20))
def test_no_text_ends_a_reader_otherwise_than_with_words(text: str) -> None:
    readers = (
        asking.phase_type, asking.percent_type(), asking.window_type, asking.fact_type, asking.names_type, asking.url_type,
        asking.plain_type(64), asking.seconds_type("--soak"),
    )  # fmt: skip
    for read in readers:
        with contextlib.suppress(argparse.ArgumentTypeError):
            read(text)


@given(st.sampled_from(["5", "25%", "2.5%", "all", "pi-1,pi-2", "pi-1,5", "pi-1,all"]), st.sampled_from(["", ":0s", ":48h", ":7d"]))
def test_a_phase_is_read_as_it_is_said(words: str, soak: str) -> None:
    phase = asking.phase_type(words + soak)
    assert phase.devices == tuple(one for one in words.split(",") if one.startswith("pi-"))
    assert phase.count == (5 if "5" in words.split(",") else 0)
    assert phase.share == {"25%": 2500, "2.5%": 250}.get(words, WHOLE if "all" in words else 0)
    assert phase.soak == {"": 0, ":0s": 0, ":48h": 172_800, ":7d": 604_800}[soak] and is_plain(choosing.said(phase))


@given(st.integers(1, 200_000), st.integers(1, 3000))
def test_more_samples_tell_more(rows: int, margin: int) -> None:
    gates = RolloutGates(margin=margin)
    less, more = power.power(rows, 1, 1, gates), power.power(2 * rows, 1, 1, gates)
    assert 0 <= less.passes <= more.passes <= 1
    if less.halted is not None:
        assert more.halted is not None and gates.margin < more.halted <= less.halted + 10  # counts are whole: a step of a tenth of a point
    assert power.passing(less.enough, margin) >= power.SHARE > power.passing(less.enough - 1, margin)
    assert power.tellable(rows, margin) <= power.tellable(2 * rows, margin)


def test_nothing_is_told_by_no_samples_and_no_margin_is_ever_shown_to_be_none() -> None:
    assert power.power(0, 0, 5, RolloutGates()).halted is None and not power.tellable(0, 200)
    assert power.enough(0) == 0 and power.passing(10**9, 0) == 0 and not power.tellable(10**9, 0)


def test_times_are_said_in_their_unit() -> None:
    assert [duration(s) for s in (5, 600, 86_400, 4 * 86_400 + 3 * 3600)] == ["5 s", "10 min", "24 h", "4 d 3 h"]
