"""A board asks to be let in by its claim: once at first, then slower and slower, until the centre welcomes it.

No clock of its own: `now` is an argument (monotonic seconds).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from edgeagent.settings.tree import LinkSettings
from edgeagent.state.claim import BoardClaim
from edgeagent.state.history import QUARANTINE, Board
from edgeagent.system.backoff import Backoff
from modelwire.errors import LinkError
from modelwire.names import ALL
from modelwire.wire import records, topics
from modelwire.wire.records import Enrol

from .transport import Transport

_log = logging.getLogger("edgeagent.enrolling")


class Enrolling:
    """What all models of a device have in common of it: the key is the device's."""

    def __init__(
        self, board: Board, claim: BoardClaim | None, transport: Transport, link: LinkSettings, agent: str, rng: random.Random,
        wall: Callable[[], float],
    ) -> None:  # fmt: skip
        """agent: its release. wall: Unix seconds, said in the record alone."""
        self.proof = b"" if claim is None else claim.proof
        self._board, self._claim, self._transport, self._agent, self._wall = board, claim, transport, agent, wall
        self._pause = Backoff(link.resend, link.resend_max, rng)
        self._due = 0.0
        self._said = 0
        self._greeted: dict[str, int] = {}  # model -> how many enrolments its last hello has followed

    def heard(self, model: str, status: str, now: float, *, quiet: bool) -> bool:
        """Take a welcome's status, say `enrol` when it is due, and return whether the model should say hello now: it tells the outcome.

        quiet: the centre wants nothing said for a while.
        """
        if self._claim is None:
            return False
        if status != QUARANTINE:
            self._pause.reset()
            self._due = 0.0
            return False
        if not quiet and now >= self._due:
            self._due = now + self._pause.next()
            self._say(self._claim)
        news = self._greeted.get(model, 0) != self._said
        self._greeted[model] = self._said
        return news

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
