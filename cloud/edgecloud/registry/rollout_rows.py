"""Rows of deployments: variants, rollouts, what was decided about them, what each device is to run and what it says of that."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A rollout's state. What is sealed about it are its plan and decisions; this is how far the director has come with them.
DRAFT, APPROVED, RUNNING, SOAKING, PAUSED = "draft", "approved", "running", "soaking", "paused"
HALTED, ROLLING_BACK, ROLLED_BACK, DONE, ABORTED = "halted", "rolling back", "rolled back", "done", "aborted"
STATES = (DRAFT, APPROVED, RUNNING, SOAKING, PAUSED, HALTED, ROLLING_BACK, ROLLED_BACK, DONE, ABORTED)
ENDED = frozenset({ROLLED_BACK, DONE, ABORTED})  # nothing that a device says changes it any more
_REASON = re.compile(r"(?:(?P<word>[a-z ]{1,16}):)?.*?(?P<heeded> \(decisions: [0-9]{1,19}\))?\Z", re.DOTALL)  # as a director writes it
WAITING = "waiting"  # an assignment's state before the device was offered anything; those after it are the device's own


@dataclass(frozen=True, slots=True)
class VariantRow:
    """A base that may be deployed, by a statement of the root key. One base may have several: the highest number counts."""

    commit: bytes  # of the base
    model: str
    number: int  # rises for each model
    name: str
    statement: bytes  # as the root key sealed it
    at: int  # when it was kept


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout."""

    id: int
    rollout: bytes  # 16 bytes, of the plan
    name: str
    model: str
    variant: bytes  # commit
    plan: bytes  # as the command key sealed it; empty once a device that it names was erased
    state: str  # one of STATES
    phase: int  # from 0 on
    reason: str  # why it is in this state, for people
    created_at: int
    phase_at: int  # when the phase began
    changed_at: int


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """What was decided about a rollout."""

    rollout_id: int
    number: int  # rises within the rollout
    statement: bytes  # as the command key sealed it
    at: int


@dataclass(frozen=True, slots=True)
class AssignmentRow:
    """A device's model in a rollout, and how far it says that it has come. Figures are of the variant's trial, never of the way back."""

    rollout_id: int
    lineage: int
    device: str
    model: str
    phase: int  # in which it was taken in
    state: str = WAITING  # else of modelwire.deploying.states.State
    number: int = 0  # of the newest desired; 0: none
    code: str = ""  # of modelwire.deploying.reports.Code
    reason: str = ""
    before: float | None = None
    after: float | None = None
    accuracy: bool = True  # whether the two are accuracies, else losses
    rows: int = 0  # held-out samples that both were judged on
    better: int = 0
    worse: int = 0
    micros: int = 0  # microseconds of an inference
    micros_before: int = 0
    learned: str = ""
    bytes: int = 0  # fetched
    offered_at: int = 0  # when the newest desired was sealed; 0: it was not
    changed_at: int = 0
    back: bool = False  # the newest desired names another base than the rollout's: the way back


@dataclass(frozen=True, slots=True)
class RolloutTally:
    """How many of a rollout's devices stand alike, and what they measured together."""

    phase: int
    state: str
    code: str
    back: bool
    devices: int
    rows: int
    better: int
    worse: int


@dataclass(frozen=True, slots=True)
class RolloutCandidate:
    """A device's model that may be taken into a rollout."""

    lineage: int
    device: str
    base: bytes  # commit of the base that its head is on
    runtime: str = ""  # its key, as its last hello said it; empty: none was said


@dataclass(frozen=True, slots=True)
class DesiredRow:
    """What a device's model is to run, as the director sealed it."""

    lineage: int
    number: int  # rises for each device and model
    rollout_id: int
    variant: bytes  # commit
    record: bytes  # as it goes to the device
    expiry: int  # Unix seconds
    at: int
    ended: int = 0  # when its device came to an end with it, or with a newer one; 0: it did not
    id: int = 0  # rises over all of them


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What a device said last in one state of one desired."""

    lineage: int
    number: int
    state: str
    record: bytes  # as the device signed it
    at: int


@dataclass(frozen=True, slots=True)
class FrozenRow:
    """A device that is left out of rollouts."""

    device: str
    model: str  # empty: all of its models
    reason: str
    by: str
    at: int


def wordless(reason: str) -> str:
    """Return a rollout's reason without its words, as where they name an erased device: who moved it and what was heeded stay.

    Without these a director would heed all decisions again, from the first one on.
    """
    found = _REASON.match(reason)
    assert found is not None  # it takes any text
    word, heeded = found["word"], found["heeded"] or ""
    return (f"{word}: what it said went with a device that was erased" if word else "") + heeded
