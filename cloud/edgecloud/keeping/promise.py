"""The promise of how fast any version comes back: in states that are read, or in time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from modelwire.errors import BadArgument

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
