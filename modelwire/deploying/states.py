"""The states of a device with a variant, and who may take it from one to the next. docs/protocol.md, "Desired and report"."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType


class State(str, Enum):
    """How far a device has come; the values are what a `report` says."""

    OFFERED = "offered"  # a desired was taken; nothing was fetched
    FETCHING = "fetching"
    STAGED = "staged"  # the file lies in the passive slot, proven; it waits for the end of a round, a window or the host's consent
    PROBING = "probing"  # it runs on the board's own held-out samples; served is what was served
    SOAKING = "soaking"  # it is served, and what was served before is kept in the passive slot
    CONFIRMED = "confirmed"
    REVERTED = "reverted"  # it was tried and is not served; what was served before is
    REFUSED = "refused"  # it was never tried
    TIMED_OUT = "timed out"  # its time was over before it was tried


class Who(str, Enum):
    """Who may take a transition."""

    DEVICE = "device"  # by what it measures
    HOST = "host"  # the program or person beside the agent: consent, or a veto
    DIRECTOR = "director"  # a newer desired


FINAL = frozenset({State.CONFIRMED, State.REVERTED, State.REFUSED, State.TIMED_OUT})
FAILED = frozenset({State.REVERTED})  # what counts against a rollout: neither a refusal nor a silence does
_D, _H, _R = Who.DEVICE, Who.HOST, Who.DIRECTOR
# From, to: who. A newer desired ends what is under way: before it is served as refused, after it as reverted or confirmed.
TRANSITIONS = MappingProxyType({
    (State.OFFERED, State.FETCHING): frozenset({_D}),
    (State.OFFERED, State.STAGED): frozenset({_D}),  # its bytes are here already
    (State.OFFERED, State.REFUSED): frozenset({_D, _H, _R}),
    (State.OFFERED, State.TIMED_OUT): frozenset({_D}),
    (State.FETCHING, State.STAGED): frozenset({_D}),
    (State.FETCHING, State.REFUSED): frozenset({_D, _H, _R}),
    (State.FETCHING, State.TIMED_OUT): frozenset({_D}),
    (State.STAGED, State.PROBING): frozenset({_D, _H}),
    (State.STAGED, State.REFUSED): frozenset({_D, _H, _R}),
    (State.STAGED, State.TIMED_OUT): frozenset({_D}),
    (State.PROBING, State.SOAKING): frozenset({_D}),
    (State.PROBING, State.REVERTED): frozenset({_D, _H, _R}),
    (State.SOAKING, State.CONFIRMED): frozenset({_D}),
    (State.SOAKING, State.REVERTED): frozenset({_D, _H, _R}),
})  # fmt: skip


def allowed(before: State, after: State, who: Who) -> bool:
    """Return whether `who` may take a device from one state to another."""
    return who in TRANSITIONS.get((before, after), frozenset())
