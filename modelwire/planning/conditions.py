"""What a board knows of itself, its link and what is to come when it decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from .figures import Figure, Origin, in_range
from .links import PROFILES, LinkProfile


@dataclass(frozen=True, slots=True)
class Forecast:
    """What waits and what is to come. Without one in the Conditions, waiting is no choice. All times in seconds.

    Updates are taken to come at random, at this mean interval, and the connection to come and go at random.
    """

    interval_s: Figure  # between two updates, the mean
    waiting: int = 1  # updates that would go now, this one included
    oldest_s: float = 0.0  # how long the oldest of them has waited
    wait_most_s: float = 86400.0  # no update waits longer while there is a connection
    window_s: Figure | None = None  # how long a connection lasts, the mean; None: it is there whenever it is wanted
    gap_s: Figure | None = None  # how long there is none after that, the mean

    def __post_init__(self) -> None:
        in_range("the number of waiting updates", self.waiting)
        in_range("how long the oldest update has waited", self.oldest_s)
        in_range("wait_most", self.wait_most_s)


_ONCE, _A_YEAR = Figure(1.0), Figure(12.0)


@dataclass(frozen=True, slots=True)
class Conditions:
    """The figures that a decision goes by, each with its source. None: not known, and then it forbids nothing."""

    link: LinkProfile = PROFILES["ethernet"]
    uplink: Figure | None = None  # bytes/s that reach the centre
    window_left_s: Figure | None = None  # seconds until the connection ends
    free_memory: Figure | None = None  # bytes
    encode_rate: Figure | None = None  # weights/s; None: encoding takes no time
    step_s: Figure | None = None  # seconds a training step
    watts: Figure | None = None  # what the board takes while it works, above idle
    joules_per_wakeup: Figure | None = None  # None: as the link's profile says
    joules_per_byte: Figure | None = None
    recoveries: Figure = _ONCE  # how often this version will be recovered
    months: Figure = _A_YEAR  # how long it is kept
    promise_s: Figure | None = None  # the centre's promise: any version within so many seconds
    awake: bool = False  # the radio is up for another reason: sending now costs no wake-up
    recipes: bool = False  # update.recipes: features may leave the board
    trainer_known: bool = False  # the centre has this board's version of the trainer
    forecast: Forecast | None = None

    @property
    def wakeup(self) -> Figure:
        """Joules of one wake-up; none on a link that is always on."""
        if self.link.always_on:
            return Figure(0.0, Origin.PROFILE, f"{self.link.name} is always on")
        if self.joules_per_wakeup is not None:
            return self.joules_per_wakeup
        return Figure(self.link.joules_per_wakeup, Origin.PROFILE, f"{self.link.name} ({self.link.source})")

    @property
    def byte(self) -> Figure:
        """Joules of one byte sent."""
        if self.joules_per_byte is not None:
            return self.joules_per_byte
        return Figure(self.link.joules_per_byte, Origin.PROFILE, f"{self.link.name} ({self.link.source})")

    @property
    def rate(self) -> Figure | None:
        """Bytes/s: what was measured, and never more than the link may carry."""
        most = self.link.bytes_per_s
        if most is not None and (self.uplink is None or self.uplink.value > most):
            return Figure(most, Origin.PROFILE, f"{self.link.name} ({self.link.source})")
        return self.uplink

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Yield every figure that is known, by name, in one order: those of the link first, as they count."""
        yield "joules_per_wakeup", self.wakeup
        yield "joules_per_byte", self.byte
        if self.rate is not None:
            yield "uplink", self.rate
        for owner in (self, self.forecast):
            for field in fields(owner) if owner is not None else ():
                value = getattr(owner, field.name)
                if isinstance(value, Figure) and field.name not in ("joules_per_wakeup", "joules_per_byte", "uplink"):
                    yield field.name, value
