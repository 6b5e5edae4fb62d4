"""A schedule: a small fleet, and every single thing that befalls it, as a list that can be written down, replayed and cut down."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

# What befalls the N-th message, with how often among the troubles.
MESSAGES = {"lost": 5, "twice": 3, "late": 6, "breaks": 4, "flipped": 1, "old": 2}
TIMES = {"partition": 3, "broker": 2, "ask": 2}  # what befalls somebody at a second
ENDS = {"kill": 3, "power": 6, "power-file": 8}  # what ends somebody at the N-th write after its start; the last counts none of SQLite
BOARDS = 2  # in a schedule, at the most
CENTRE = -1  # of `who`; boards count from 0
LASTS = 240.0  # seconds in which most of a schedule happens


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that happens."""

    kind: str
    at: int  # which message of all that were sent, which write of who it befalls, or which second
    who: int = CENTRE
    much: float = 0.0  # seconds that a message is late, or that a link or the broker is gone

    def __str__(self) -> str:
        return f"{self.kind}:{self.at}:{self.who}:{self.much:g}"

    @classmethod
    def read(cls, text: str) -> Trouble:
        """Return what `str` has written. Raises ValueError."""
        kind, at, who, much = text.split(":")
        if kind not in {*MESSAGES, *TIMES, *ENDS}:
            raise ValueError(f"there is no trouble of the kind {kind!r}")
        return cls(kind, int(at), int(who), float(much))


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run: who is there, and what befalls whom."""

    seed: int  # of all that is not said here: keys, delays, when rounds are due, what a power cut leaves
    boards: int = 2
    rounds: int = 3  # of each board
    troubles: tuple[Trouble, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"{self.seed}", f"{self.boards}x{self.rounds}", *map(str, self.troubles)])

    @classmethod
    def read(cls, text: str) -> Schedule:
        """Return what `str` has written. Raises ValueError."""
        seed, size, *troubles = text.split()
        boards, rounds = map(int, size.split("x"))
        out = cls(int(seed), boards, rounds, tuple(map(Trouble.read, troubles)))
        if boards < 1 or rounds < 1 or any(not CENTRE <= one.who < boards for one in out.troubles):
            raise ValueError("it names a board that is not there")
        return out


def scheduled(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    rng = Random(f"schedule {seed}")
    boards, rounds = rng.choice((1, BOARDS, BOARDS)), rng.choice((1, 2, 3))
    kinds = [kind for kinds in (MESSAGES, TIMES, ENDS) for kind, weight in kinds.items() for _ in range(weight)]
    messages = 12 * boards * (rounds + 1)
    troubles = [_trouble(rng.choice(kinds), boards, messages, rng) for _ in range(rng.randrange(2, 13))]
    return Schedule(seed, boards, rounds, tuple(sorted(troubles, key=lambda one: (one.kind, one.at))))


def _trouble(kind: str, boards: int, messages: int, rng: Random) -> Trouble:
    if kind in MESSAGES:
        return Trouble(kind, rng.randrange(1, messages), CENTRE, round(rng.uniform(1, 90), 1) if kind == "late" else 0.0)
    who = CENTRE if kind == "broker" or (kind != "ask" and rng.random() < 0.45) else rng.randrange(boards)
    if kind in TIMES:
        return Trouble(kind, int(rng.uniform(0, LASTS)), who, round(rng.uniform(1, 120), 1))
    # A start takes tens of writes, a round a hundred; a tenth of them is none of SQLite.
    return Trouble(kind, int(10 ** rng.uniform(0, 1.8 if kind == "power-file" else 2.8)), who)
