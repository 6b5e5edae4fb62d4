"""What a board says of a variant: reports, and which parts of its file are wanted. They wait here until they were handed to the link."""

from __future__ import annotations

from dataclasses import replace

from modelwire.deploying.states import State
from modelwire.wire.records import Desired, Report, Wanted

from .desired_store import TakenDesired
from .means import DeployTarget

DEPLOYS_NOTHING = "this release deploys nothing"  # that comes without terms
TEXT_MAX = 500  # characters of a reason
WAITING = 64  # records that wait at most: older ones say what newer ones say better
_SLOTS = {State.STAGED: "passive", State.PROBING: "passive", State.SOAKING: "active", State.CONFIRMED: "active"}


class DeployNews:
    """What waits to be said of one model."""

    def __init__(self, target: DeployTarget) -> None:
        self._target = target
        self._waiting: list[Report | Wanted] = []

    @property
    def all(self) -> tuple[Report | Wanted, ...]:
        return tuple(self._waiting)

    def drop(self, record: Report | Wanted) -> None:
        """Forget a record that was handed to the link."""
        self._waiting.remove(record)

    def unlinked(self) -> None:
        """Forget what was asked for: it is asked for again."""
        self._waiting = [record for record in self._waiting if isinstance(record, Report)]

    def report(self, row: TakenDesired, desired: Desired, *, serves: bytes, passive: bytes, newest: bool = False) -> None:
        """Say how far a desired is. serves, passive: commits of the base that is served and of the way back.

        newest: what still waits of the same desired goes: who goes back says where it is, in few bytes, and not by which states.
        """
        if newest:
            self._waiting = [one for one in self._waiting if not (isinstance(one, Report) and one.number == desired.number)]
        figures = replace(row.figures, code=row.code, serves=serves, passive=passive)
        reason = "".join(c if c.isprintable() else "?" for c in row.reason)[:TEXT_MAX]
        t = self._target
        self._add(Report(
            t.fleet, t.device, t.model, int(t.wall()), desired.number, desired.variant, row.state.value, desired.phase,
            _SLOTS.get(row.state, ""), row.size, row.before, row.after, reason, more=figures.as_map(),
        ))  # fmt: skip

    def pass_by(self, desired: Desired) -> None:
        """Say that nothing comes of a desired without terms."""
        t, refused = self._target, State.REFUSED.value
        self._add(Report(
            t.fleet, t.device, t.model, int(t.wall()), desired.number, desired.variant, refused, desired.phase, "", 0, None, None,
            DEPLOYS_NOTHING,
        ))  # fmt: skip

    def want(self, file: bytes, have: bytes) -> None:
        """Ask for the parts of a file that are not here. file: SHA-256; have: bitmap of those that are."""
        t = self._target
        self._add(Wanted(t.fleet, t.device, t.model, int(t.wall()), file, have))

    def _add(self, record: Report | Wanted) -> None:
        self._waiting.append(record)
        del self._waiting[:-WAITING]
