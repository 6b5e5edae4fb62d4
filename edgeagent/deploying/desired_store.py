"""The newest thing desired of one model, and how far it has come: one row, on the disk before anything follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecommon.sqlite import Database
from modelwire.deploying.reports import DeviceFigures, figures_in
from modelwire.deploying.states import State
from modelwire.wire import cbor


@dataclass(frozen=True, slots=True)
class TakenDesired:
    """What is remembered of the newest desired of a model."""

    number: int
    record: bytes  # as it came, sealed; it was proven then
    state: State
    since: int  # Unix seconds of this board since which it is in that state
    time: int  # newest Unix seconds of the centre when it was taken
    tries: int = 0  # failed attempts to fetch its file
    size: int = 0  # bytes fetched for it in all
    transfer: bytes = b""  # how its file is cut, as it came
    have: bytes = b""  # bit i of byte i//8: part i is here
    probes: int = 0  # times that it began to be probed
    consent: str = ""  # the host's word: yes or no; empty: none yet
    soaked: float = 0.0  # seconds of running in which it was served
    learned: str = ""  # kept, carried, anew; empty before it was probed
    code: str = ""  # of modelwire.deploying.reports.Code
    reason: str = ""
    before: float | None = None
    after: float | None = None
    figures: DeviceFigures = field(default_factory=DeviceFigures)
    reported: bool = False  # this state has left as a report


class DesiredStore:
    """What one model remembers of what is desired. Each method is one transaction, or part of the caller's."""

    def __init__(self, database: Database, model: str) -> None:
        self._db, self._model = database, model

    def current(self) -> TakenDesired | None:
        """Return the newest desired that was taken; None before the first. It stays when it is over: a repeat gets the same report."""
        r = self._db.maybe("SELECT * FROM desired WHERE model=?", self._model)
        if r is None:
            return None
        said = cbor.decode(r["figures"], "figures") if r["figures"] else {}
        figures = figures_in(said) if isinstance(said, dict) else None
        return TakenDesired(
            r["number"], r["record"], State(r["state"]), r["since"], r["time"], r["tries"], r["bytes"], r["transfer"], r["have"],
            r["probes"], r["consent"], r["soaked"], r["learned"], r["code"], r["reason"], r["score_before"], r["score_after"],
            figures or DeviceFigures(), bool(r["reported"]),
        )  # fmt: skip

    def newest(self) -> int:
        """Return the highest number that was taken, or passed by; 0 before the first."""
        return self._db.number(
            "SELECT max(m.desired, coalesce(d.number, 0)) FROM model m LEFT JOIN desired d ON d.model = m.name WHERE m.name=?", self._model
        )

    def pass_by(self, number: int) -> None:
        """Note that nothing comes of this number, nor of any below it."""
        self._db.run("UPDATE model SET desired=max(desired, ?) WHERE name=?", number, self._model)

    def take(self, number: int, record: bytes, *, now: int, time: int) -> None:
        """Note a desired as offered, in the place of any other. record: as it came; time: newest Unix seconds of the centre."""
        with self._db.transaction():
            self._db.run("DELETE FROM desired WHERE model=?", self._model)
            self._db.insert(
                "desired", model=self._model, number=number, record=record, state=State.OFFERED.value, since=now, time=time
            )

    def move(self, state: State, now: int, *, code: str = "", reason: str = "") -> None:
        """Note that it is in another state since `now`, which no report has said yet. code, reason: why; empty leaves what stands there."""
        self._db.run(
            "UPDATE desired SET state=?, since=?, reported=0, code=coalesce(nullif(?, ''), code), reason=coalesce(nullif(?, ''), reason)"
            " WHERE model=?",
            state.value, now, code, reason, self._model,
        )  # fmt: skip

    def blame(self, code: str, reason: str) -> None:
        """Note why it is going to end, before it does."""
        self._db.run("UPDATE desired SET code=?, reason=? WHERE model=?", code, reason, self._model)

    def fetched(self, tries: int, size: int) -> None:
        """Note the failed attempts to fetch it, and the bytes in all: both count over restarts."""
        self._db.run("UPDATE desired SET tries=?, bytes=? WHERE model=?", tries, size, self._model)

    def holds(self, transfer: bytes, have: bytes) -> None:
        """Note how its file is cut, as it came, and which parts are here."""
        self._db.run("UPDATE desired SET transfer=?, have=? WHERE model=?", transfer, have, self._model)

    def probes(self, count: int) -> None:
        """Note how often it began to be probed, before it is again: a board that dies of it is not to die for ever."""
        self._db.run("UPDATE desired SET probes=? WHERE model=?", count, self._model)

    def consent(self, word: str) -> None:
        """Note the host's word: yes, no, or empty to take it back."""
        self._db.run("UPDATE desired SET consent=? WHERE model=?", word, self._model)

    def measured(self, learned: str, before: float | None, after: float | None, figures: DeviceFigures) -> None:
        """Note what a probe came to."""
        self._db.run(
            "UPDATE desired SET learned=?, score_before=?, score_after=?, figures=? WHERE model=?",
            learned, before, after, cbor.encode(figures.as_map()), self._model,
        )  # fmt: skip

    def soaked(self, seconds: float) -> None:
        """Note for how many seconds of running it was served."""
        self._db.run("UPDATE desired SET soaked=? WHERE model=?", seconds, self._model)

    def reported(self, number: int, state: State) -> None:
        """Note that a report of this state has left; of another one that came meanwhile it says nothing."""
        self._db.run("UPDATE desired SET reported=1 WHERE model=? AND number=? AND state=?", self._model, number, state.value)
