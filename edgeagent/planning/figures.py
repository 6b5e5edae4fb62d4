"""Figures that were measured on this board and its link: one row each, where the newer measurement weighs more."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from edgecommon.sqlite import Database
from modelwire.errors import ModelWireError
from modelwire.planning import Average

UPLINK_BYTES, UPLINK_SECONDS = "uplink.bytes", "uplink.seconds"  # of an update, and from its handing over to its receipt
ENCODE = "encode"  # weights of the model a second that are snapped and sealed
DISK = "disk"  # bytes a second that are written and flushed
WATTS = "watts"  # above idle, while the board trains
WAKEUP, PER_BYTE = "joules.wakeup", "joules.byte"  # of the link
STEP, RAM = "step.", "ram."  # and a mode: seconds of one step, bytes that a round adds
GAIN = "gain"  # of accuracy, of 1, by one round
INTERVAL = "interval"  # seconds between two accepted rounds
MOST = 1e18  # of any figure: more is no measurement


@dataclass(frozen=True, slots=True)
class KnownFigure:
    """One figure. source: where it comes from, in words."""

    value: float
    count: int  # of measurements
    source: str
    at: int  # Unix seconds of the last one


class Figures:
    """The figures of one model, or with an empty name of the board and its link."""

    def __init__(self, database: Database, model: str = "") -> None:
        self._db, self._model = database, model

    def get(self, name: str) -> KnownFigure | None:
        """Return a figure; None where it was never measured, or stands there as no number."""
        row = self._db.maybe("SELECT * FROM figure WHERE model=? AND name=?", self._model, name)
        if row is None or not isinstance(row["value"], (int, float)) or not 0 <= row["value"] <= MOST:
            return None
        return KnownFigure(float(row["value"]), int(row["count"]), str(row["source"]), int(row["at"]))

    def all(self) -> dict[str, KnownFigure]:
        """Return all of them by name."""
        names = [str(r["name"]) for r in self._db.all("SELECT name FROM figure WHERE model=? ORDER BY name", self._model)]
        return {name: found for name in names if (found := self.get(name)) is not None}

    def note(self, name: str, value: float, source: str, now: float) -> None:
        """Fold one measurement in; what is no finite number of at least 0 is none. now: Unix seconds.

        What was measured otherwise counts no more: a figure of another source begins anew.
        """
        if not (math.isfinite(value) and 0 <= value <= MOST):
            return
        before = self.get(name)
        known = Average(before.value, before.count) if before is not None and before.source == source else Average()
        mean = known.with_value(value)
        self._db.run(
            "INSERT OR REPLACE INTO figure (model, name, value, count, source, at) VALUES (?,?,?,?,?,?)",
            self._model, name, mean.value, mean.count, source, int(now),
        )  # fmt: skip

    def put(self, name: str, value: float, source: str, now: float) -> None:
        """Write a figure in the place of what stood there. now: Unix seconds."""
        self._db.run("DELETE FROM figure WHERE model=? AND name=?", self._model, name)
        self.note(name, value, source, now)

    def note_all(self, values: dict[str, float], source: str, now: float) -> None:
        """Fold several in, all or none; on a disk that takes nothing they are done without: nothing stands on them."""
        with contextlib.suppress(ModelWireError), self._db.transaction():
            for name, value in values.items():
                self.note(name, value, source, now)

    def uplink(self) -> KnownFigure | None:
        """Return bytes a second of updates, from the handing over of one to its receipt; None before the first receipt."""
        size, seconds = self.get(UPLINK_BYTES), self.get(UPLINK_SECONDS)
        if size is None or seconds is None or seconds.value <= 0:
            return None
        return KnownFigure(size.value / seconds.value, seconds.count, seconds.source, seconds.at)
