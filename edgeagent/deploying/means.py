"""What the machine goes by: what it remembers of a desired, what the board has, and what it has to bring a variant to a model's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from modelwire.deploying.reports import DeviceFigures
from modelwire.deploying.states import State
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.errors import DiskUnwritable, StateBusy
from modelwire.wire.parts import Part
from modelwire.wire.records import Desired, Transfer

from .desired_store import TakenDesired

OF_BOARD = (DiskUnwritable, StateBusy)  # errors that say nothing of a variant: what was to be done is done later


class BasePlace(Enum):
    """Where a base lies on this board."""

    NOWHERE = "nowhere"
    STAGED = "staged"  # proven, beside what is served
    SOAKING = "soaking"  # served, and not the head's yet
    SERVED = "served"  # the head's base
    PASSIVE = "passive"  # it was served before, and is the way back


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """What the board has now. 0: it does not say."""

    runtime: str  # the key of the runtime that trains the model now; empty: none was tried
    memory: int  # bytes that could be had without swapping
    disk: int  # bytes free where models lie
    room: int = 0  # bytes that a slot of the model takes beside its file


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a variant goes no further: one word of Code, and a sentence."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """How far fetching has come."""

    here: bool = False  # all of it, proven
    bytes: int = 0
    tries: int = 0
    stop: Stop | None = None  # it goes no further, for good


@dataclass(frozen=True, slots=True)
class Probed:
    """What the board's own held-out samples say of a variant."""

    learned: str = ""  # kept, carried, anew: what is served of it
    before: float | None = None  # accuracy, or mean loss where there are no classes; None: not measured
    after: float | None = None
    figures: DeviceFigures = field(default_factory=DeviceFigures)
    stop: Stop | None = None  # it is not to be served
    lost: bool = False  # the process was ended from outside, and said nothing: it may be tried again
    note: str = ""  # what there is to say though it goes on


@dataclass(frozen=True, slots=True)
class DeployTarget:
    """Whose desired it is, whom its seals lead back to, and what tells the time."""

    fleet: str
    device: str
    model: str
    fleet_id: bytes
    root: Callable[[], bytes]  # the public key that vouches for bases now
    newest: Callable[[], int]  # Unix seconds: the newest of the centre's clock
    wall: Callable[[], float]  # Unix seconds of this board, for what is written down and said


class DesiredMemory(Protocol):
    """What is remembered of one model's newest desired: one row. DesiredStore is one."""

    def current(self) -> TakenDesired | None: ...
    def newest(self) -> int: ...  # the highest number that was taken, or passed by
    def pass_by(self, number: int) -> None: ...  # nothing comes of this number
    def take(self, number: int, record: bytes, *, now: int, time: int) -> None: ...  # offered; in the place of any other
    def move(self, state: State, now: int, *, code: str = "", reason: str = "") -> None: ...
    def blame(self, code: str, reason: str) -> None: ...  # it is to be reverted, and this is why
    def fetched(self, tries: int, size: int) -> None: ...
    def probes(self, count: int) -> None: ...
    def measured(self, learned: str, before: float | None, after: float | None, figures: DeviceFigures) -> None: ...
    def soaked(self, seconds: float) -> None: ...
    def reported(self, number: int, state: State) -> None: ...


class DeployMeans(Protocol):
    """What can be done about a variant on this board. Each call may be made again after a kill: it goes on, or has nothing to do."""

    def where(self, commit: bytes) -> BasePlace: ...
    def serves(self) -> bytes: ...  # commit of the base that is served, soaking or not
    def passive(self) -> bytes: ...  # commit of the way back; empty: none
    def facts(self) -> BoardFacts: ...
    def fetch(self, desired: Desired, terms: DeployTerms, variant: Variant, now: float) -> Fetched: ...  # begins, or goes on
    def linked(self, now: float) -> None: ...  # the centre has welcomed this model
    def unlinked(self) -> None: ...
    def described(self, transfer: Transfer, now: float) -> bool: ...  # false for another file's; may raise WireError
    def arrived(self, part: Part, size: int, now: float) -> bool: ...  # likewise
    def due(self) -> float: ...  # monotonic seconds at which fetching goes on; infinite while it waits for an answer
    def stage(self, desired: Desired, variant: Variant) -> None: ...  # lays down what was fetched; raises ModelWireError
    def probe(self, commit: bytes, terms: DeployTerms) -> None: ...  # begins, in a process of its own
    def probed(self) -> Probed | None: ...  # None: it is under way
    def cease(self) -> None: ...  # no more is fetched or probed for now; what is here stays
    def forget_file(self) -> None: ...  # what came of a file goes
    def drop(self) -> None: ...  # what was staged or fetched goes
    def soak(self, commit: bytes, learned: str) -> None: ...  # serves what is staged, or the way back
    def revert(self, reason: str) -> None: ...
    def confirm(self, now: int) -> None: ...  # raises NotWelcome, TooLarge
