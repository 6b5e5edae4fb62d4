"""How far the newest desired of a model is, and what would be done about it: for commands, which look on while the agent works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeagent.board.budget import mib
from edgeagent.settings.tree import ModelSettings
from edgeagent.settings.units import say_seconds
from edgeagent.state.lineage import Lineage
from edgeagent.state.trust import TrustStore
from edgecommon.sqlite import Database
from modelwire.deploying.states import FINAL, State
from modelwire.deploying.terms import Learned
from modelwire.errors import ModelWireError
from modelwire.wire import records
from modelwire.wire.records import Desired

from . import checks, hosts, places
from .board_means import facts_of, place_of, ways_of
from .checks import DeployOrder
from .desired_store import DesiredStore, TakenDesired
from .means import BasePlace


@dataclass(frozen=True, slots=True)
class DesiredHere:
    """The newest desired of one model, as it stands on the disk."""

    row: TakenDesired
    order: DeployOrder
    accepted: bool | None  # the host's word; None: it has said nothing

    @property
    def named(self) -> str:
        variant = self.order.variant
        return variant.name if variant is not None and variant.name else self.order.desired.variant.hex()[:12]

    @property
    def over(self) -> bool:
        return self.row.state in FINAL

    def asks(self, settings: ModelSettings) -> bool:
        """Return whether it waits for its host's yes, now or once it is here."""
        asked = self.order.terms.consent or settings.deploy.accept == "ask"
        return asked and self.accepted is None and self.row.state in (State.OFFERED, State.FETCHING, State.STAGED)


def desired_here(database: Database, trust: TrustStore, model: str) -> DesiredHere | None:
    """Return the newest desired of a model; None when there was none."""
    row = DesiredStore(database, model).current()
    if row is None:
        return None
    desired = records.expect(records.parse(row.record), Desired)  # proven when it came
    order = checks.read_order(desired, trust.held.root, trust.held.fleet.id)
    assert order is not None  # one without terms has no row
    word = hosts.said(database, model, row.number)
    return DesiredHere(row, order, None if word is None else word.accepts)


def document_of(here: DesiredHere | None, lineage: Lineage, settings: ModelSettings) -> dict[str, Any] | None:
    """Return what machines read of it."""
    if here is None:
        return None
    row, desired, terms = here.row, here.order.desired, here.order.terms
    passive = lineage.beside.passive()
    return {
        "number": row.number, "variant": desired.variant.hex(), "name": here.named, "rollout": terms.rollout.hex(), "phase": desired.phase,
        "back": terms.back, "state": row.state.value, "since": row.since, "code": row.code, "reason": row.reason,
        "bytes": row.size, "of": desired.bytes, "tries": row.tries, "soaked": int(row.soaked), "soak": terms.soak,
        "expiry": desired.expiry, "not_before": terms.not_before, "consent": here.asks(settings), "learned": row.learned,
        "before": row.before, "after": row.after, "accuracy": row.figures.accuracy, "rows": row.figures.rows,
        "passive": passive.commit.hex() if passive is not None else None,
    }  # fmt: skip


def line_of(here: DesiredHere, settings: ModelSettings) -> str:
    """Return one line on how far it is."""
    row, terms = here.row, here.order.terms
    what = f"{'the way back to ' if terms.back else ''}the variant {here.named} (desired {row.number}): {row.state.value}"
    if row.state is State.FETCHING:
        what += f", {row.size} of {here.order.desired.bytes} bytes"
    if row.state is State.SOAKING:
        what += f", {say_seconds(int(row.soaked))} of {say_seconds(terms.soak)}; no round trains meanwhile"
    if row.reason:
        what += f": {row.reason}"
    if here.asks(settings):
        what += "; its host is asked: edgeagent desired accept, or edgeagent desired refuse REASON"
    return what


def plan_of(here: DesiredHere, lineage: Lineage, settings: ModelSettings, newest: int) -> dict[str, Any]:
    """Return what would be done about it from here on, and why. newest: Unix seconds, the newest of the centre's clock."""
    order, row = here.order, here.row
    desired, terms, variant = order.desired, order.terms, order.variant
    place, facts = place_of(lineage, desired.variant), facts_of(lineage)
    lies = place is not BasePlace.NOWHERE
    stop = None if here.over else order.stop or checks.against_settings(order, settings)
    if stop is None and not here.over and row.state in (State.OFFERED, State.FETCHING):
        stop = checks.against_board(order, settings, facts, here=lies)
        if stop is None and not lies and variant is None:
            stop = checks.not_here()
    fetch = 0 if lies or here.over or variant is None else max(0, variant.size - row.size)
    return {
        "stops": None if stop is None else {"code": stop.code, "reason": stop.reason},
        "place": place.value, "fetch": fetch, "from": list(terms.urls) if fetch else [], "in_parts": bool(fetch and not terms.urls),
        "disk_free": facts.disk, "disk_needed": fetch and 2 * desired.bytes + facts.room, "memory_free": facts.memory,
        "memory_needed": variant.ram if variant is not None else 0, "learned": _learned(here, lineage, place), "soak": terms.soak,
        "consent": here.asks(settings), "waits_until": terms.not_before if terms.not_before > newest else None,
        "expires_in": max(0, desired.expiry - newest) if newest else None,
    }  # fmt: skip


def plan_lines(plan: dict[str, Any], here: DesiredHere) -> list[str]:
    """Return what people read of a plan."""
    if here.over:
        return ["nothing is left to do"]
    if plan["stops"] is not None:
        return [f"would be refused: {plan['stops']['reason']} ({plan['stops']['code']})"]
    lines = []
    if plan["fetch"]:
        source = "in parts over the link" if plan["in_parts"] else f"from {', '.join(plan['from'])}"
        lines.append(f"fetch     {plan['fetch']} bytes {source}")
        lines.append(f"disk      {mib(plan['disk_needed'])} MiB of {mib(plan['disk_free'])} MiB that are free")
    else:
        lines.append("fetch     nothing: it lies here")
    if plan["memory_needed"]:
        lines.append(f"memory    {mib(plan['memory_needed'])} MiB of {mib(plan['memory_free'])} MiB that can be had")
    lines.append(f"learned   {plan['learned']}")
    when = "after the round under way, if there is one"
    if plan["consent"]:
        when = f"once its host says yes, {when}"
    if plan["waits_until"] is not None:
        when = f"from {plan['waits_until']} on (the centre's clock), {when}"
    lines.append(f"when      {when}")
    lines.append(f"soak      {say_seconds(plan['soak'])} of running, then it is confirmed")
    if plan["expires_in"] is not None:
        lines.append(f"expires   in {say_seconds(plan['expires_in'])} unless it is served before")
    return lines


def _learned(here: DesiredHere, lineage: Lineage, place: BasePlace) -> str:
    """Return what would become of what was learned."""
    if here.row.learned:
        return here.row.learned
    terms, variant = here.order.terms, here.order.variant
    if terms.back:
        return "as it was when it was left"
    if terms.learned == Learned.ANEW or (variant is not None and variant.schema != lineage.manifest.schema.id):
        return "anew: the variant as it is"
    if place is BasePlace.STAGED and (placed := places.found(lineage, here.order.desired.variant)) is not None:
        try:
            word = ways_of(lineage, placed)[0].word
        except ModelWireError as e:
            return f"not known: {e.message}"
        return word if word == "anew" else f"{word}, unless held-out samples say that the variant as it is does better"
    return "kept or carried over, as the units of its file say, unless held-out samples say that the variant as it is does better"
