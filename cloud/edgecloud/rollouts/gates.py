"""The gates of a rollout: whether a phase may be left for the next one, must wait, is paused for a person, or halts all of it.

Pure: what the devices of a phase have reported goes in, a ruling with its reason in words comes out. A halt needs more than a pause: a
pause keeps the next phase from a variant of which too little is known, a halt says that it is known to be worse, or to fail.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from modelwire.deploying.plans import WHOLE, RolloutGates
from modelwire.deploying.reports import Code
from modelwire.deploying.states import State

from . import pairing
from .pairing import MANY, DeviceScore, Paired

FAULTLESS = frozenset({Code.VETO, Code.SUPERSEDED, Code.PASSIVE})  # reverted, and not for anything that the variant did
_JUDGED_LEAST = 3  # devices of a phase of five or more that must have judged it: one of them alone passes nothing
_ROWS_SHOWN = 1_000_000


class Ruling(str, Enum):
    """What a gate says."""

    PASS = "pass"
    WAIT = "wait"
    PAUSE = "pause"
    HALT = "halt"


class GateName(str, Enum):
    """Which gate says it; the first word of the reason that a rollout is kept with."""

    QUALITY = "quality"
    ERRORS = "errors"
    SUCCESS = "success"
    PATIENCE = "patience"


@dataclass(frozen=True, slots=True)
class GateRuling:
    """What a gate says, and why."""

    gate: GateName
    ruling: Ruling
    reason: str
    paired: Paired = pairing.NOTHING  # of the quality gate


@dataclass(frozen=True, slots=True)
class PhaseCounts:
    """How far the devices of a phase have come."""

    assigned: int
    states: Mapping[State, int] = field(default_factory=dict)  # of those that have reported
    codes: Mapping[str, int] = field(default_factory=dict)  # of those that were reverted

    @property
    def served(self) -> int:
        """Devices that serve the variant now."""
        return self._in(State.SOAKING) + self.confirmed

    @property
    def confirmed(self) -> int:
        return self._in(State.CONFIRMED)

    @property
    def never(self) -> int:
        """Devices that never tried it: they refused it, or were away until its time was over. They count for nothing."""
        return self._in(State.REFUSED) + self._in(State.TIMED_OUT)

    @property
    def failed(self) -> int:
        """Devices that tried it and took it back for what it did; not those whose host said no, or that something newer reached."""
        return self._in(State.REVERTED) - sum(self.codes.get(code, 0) for code in FAULTLESS)

    @property
    def tried(self) -> int:
        return self.served + self.failed

    def _in(self, state: State) -> int:
        return self.states.get(state, 0)


def errors(counts: PhaseCounts, gates: RolloutGates) -> GateRuling:
    """Return whether so many devices failed that all is halted: by percent, and never fewer than a minimum.

    Of a phase that has fewer devices than that minimum, one is enough. Refused, offline and late ones are no failures.
    """
    least = gates.error_least if counts.assigned >= gates.error_least else 1
    failed, tried = counts.failed, counts.tried
    said = f"{failed} of {tried} devices that tried it failed"
    if failed:
        kinds = sorted(((n, code) for code, n in counts.codes.items() if n and code not in FAULTLESS), key=lambda one: (-one[0], one[1]))
        said += " (" + ", ".join(f"{code or 'no code'} {n}" for n, code in kinds[:8]) + ")" if kinds else ""
    if failed >= least and failed * WHOLE > gates.error * tried:
        return GateRuling(GateName.ERRORS, Ruling.HALT, f"{said}; at most {percent(gates.error)} may")
    return GateRuling(GateName.ERRORS, Ruling.PASS, said)


def success(counts: PhaseCounts, gates: RolloutGates, *, confirmed: bool, waited: int) -> GateRuling:
    """Return whether enough of a phase serves the variant, or with `confirmed` has kept it through its soak.

    waited: seconds; beyond the plan's patience it is paused. Of devices that never try it none is waited for,
    but a phase of which most do not is no test.
    """
    of, have = counts.assigned - counts.never, counts.confirmed if confirmed else counts.served
    verb = "have confirmed it" if confirmed else "serve it"
    said = f"{have} of {of} devices {verb}"
    if counts.never * 2 > counts.assigned:
        reason = f"{counts.never} of {counts.assigned} devices refused it or were away: too few are left to try it"
        return GateRuling(GateName.SUCCESS, Ruling.PAUSE, reason)
    if have and have * WHOLE >= gates.success * of:
        return GateRuling(GateName.SUCCESS, Ruling.PASS, said)
    ended = counts.failed + sum(counts.codes.get(code, 0) for code in FAULTLESS)
    if (of - ended) * WHOLE < gates.success * of or not of - ended:
        reason = f"{said} and {ended} took it back: {percent(gates.success)} can't be reached any more"
        return GateRuling(GateName.SUCCESS, Ruling.PAUSE, reason)
    if gates.patience and waited > gates.patience:
        reason = f"{said} after {waited} s, {percent(gates.success)} must; the plan's patience is {gates.patience} s"
        return GateRuling(GateName.PATIENCE, Ruling.PAUSE, reason)
    return GateRuling(GateName.SUCCESS, Ruling.WAIT, f"{said}, {percent(gates.success)} must")


def quality(scores: Sequence[DeviceScore], size: int, gates: RolloutGates, *, ended: bool) -> GateRuling:
    """Return what the held-out samples of a phase's devices say of the variant. size: devices of the phase; ended: at its end.

    Before the end it says halt or wait. A halt: the fall is sure, at any number of looks, and more than the margin. At the end: pass when
    the 95 % lower bound of the change is above the margin, else pause. A margin of all is not judged.
    """
    if gates.margin >= WHOLE:
        return GateRuling(GateName.QUALITY, Ruling.PASS, "not judged: the plan lets it lose all")
    kinds = [[one for one in scores if one.accuracy is kind] for kind in (True, False)]
    rulings = [_judged(one, size, gates, ended) for one in kinds if any(s.rows > 0 for s in one)]
    if not rulings:
        if not ended:
            return GateRuling(GateName.QUALITY, Ruling.WAIT, "no device has judged it yet")
        reason = "no device had held-out samples to judge it by: keep some on the boards, or make a plan whose margin is all"
        return GateRuling(GateName.QUALITY, Ruling.PAUSE, reason)
    worst = [Ruling.HALT, Ruling.PAUSE, Ruling.WAIT, Ruling.PASS]
    return min(rulings, key=lambda one: worst.index(one.ruling))


def _judged(scores: Sequence[DeviceScore], size: int, gates: RolloutGates, ended: bool) -> GateRuling:
    margin, sure = gates.margin / WHOLE, math.log(gates.surely)
    found = pairing.paired(scores, size, sure=sure)
    said = _said(found, scores[0].accuracy)
    enough = found.devices >= (_JUDGED_LEAST if ended else MANY) or size < MANY  # the first few may be alike by chance
    if enough and found.log_evidence >= sure and found.fall < -margin:
        reason = f"{said}; chance alone makes such a fall once in {_once_in(found.log_evidence)} such phases, however often one looks"
        return GateRuling(GateName.QUALITY, Ruling.HALT, reason, found)
    if not ended:
        return GateRuling(GateName.QUALITY, Ruling.WAIT, said, found)
    if size >= MANY and found.devices < _JUDGED_LEAST:
        reason = f"{said}: of {size} devices at least {_JUDGED_LEAST} must have judged it"
        return GateRuling(GateName.QUALITY, Ruling.PAUSE, reason, found)
    if found.low > -margin:
        reason = f"{said}, with 95 % at least {_signed(found.low)}; the margin is {_signed(-margin)}"
        return GateRuling(GateName.QUALITY, Ruling.PASS, reason, found)
    reason = f"{said}, but it may as well be {_signed(found.low)}, beyond the margin of {_signed(-margin)}: {_would_tell(found, margin)}"
    return GateRuling(GateName.QUALITY, Ruling.PAUSE, reason, found)


def _said(found: Paired, accuracy: bool) -> str:
    if accuracy:
        of = f"on {found.rows} rows of {found.devices} devices {found.better} are gained and {found.worse} lost"
        return f"{of}, {_signed(found.change)} of accuracy"
    return f"on {found.devices} devices the loss changed for the better by {_signed(found.change)} of itself ({found.worse} are worse off)"


def _would_tell(found: Paired, margin: float) -> str:
    """Return in words what would end the doubt: how many more rows or devices, were they as these are."""
    room = found.change + margin
    if room <= 0:
        return f"the change itself is beyond it, and not yet sure; {found.worst} fell most"
    times = ((found.change - found.low) / room) ** 2
    if found.by_devices:
        more = max(1, math.ceil(found.devices * times) - found.devices)
        return f"the devices differ, and about {more} more would tell; {found.worst} fell most"
    more = max(1, math.ceil(found.rows * times) - found.rows)
    return f"about {min(more, _ROWS_SHOWN)} more rows would tell"


def _once_in(log: float) -> str:
    return f"{math.floor(math.exp(log)):,}" if log < 27 else f"10^{math.floor(log / math.log(10))}"


def percent(share: int) -> str:
    """Return ten-thousandths as percent: 2.5 %."""
    return f"{share / 100:g} %"


def _signed(share: float) -> str:
    return f"{share * 100:+.1f} points"
