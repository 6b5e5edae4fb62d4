"""The answers that commands were given: the same number again gets the same answer, and is not carried out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecommon.sqlite import Database
from modelwire.wire import cbor

KEPT = 64  # answers of a model; a number below them is refused like any that is lower and not known


@dataclass(frozen=True, slots=True)
class Answered:
    """What a command was answered."""

    number: int
    ok: bool
    text: str  # for the operator
    body: Mapping[str, cbor.Value] = field(default_factory=dict)  # what was asked for


class Answers:
    """The last answers of one model."""

    def __init__(self, database: Database, model: str) -> None:
        self._db, self._model = database, model

    def last(self) -> int:
        """Return the highest number that was answered; 0 before the first."""
        return self._db.number("SELECT coalesce(max(number), 0) FROM answer WHERE model=?", self._model)

    def given(self, number: int) -> Answered | None:
        """Return the answer that a command was given; None for one that is not known."""
        row = self._db.maybe("SELECT * FROM answer WHERE model=? AND number=?", self._model, number)
        if row is None:
            return None
        body = cbor.decode(row["body"], "answer")
        assert isinstance(body, dict)  # as `keep` wrote it
        return Answered(number, bool(row["ok"]), row["text"], body)

    def keep(self, answer: Answered) -> None:
        """Keep an answer, in the transaction around it where there is one; the oldest goes. No more is taken in for the command."""
        with self._db.transaction():
            self._db.run("DELETE FROM taking WHERE model=? AND number=?", self._model, answer.number)
            self._db.insert(
                "answer", model=self._model, number=answer.number, ok=int(answer.ok), text=answer.text, body=cbor.encode(dict(answer.body)),
            )  # fmt: skip
            self._db.run(
                "DELETE FROM answer WHERE model=? AND number NOT IN (SELECT number FROM answer WHERE model=? ORDER BY number DESC LIMIT ?)",
                self._model, self._model, KEPT,
            )  # fmt: skip
