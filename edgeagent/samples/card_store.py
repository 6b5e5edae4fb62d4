"""The cards that the spool keeps: of all that came, dropped since or not, and that no accepted version's card has told of yet.

A round takes the card with `begin`; what it took is forgotten with `carded`, when its version was accepted. So the cards of a lineage
merge to the card of the whole stream, whatever was dropped, rejected or killed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeagent.settings.channels import channels_of, values_of
from edgecommon.sqlite import Database, Row
from modelwire.cards.card import Card
from modelwire.cards.sketch import Channel

from . import cards
from .cards import Seen
from .reservoir import STAYS
from .spool_tables import by_name


class CardStore:
    """The cards of one spool, in its database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @by_name
    def begin(self, model: str, until: int) -> Card:
        """Note that a round begins on the samples up to `until`, and return the card of all that came since the last `carded`."""
        with self._db.transaction():
            row = self._model(model)
            gone = self._gone(row)  # what was dropped and is newer than `until` is told early, and once
            card = cards.together([gone, self.card(model, after=row["carded"], until=until)])
            self._db.run(
                "UPDATE model SET seen=max(seen, ?), gone=?, gone_since=NULL, coming=? WHERE name=?",
                until, gone.encode(), card.encode(), model,
            )  # fmt: skip
        return card

    @by_name
    def coming(self, model: str, until: int) -> Card:
        """Return what `begin` would, and note nothing."""
        row = self._model(model)
        return cards.together([self._gone(row), self.card(model, after=row["carded"], until=until)])

    @by_name
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

    @by_name
    def card(self, model: str, *, after: int, until: int | None = None) -> Card:
        """Return the card of the samples that are there, with ids above `after` and up to `until`."""
        end, channels = self._newest(model) if until is None else until, self._channels(model)
        ids = [r["id"] for r in self._db.all(f"SELECT id FROM sample WHERE model=? AND id>? AND id<=? AND {STAYS}", model, after, end)]
        told = (self._seen(sample, channels) for sample in ids)  # one at a time: they may be pictures
        return cards.together([cards.counted([one for one in told if one is not None], channels)])

    @by_name
    def seen(self, model: str, sample: int) -> Seen:
        """Return what a card tells of a sample, while it is there."""
        seen = self._seen(sample, self._channels(model))
        assert seen is not None
        return seen

    @by_name
    def dropped(self, model: str, samples: Sequence[Seen]) -> None:
        """Keep the card of samples that were dropped before an accepted version told of them."""
        until = self._model(model)["seen"]
        for column, some in (
            ("gone", [one for one in samples if one.id <= until]),  # the round under way tells of them
            ("gone_since", [one for one in samples if one.id > until]),
        ):
            if some:
                card = cards.together([cards.read(self._model(model)[column]), cards.counted(some, self._channels(model))])
                self._db.run(f"UPDATE model SET {column}=? WHERE name=?", card.encode(), model)

    def _seen(self, sample: int, channels: Sequence[Channel]) -> Seen | None:
        row = self._db.maybe("SELECT s.class, s.x, s.at, c.context FROM sample s JOIN cell c ON c.id=s.cell WHERE s.id=?", sample)
        if row is None:  # a writer's, dropped meanwhile
            return None
        values = values_of(channels, np.frombuffer(row["x"], "<f4")[None])[0]
        return Seen(sample, row["class"], row["at"], row["context"], tuple(values.tolist()))

    def _channels(self, model: str) -> tuple[Channel, ...]:
        return channels_of(self._model(model)["channels"].split())

    def _gone(self, row: Row) -> Card:
        return cards.together([cards.read(row["gone"]), cards.read(row["gone_since"])])

    def _model(self, model: str) -> Row:
        return self._db.one("SELECT * FROM model WHERE name=?", model)

    def _newest(self, model: str) -> int:
        return int(self._db.one(f"SELECT coalesce(max(id), 0) FROM sample WHERE model=? AND {STAYS}", model)[0])
