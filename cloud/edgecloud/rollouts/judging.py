"""How a rollout stands by what its devices have reported, and what its gates say of that. Looks only where something has changed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from edgecloud.registry import AssignmentRow, RolloutRow, RolloutTally, SqliteStore
from edgecloud.registry.rollout_rows import WAITING
from modelwire.deploying.plans import RolloutGates
from modelwire.deploying.states import State

from . import gates
from .gates import GateRuling, PhaseCounts, Ruling
from .pairing import DeviceScore

SCORES_MAX = 5_000  # devices of a phase whose samples are judged: the first ones, whose order is chance; more would not tell more


@dataclass(frozen=True, slots=True)
class RolloutStanding:
    """How many devices of a rollout stand where."""

    phase: PhaseCounts  # of the phase that it is in
    whole: PhaseCounts
    offered: int  # that were offered the variant ever
    served: int  # that serve it
    mark: tuple[RolloutTally, ...]  # another one whenever something has changed

    @classmethod
    def of(cls, store: SqliteStore, row: RolloutRow) -> RolloutStanding:
        tallies = tuple(store.rollouts.tallies(row.id))
        silent = any(one.phase == row.phase and one.state in (WAITING, State.OFFERED.value) for one in tallies)
        frozen = store.rollout_steps.frozen_count(row.id, row.phase) if silent else 0  # since they were taken in: they are not waited for
        here, whole = _counts((one for one in tallies if one.phase == row.phase), frozen), _counts(tallies, frozen)
        offered = sum(one.devices for one in tallies if one.state != WAITING)
        served = sum(one.devices for one in tallies if not one.back and one.state in (State.SOAKING.value, State.CONFIRMED.value))
        return cls(here, whole, offered, served, tallies)


class PhaseJudge:
    """Rules on phases, and remembers the last ruling on each."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[object, GateRuling]] = {}

    def halting(self, store: SqliteStore, row: RolloutRow, stand: RolloutStanding, plan: RolloutGates) -> GateRuling | None:
        """Return the gate that halts a rollout now, if one does."""
        for counts in (stand.phase, stand.whole):
            if (ruling := gates.errors(counts, plan)).ruling is Ruling.HALT:
                return ruling
        ruling = self._quality(store, row, stand, plan, ended=False)
        return ruling if ruling.ruling is Ruling.HALT else None

    def at_end(self, store: SqliteStore, row: RolloutRow, stand: RolloutStanding, plan: RolloutGates) -> GateRuling:
        """Return what the quality gate says at the end of a phase."""
        return self._quality(store, row, stand, plan, ended=True)

    def _quality(self, store: SqliteStore, row: RolloutRow, stand: RolloutStanding, plan: RolloutGates, *, ended: bool) -> GateRuling:
        mark = (row.phase, stand.mark, ended)
        held = self._last.get(row.id)
        if held is not None and held[0] == mark:
            return held[1]
        rows = store.rollout_steps.scores(row.id, row.phase, SCORES_MAX)
        ruling = gates.quality(list(scores(rows)), min(stand.phase.assigned, SCORES_MAX), plan, ended=ended)
        self._last[row.id] = mark, ruling
        return ruling


def scores(rows: Iterable[AssignmentRow]) -> Iterable[DeviceScore]:
    """Give what devices found, of those that can have found it."""
    for one in rows:
        if one.accuracy and one.better + one.worse <= one.rows:
            yield DeviceScore(one.device, one.rows, one.better, one.worse)
        elif not one.accuracy and one.before is not None and one.after is not None and math.isfinite(one.before + one.after):
            yield DeviceScore(one.device, one.rows, accuracy=False, before=one.before, after=one.after)


def _counts(tallies: Iterable[RolloutTally], frozen: int) -> PhaseCounts:
    """Return tallies as the gates count them. Who is on the way back tells nothing new of the variant."""
    states, codes, assigned = Counter[State](), Counter[str](), 0
    for one in tallies:
        assigned += one.devices
        if one.state == WAITING or one.back:
            continue
        states[State(one.state)] += one.devices
        if one.state == State.REVERTED.value:
            codes[one.code] += one.devices
    if frozen:
        states[State.REFUSED] += frozen
    return PhaseCounts(assigned, states, codes)
