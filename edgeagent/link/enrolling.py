"""A board asks to be let in by its claim: once at first, then slower and slower, until the centre welcomes it.

No clock of its own: `now` is an argument (monotonic seconds).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping

from edgeagent.settings.tree import LinkSettings
from edgeagent.state.claim import BoardClaim
from edgeagent.state.history import OK, QUARANTINE, Board, add_by_hand, claim_refused, set_claim_refused
from edgeagent.system.backoff import Backoff
from edgecommon.sqlite import Database
from modelwire.errors import LinkError
from modelwire.names import ALL
from modelwire.wire import cbor, records, topics
from modelwire.wire.claims import SERIAL, refusal_in
from modelwire.wire.records import Enrol, Welcome

from .transport import Transport

_log = logging.getLogger("edgeagent.enrolling")


class Enrolling:
    """What all models of a device have in common of it: the key is the device's."""

    def __init__(
        self, board: Board, claim: BoardClaim | None, transport: Transport, link: LinkSettings, agent: str, rng: random.Random,
        wall: Callable[[], float], database: Database,
    ) -> None:  # fmt: skip
        """agent: its release. wall: Unix seconds, said in the record alone. database: the agent's, where a refusal is noted."""
        self._board, self._claim, self._transport, self._agent, self._wall = board, claim, transport, agent, wall
        self._database, self._refused = database, ""
        self._pause = Backoff(link.resend, link.resend_max, rng)
        self._due = 0.0
        self._said = 0
        self._greeted: dict[str, int] = {}  # model -> how many enrolments its last hello has followed

    def said(self, welcome: str) -> tuple[bytes, Mapping[str, cbor.Value]]:
        """Return what a hello says of the claim, until the board is let in: the proof, and in `more` the serial number that it is for.

        welcome: the status of the last one.
        """
        if self._claim is None or welcome == OK:
            return b"", {}
        return self._claim.proof, {SERIAL: self._claim.serial}

    def heard(self, model: str, said: Welcome, now: float, *, quiet: bool) -> bool:
        """Take a welcome, note why the claim refuses the board, say `enrol` when it is due, and return whether to say hello now.

        The next welcome tells the outcome, for each model. quiet: the centre wants nothing said for a while.
        """
        self._note(refusal_in(said.more) if said.status == QUARANTINE else "")
        if self._claim is None:
            return False
        if said.status != QUARANTINE:
            self._pause.reset()
            self._due = 0.0
            return False
        if not quiet and now >= self._due:
            self._due = now + self._pause.next()
            self._say(self._claim)
        news = self._greeted.get(model, 0) != self._said
        self._greeted[model] = self._said
        return news

    def _note(self, why: str) -> None:
        """Keep why the claim lets this board not in, and say it once: welcomes repeat it for as long as nothing changes."""
        if why != claim_refused(self._database):
            set_claim_refused(self._database, why)
        if why and why != self._refused:
            which = self._claim.id if self._claim is not None else ""
            _log.warning("the claim %s does not let this board in: %s; try: %s", which, why, add_by_hand(self._board))
        self._refused = why

    def _say(self, claim: BoardClaim) -> None:
        board = self._board
        record = Enrol(board.fleet, board.device, ALL, int(self._wall()), board.key.public, claim.proof, claim.serial, self._agent)
        data = records.encode(record, board.key, board.identity.id)
        try:
            self._transport.send(topics.up(board.fleet, board.device, ALL, "enrol"), data)
        except LinkError as e:  # the next welcome that says quarantine brings it again
            _log.debug("%s", e.message)
            return
        self._said += 1
        _log.info("asked to be let in by the claim %s", claim.id)
