"""The promise of how fast any version comes back: in states that are read, or in time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgecloud.registry import Store
from edgecloud.versions.route import Rates
from modelwire.errors import BadArgument
from modelwire.update.manifest import parse_manifest

_FORM = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?) ?(?P<unit>states?|ms|s|min)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}
FORMS = 'write "2 states" or "200 ms"'
LONGEST = 86400.0


@dataclass(frozen=True, slots=True)
class Promise:
    """Within what any version comes back. One of the two is set."""

    states: float = 0.0  # what may be read for a version, as a multiple of one kept state
    seconds: float = 0.0  # on this machine

    def __str__(self) -> str:
        if self.states:
            return f"{self.states:.6g} state{'' if self.states == 1 else 's'}"
        return f"{self.seconds:.6g} s" if self.seconds >= 1 else f"{1000 * self.seconds:.6g} ms"


def parse_promise(text: str) -> Promise:
    """Return a promise from what a person writes. Raises BadArgument; for less than one state it says that no less is possible."""
    match = _FORM.match(text.strip())
    if match is None:
        raise BadArgument(reason=f"{text[:80]!r} is no promise of recovery", fix=FORMS)
    number, unit = float(match["number"]), match["unit"]
    if unit in _SECONDS:
        seconds = number * _SECONDS[unit]
        if not 0 < seconds <= LONGEST:
            raise BadArgument(reason=f"{text[:80]!r} is no time within which to recover", fix=f"{FORMS}; at most {LONGEST:g} s")
        return Promise(seconds=seconds)
    if not 1 <= number < math.inf:
        raise BadArgument(reason=f"{text[:80]!r} can't be kept: one state at least is read for any version", fix='the least is "1 state"')
    return Promise(states=number)


@dataclass(frozen=True, slots=True)
class Measure:
    """How work is counted for one model under a promise: in states, of which one is what its kept state takes."""

    promise: Promise
    rates: Rates
    state_size: int  # bytes of a kept state of this model
    weights: int

    @property
    def state_seconds(self) -> float:
        """The time to read and prove one kept state: no version comes back in less."""
        return self.rates.proven(self.weights) + self.rates.of_state(self.state_size)

    @property
    def theta(self) -> float:
        """The work that may lie between a version and the state that it is recovered from, in states. 0 where the promise is too short."""
        if self.promise.states:
            return self.promise.states - 1
        return max(0.0, self.promise.seconds / self.state_seconds - 1)

    def work(self, size: int, multiplies: int = 0) -> float:
        """Return the work of one update in states. A promise in states counts bytes, and a recipe's replay as the bytes of that time."""
        if self.promise.states:
            replay = multiplies * self.rates.multiply / self.rates.state_byte
            return (size + replay) / self.state_size
        return self.rates.of_update(size, multiplies) / self.state_seconds


def chosen(work: Sequence[float], fixed: Sequence[bool], starts: Sequence[bool], theta: float) -> list[int]:
    """Return the places on a path whose states are to be kept, rising, so that each version is within theta of one: the two-way rule.

    Before the path lies a state; the last place is the head, whose state is kept anyway and is not among those returned.
    work: of the update that leads to each place, in any unit, theta's. fixed: whether it can't be taken back (a recipe, a snapshot).
    starts: whether the place is a state by itself, which a snapshot is.

    A state is kept before the update by which the gap would grow too wide. Of a gap of work a, all of which inverts, the worst version is
    a / 2 from one of its ends: so 2 * theta may gather. A version with an update behind it that does not invert is reached from the
    left alone. The gap never passes 2 * theta, and no version theta but the result of one update
    that is more than theta by itself and does not invert, whose own state is kept.
    """
    out: list[int] = []
    gathered = behind = 0.0  # since the last state; up to the end of the last update that does not invert
    last, limit = -1, theta * (1 + 1e-9)
    for i, w in enumerate(work):
        too_far = (fixed[i] or starts[i]) and gathered > limit
        after = gathered + w
        end = after if fixed[i] else behind
        if (too_far or (not starts[i] and min(after / 2, after - end) > limit)) and last < i - 1:
            out.append(i - 1)
            last, gathered, after, end = i - 1, 0.0, w, w if fixed[i] else 0.0
        gathered, behind = after, end
        if starts[i]:
            last, gathered, behind = i, 0.0, 0.0
        elif end == after > limit:  # the result of a long replay: nothing behind it leads back to before it
            out.append(i)
            last, gathered, behind = i, 0.0, 0.0
    return [i for i in out if i < len(work) - 1]


def require_possible(store: Store, promise: Promise, rates: Rates) -> None:
    """Raise BadArgument, which says the least possible, when a promise in time is shorter than reading and proving one state takes here.

    Where no state of a base is kept yet, one takes at least what proving its weights does.
    """
    sizes, slowest, least = store.states.largest(), "", 0.0
    for base in store.bases.all():
        weights = parse_manifest(base.manifest).schema.size
        seconds = Measure(promise, rates, max(1, sizes.get(base.commit, 1)), weights).state_seconds
        if seconds > least:
            slowest, least = base.name, seconds
    if promise.seconds < least:
        reason = f"{promise} can't be kept: to read and prove one state of {slowest} takes {1000 * least:.2f} ms on this machine"
        fix = f'the least is "{math.ceil(10000 * least) / 10:g} ms"; edgecloud compact --measure measures again'
        raise BadArgument(reason=reason, fix=fix)


def unkept(store: Store, text: str, rates: Rates) -> BadArgument | None:
    """Return why the promise that is set can't be kept, and the least that can; None where it can.

    It could when it was set: a larger model may have come since, or a slower machine. A row that was damaged may hold none at all.
    """
    try:
        promise = parse_promise(text)
        if promise.seconds:
            require_possible(store, promise, rates)
    except BadArgument as error:
        return error
    return None
