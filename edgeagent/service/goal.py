"""What a run of the agent is for: when it trains, when it is done, and what keeps it from being done."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from edgeagent.link.link_state import LinkState, unreached
from edgeagent.link.session import Session
from edgeagent.state.folder import DeviceFolder
from edgeagent.state.history import OK
from edgeagent.state.lineage import FORKED
from modelwire.errors import LinkError, ModelWireError, SessionTaken, TwoHistories


@dataclass(frozen=True, slots=True)
class Goal:
    """When to train, and when to be done. The default trains as the settings say and is never done."""

    rounds: int | None = None  # so many rounds of each model since its folder was made, then all updates verified
    fresh: bool = False  # with `rounds`: each waits for new samples, as many as the settings say
    pause: float = 0.0  # with `rounds`: seconds between two of one model
    once: bool = False  # one round of each model, then all updates stored
    publish: bool = False  # no round; welcomed, and all updates stored
    timeout: float = 0.0  # seconds after which a goal that is not reached is an error; 0: never

    @property
    def endless(self) -> bool:
        return self.rounds is None and not self.once and not self.publish


def all_forked(sessions: Iterable[Session]) -> bool:
    """Return whether the history of each model goes on in another folder: this one has nothing to send."""
    return all(s.answered and s.lineage.head().blocked.startswith(FORKED) for s in sessions)


def settled(goal: Goal, session: Session, trained: Collection[str]) -> bool:
    """Return whether a model has come to where the goal wants it. trained: the models that had a round in this run.

    Raises TwoHistories, LinkError or NotWelcome where it never will; MonthSpent where it won't this month.
    """
    lineage = session.lineage
    head = lineage.head()
    if head.blocked and not goal.endless:
        if head.blocked.startswith(FORKED):
            raise TwoHistories(device=lineage.board.device, model=lineage.name, reason=head.blocked)
        raise LinkError(broker=f"{lineage.board.device}/{lineage.name}", reason=f"the centre refused for good: {head.blocked}")
    if not goal.endless and session.answered and (spent := session.leaving.spent()) is not None:
        raise spent
    if goal.rounds is not None:
        return head.rounds >= goal.rounds and not lineage.outbox.waiting()
    if session.answered and head.welcome != OK:
        lineage.check_welcome(head)
    if goal.once and lineage.name not in trained:
        return False
    if not goal.endless and not session.answered and (silenced := session.leaving.silenced()) is not None:
        raise silenced  # no hello goes, so no answer comes
    return session.welcomed and not lineage.outbox.waiting("queued", "offered")


def session_taken(device: DeviceFolder, why: str) -> SessionTaken:
    """Return the error of a run that stepped back for another client of its name."""
    link = device.settings.link
    return SessionTaken(broker=link.broker, name=link.client_id or f"{device.board.fleet}.{device.board.device}", reason=why)


def out_of_time(
    goal: Goal, device: DeviceFolder, sessions: Mapping[str, Session], trained: Collection[str], link: LinkState | None
) -> ModelWireError:
    """Return the error of a run whose time is over: which models are not done, and why."""
    left = [name for name, session in sessions.items() if not settled(goal, session, trained)]
    heard = [(s.lineage, s.lineage.head()) for s in sessions.values() if s.answered]
    unwelcome = ", ".join(lineage.why_unwelcome(head) for lineage, head in heard if head.welcome != OK)
    after = f"after {goal.timeout:g} s {', '.join(left)}"
    return unreached(link, device.settings.link.broker, after, device.trust.foreign_said or unwelcome)
