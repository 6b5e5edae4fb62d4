"""What a `report` says beyond its fields, in its `more`: figures for the gates of a rollout. A device's word about itself, bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelwire.errors import Malformed
from modelwire.wire import cbor

from .sealed import Reader

KEY = "figures"  # in `more` of a report
ROWS_MAX = 1_000_000
CODE_MAX = 64


@dataclass(frozen=True, slots=True)
class DeviceFigures:
    """What a device measured. `before` and `after` of the report are accuracies, or losses where there is none (`accuracy` false)."""

    accuracy: bool = True  # whether before and after are accuracies: higher is better; else mean losses
    rows: int = 0  # held-out samples that both models were judged on
    better: int = 0  # of them, those that only the variant gets right
    worse: int = 0  # of them, those that only the model before gets right
    micros: int = 0  # median microseconds of one inference of the variant; 0: not measured
    micros_before: int = 0
    code: str = ""  # which kind of error it ended with, one of CODES; empty: none
    learned: str = ""  # what became of what was learned: kept, carried, anew
    serves: bytes = b""  # commit of the base that is served now
    passive: bytes = b""  # commit of the base in the passive slot; empty: none

    def as_map(self) -> dict[str, cbor.Value]:
        """Return what stands in `more` of the report."""
        values: dict[str, cbor.Value] = {
            "accuracy": self.accuracy, "rows": self.rows, "better": self.better, "worse": self.worse, "micros": self.micros,
            "micros_before": self.micros_before, "code": self.code, "learned": self.learned, "serves": self.serves, "passive": self.passive,
        }  # fmt: skip
        return {KEY: values}


class Code:
    """Why a device did not go on, one word each; `reason` of the report has the sentence."""

    # refused: before it was tried
    VARIANT = "variant"  # its statement is none, or another's
    SCHEMA = "schema"  # the model's weights have another shape, and the samples do not fit
    RUNTIME = "runtime"  # this board's runtime is not the one that it needs
    MEMORY = "memory"  # the board has not the RAM
    DISK = "disk"  # the board has not the room
    FROZEN = "frozen"  # this board is left out
    VETO = "veto"  # its host said no
    GONE = "gone"  # the file's server says that there is none: 4xx
    BUDGET = "budget"  # tries or bytes were spent
    FILE = "file"  # what was fetched is another file
    PASSIVE = "passive"  # the way back is not in the passive slot any more
    SUPERSEDED = "superseded"  # a newer desired came
    # reverted: it was tried
    CRASH = "crash"
    LOAD = "load"  # the runtime does not take it
    NOT_FINITE = "not-finite"
    SLOW = "slow"
    TOO_MUCH_MEMORY = "too-much-memory"
    WORSE = "worse"
    WORDS = (
        VARIANT, SCHEMA, RUNTIME, MEMORY, DISK, FROZEN, VETO, GONE, BUDGET, FILE, PASSIVE, SUPERSEDED, CRASH, LOAD, NOT_FINITE, SLOW,
        TOO_MUCH_MEMORY, WORSE,
    )  # fmt: skip


def figures_in(more: Mapping[str, cbor.Value]) -> DeviceFigures | None:
    """Return the figures of a report; None when it has none. Raises Malformed for what can't be."""
    if KEY not in more:
        return None
    values = more[KEY]
    if not isinstance(values, dict):
        raise Malformed(what=KEY, reason="they are no map")
    take = Reader(values, KEY)
    figures = DeviceFigures(
        take.yes("accuracy"), take.whole("rows", 0, ROWS_MAX), take.whole("better", 0, ROWS_MAX), take.whole("worse", 0, ROWS_MAX),
        take.whole("micros", 0, 1 << 40), take.whole("micros_before", 0, 1 << 40),
        take.text("code", CODE_MAX), take.text("learned", CODE_MAX),
        take.exactly("serves", 0, 32), take.exactly("passive", 0, 32),
    )  # fmt: skip
    take.end()
    if figures.better + figures.worse > figures.rows:
        raise Malformed(what=KEY, reason="more samples changed than were judged")
    return figures
