"""How a board and the centre come to agree on every version number: what hellos ask in `more`, and what counts as their answer.

An answer gives the hello's nonce back. So nothing that was said before a hello passes for its answer, whoever says it again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass

from edgeagent.state.lineage import Lineage
from edgeagent.state.outcome import said as listed
from edgeagent.state.trust import TrustStore
from edgecommon.sqlite import Row
from modelwire.wire import cbor, numbers
from modelwire.wire.more import troubles_said
from modelwire.wire.records import Receipt, Welcome

_log = logging.getLogger("edgeagent.session")
KEPT = 8  # hellos that may still be answered; a slow link has no more of them under way


@dataclass(frozen=True, slots=True)
class Asked:
    """What was known here when a hello was said. Its answer was made later, so it says no less, whatever overtook it on its way."""

    link: int  # number of the newest link of the centre's log
    held: int  # the newest version that the centre had said it holds


class Agreement:
    """What one model's talk over one connection has asked, and takes for an answer."""

    def __init__(self, lineage: Lineage, trust: TrustStore, rng: random.Random) -> None:
        self._lineage, self._trust, self._rng = lineage, trust, rng
        self._asked: dict[bytes, Asked] = {}  # by the nonce of a hello
        self.in_doubt = False  # a welcome said that the centre holds less than it once did
        self.answered = False  # whether any hello of this run was
        self.beside: Mapping[str, str] = {}  # troubles that are not in the database
        self._told: Mapping[str, str] = {}

    def forget(self) -> None:
        """Start anew on a fresh connection: no hello so far is answered any more."""
        self._asked.clear()
        self.in_doubt = False

    def has_news(self) -> bool:
        """Return whether there is a trouble that the last hello did not tell of in these words."""
        return not self._troubles().items() <= self._told.items()

    def _troubles(self) -> dict[str, str]:
        return {**self._lineage.troubles(), **self.beside}

    def ask(self) -> dict[str, cbor.Value]:
        """Return what a new hello says in `more`."""
        link, nonce = self._trust.link, self._rng.randbytes(numbers.NONCE_BYTES)
        self._asked[nonce] = Asked(link.number if link else 0, max(self._lineage.known()))
        while len(self._asked) > KEPT:
            del self._asked[next(iter(self._asked))]
        witness = {numbers.WITNESS: link.encode()} if link else {}
        self._told = self._troubles()
        return {numbers.NONCE: nonce, **self._lineage.doubts.said(), **witness, **troubles_said(self._told)}

    def stale(self, more: Mapping[str, cbor.Value]) -> bool:
        """Return whether this is an answer, and to another hello than one that is open: somebody says it again, or very late."""
        return bool(nonce := numbers.nonce_in(more)) and nonce not in self._asked

    def answers(self, more: Mapping[str, cbor.Value]) -> bool:
        """Return whether this answers a hello that is open."""
        return numbers.nonce_in(more) in self._asked

    def held_then(self, more: Mapping[str, cbor.Value]) -> int | None:
        """Return the newest version that was known to be held when the hello was said that this answers; None for no answer."""
        asked = self._asked.get(numbers.nonce_in(more))
        return asked.held if asked else None

    def witness(self, w: Welcome) -> None:
        """Keep what a welcome says of time and log, and say once what is odd about it."""
        asked = self._asked.get(numbers.nonce_in(w.more))
        self.answered |= asked is not None
        if odd := self._trust.saw(w.time, w.log, since=asked.link if asked else None):
            _log.warning("%s", odd)

    def go_back(self, w: Welcome, wall: int) -> str:
        """Follow a centre that holds less than it did, once it has said so twice: a refusal may be on its way that explains the first."""
        held, less = self.held_then(w.more), f"the centre says @{w.head_version}, less than it once had"
        if not self.answers(w.more):
            return f"{less}, and answers no hello of this connection"
        self._asked.clear()  # the next hello asks again, about what is known here now
        self.in_doubt = not self.in_doubt
        if self.in_doubt:
            return f"{less}; asking again"
        said = self._lineage.rewind(w, wall, held)
        _log.warning("%s: %s", self._lineage.name, said)
        return said

    def take_missing(self, w: Welcome) -> None:
        """Take from an answer which of the numbers that were given up the centre holds nothing of."""
        self.in_doubt = False
        with self._lineage.outbox.transaction():
            gone = self._lineage.doubts.missing(w.more)
        if gone:
            _log.warning("%s: lost: %s; the centre holds nothing of them, and waits for none", self._lineage.name, listed(gone))

    def replaced(self, r: Receipt) -> bool:
        """Take an answer about an update that is none of ours, under a number that is; return whether it was one."""
        if not self.answers(r.more):
            return False
        with self._lineage.outbox.transaction():
            news = self._lineage.doubts.replaced(r)
        if news:
            _log.warning("%s: lost: @%d; the centre holds another update under this number", self._lineage.name, r.version)
        return news

    def settle(self, row: Row, r: Receipt) -> bool:
        """Take the last word on a version that was given up here; return whether it is news. What answers no hello is ignored."""
        name = self._lineage.name
        if not self.answers(r.more):
            _log.debug("%s: a receipt (%s) for @%d, which was given up here, was ignored", name, r.level.value, r.version)
            return False
        with self._lineage.outbox.transaction():
            news = self._lineage.doubts.settle(row, r)
        if news:
            why = f": {r.reason}" if r.reason else ""
            _log.warning("%s: @%d was given up here; at the centre it is %s%s", name, r.version, r.level.value, why)
        return news
