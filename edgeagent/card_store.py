"""The cards that the spool keeps: of all that came, dropped since or not, and that no accepted version's card has told of yet.

A round takes the card with `begin`; what it took is forgotten with `carded`, when its version was accepted. So the cards of a lineage
merge to the card of the whole stream, whatever was dropped, rejected or killed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwire.card import Card

from . import cards
from .channels import channels_of
from .database import Database, Row

PIECE = 256  # samples in memory at once


class CardStore:
    """The cards of one spool, in its database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def begin(self, model: str) -> tuple[int, Card]:
        """Note that a round begins; return its newest sample's id, and the card of all that came since the last `carded`."""
        with self._db.transaction():
            row, until = self._model(model), self._newest(model)
            gone = self._gone(row)
            card = cards.together([gone, self.card(model, after=row["carded"], until=until)])
            self._db.run(
                "UPDATE model SET seen=?, gone=?, gone_since=NULL, coming=? WHERE name=?", until, gone.encode(), card.encode(), model
            )
        return until, card

    def coming(self, model: str) -> tuple[int, Card]:
        """Return what `begin` would, and note nothing."""
        row, until = self._model(model), self._newest(model)
        return until, cards.together([self._gone(row), self.card(model, after=row["carded"], until=until)])

    def carded(self, model: str, until: int) -> None:
        """Note that an accepted version's card tells of all that `begin` returned with `until`. Once more, it changes nothing."""
        with self._db.transaction():
            row = self._model(model)
            if until <= row["carded"]:
                return
            known = cards.together([cards.faded(cards.read(row["known"])), cards.read(row["coming"])])
            self._db.run("UPDATE model SET carded=?, gone=NULL, coming=NULL, known=? WHERE name=?", until, known.encode(), model)

    def known(self, model: str) -> Card:
        """Return the card of what the accepted rounds had come: of the last one whole, of the one before it half, and so on."""
        return cards.read(self._model(model)["known"])

    def card(self, model: str, *, after: int, until: int | None = None) -> Card:
        """Return the card of the samples that are there, with ids above `after` and up to `until`."""
        end = self._newest(model) if until is None else until
        ids = [r["id"] for r in self._db.all("SELECT id FROM sample WHERE model=? AND id>? AND id<=?", model, after, end)]
        found = []
        for at in range(0, len(ids), PIECE):
            rows = [row for i in ids[at : at + PIECE] if (row := self._maybe(i)) is not None]  # else a writer's, dropped meanwhile
            found.append(self._counted(model, rows))
        return cards.together(found)

    def row(self, sample: int) -> Row:
        """Return what a card tells of a sample, while it is there."""
        row = self._maybe(sample)
        assert row is not None
        return row

    def dropped(self, model: str, rows: Sequence[Row]) -> None:
        """Keep the card of samples that were dropped before an accepted version told of them."""
        seen = self._model(model)["seen"]
        for column, some in (
            ("gone", [r for r in rows if r["id"] <= seen]),  # the round under way tells of them
            ("gone_since", [r for r in rows if r["id"] > seen]),
        ):
            if some:
                card = cards.together([cards.read(self._model(model)[column]), self._counted(model, some)])
                self._db.run(f"UPDATE model SET {column}=? WHERE name=?", card.encode(), model)

    def _counted(self, model: str, rows: Sequence[Row]) -> Card:
        if not rows:
            return Card()
        x = np.stack([np.frombuffer(r["x"], "<f4") for r in rows])
        channels = channels_of(self._model(model)["channels"].split())
        return cards.counted(x, [r["class"] for r in rows], [r["at"] for r in rows], [r["context"] for r in rows], channels)

    def _gone(self, row: Row) -> Card:
        return cards.together([cards.read(row["gone"]), cards.read(row["gone_since"])])

    def _maybe(self, sample: int) -> Row | None:
        return self._db.maybe(
            "SELECT s.id, s.class, s.x, s.at, c.context FROM sample s JOIN cell c ON c.id=s.cell WHERE s.id=?", sample
        )

    def _model(self, model: str) -> Row:
        return self._db.one("SELECT * FROM model WHERE name=?", model)

    def _newest(self, model: str) -> int:
        return int(self._db.one("SELECT coalesce(max(id), 0) FROM sample WHERE model=?", model)[0])
