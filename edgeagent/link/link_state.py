"""How the agent's link is, kept for `status` and `doctor`, which run beside it or after it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from edgecommon.reaching import SESSION, SHORT
from edgecommon.sqlite import Database
from modelwire.errors import BrokerRefused, LinkError, ModelWireError


@dataclass(frozen=True, slots=True)
class LinkState:
    """How the agent's link to a broker was when it last changed. reason: why it is down; step: where it failed."""

    up: bool
    broker: str
    at: int  # Unix seconds
    reason: str = ""
    step: str = ""
    refused: bool = False


    def is_taken(self, now: float) -> bool:
        """Return whether another client takes the session over, again and again, as far as was seen."""
        return self.step == SESSION and (not self.up or now - self.at < 2 * SHORT)


def connected_again(before: LinkState | None, broker: str, now: int) -> LinkState:
    """Return the state of a link that is up; of one whose session is taken over again and again that goes with it."""
    if before is None or before.step != SESSION:
        return LinkState(True, broker, now)
    return replace(before, up=True, broker=broker, at=now)


def note(database: Database, state: LinkState) -> None:
    """Keep how the link is. What can't be written, on a disk that is full, is done without: nothing stands on it."""
    try:
        with database.transaction():
            database.run("INSERT OR REPLACE INTO meta (key, value) VALUES ('link', ?)", json.dumps(asdict(state)))
    except ModelWireError:
        pass


def noted(database: Database) -> LinkState | None:
    """Return how the link was when it last changed; None before an agent tried."""
    row = database.maybe("SELECT value FROM meta WHERE key='link'")
    try:
        return LinkState(**json.loads(row[0])) if row is not None else None
    except (ValueError, TypeError):  # of another release
        return None


def unreached(state: LinkState | None, broker: str, when: str, heard: str) -> LinkError:
    """Return the error of who gave up waiting: why there is no link, or that there is one and the centre is silent.

    heard: what was heard all the same: another fleet's centre, or a centre that does not welcome this device; empty where nothing was.
    """
    if state is None or state.up:
        return LinkError(broker=broker, reason=f"{when}: {heard or 'the centre has not answered in time'}")
    error = BrokerRefused if state.refused else LinkError
    return error(broker=broker, reason=f"{when}: {state.reason}", fix="edgeagent doctor")
