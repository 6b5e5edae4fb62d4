"""What a device is told: the variant with its terms, or the way back to the base that it has beside it. Sealed by the director's key."""

from __future__ import annotations

from dataclasses import dataclass

from edgecloud.registry import AssignmentRow, DesiredRow, RolloutRow, SqliteStore
from modelwire.deploying.plans import RolloutPlan
from modelwire.deploying.reports import figures_in
from modelwire.deploying.states import State
from modelwire.deploying.terms import DeployTerms
from modelwire.deploying.variants import Variant
from modelwire.errors import LineageError, ModelWireError
from modelwire.wire import records
from modelwire.wire.records import Desired, Report
from modelwire.wire.signing import Signer

DAY = 86_400
BACK_EXPIRY = 90 * DAY  # seconds that the way back is good for: a device that was away for a season still takes it


@dataclass(frozen=True, slots=True)
class RolloutOffer:
    """All that the devices of a rollout are offered alike."""

    plan: RolloutPlan
    variant: Variant
    statement: bytes  # as the root key sealed it


def offered(store: SqliteStore, key: Signer, row: RolloutRow, offer: RolloutOffer, to: AssignmentRow, now: int) -> DesiredRow:
    """Seal the variant for a device of a phase, and keep it for the ingester to pass on. In a transaction of the caller's."""
    plan = offer.plan
    begins = opens(plan.window, now)
    terms = DeployTerms(
        plan.rollout, offer.statement, plan.urls, soak=soak_of(plan, to.phase), learned=plan.learned, consent=plan.consent,
        not_before=begins,
    )  # fmt: skip
    return _put(store, key, row, to, plan.variant, offer.variant.size, terms, max(now, begins) + plan.expiry, now)


def taken_back(store: SqliteStore, key: Signer, row: RolloutRow, to: AssignmentRow, now: int) -> DesiredRow | None:
    """Seal the way back for a device: to the base that it served before, or to stay with it where it never served the variant.

    None where no such base is known. In a transaction of the caller's.
    """
    base = _before(store, row, to)
    if not base:
        return None
    held, terms = store.bases.get(base), DeployTerms(row.rollout, back=True, slower=0)  # however slow it is: it is what was there before
    return _put(store, key, row, to, base, held.size if held else 0, terms, now + BACK_EXPIRY, now)


def opens(window: tuple[int, int], now: int) -> int:
    """Return the next time at which a window of the day is open, in Unix seconds; 0 where it is now, or there is none."""
    first, last = window
    if first == last:
        return 0
    into = now % DAY
    inside = first <= into < last if first < last else into >= first or into < last
    return 0 if inside else now + (first - into) % DAY


def soak_of(plan: RolloutPlan, phase: int) -> int:
    """Return for how many seconds a device of a phase is served the variant before it confirms it."""
    return plan.phases[min(phase, len(plan.phases) - 1)].soak or plan.soak


def _before(store: SqliteStore, row: RolloutRow, to: AssignmentRow) -> bytes:
    """Return the commit of the base that a device had before this variant."""
    base = store.rollout_steps.base_of(to.lineage)
    if base != row.variant:  # its head has not gone over, so the base beside the variant is the head's
        return base
    for said in reversed(store.rollouts.reports(to.lineage, to.number)):
        if said.state in (State.SOAKING.value, State.CONFIRMED.value) and (passive := _passive(said.record)):
            return passive
    epoch = store.lineages.current(to.lineage)
    return epoch.base if epoch is not None and epoch.base != row.variant else b""


def _passive(record: bytes) -> bytes:
    """Return which base a device keeps, as it said; whatever it said, it goes back to nothing but what lies there."""
    try:
        figures = figures_in(records.expect(records.parse(record), Report).more)
    except ModelWireError:
        return b""
    return figures.passive if figures is not None else b""


def _put(
    store: SqliteStore, key: Signer, row: RolloutRow, to: AssignmentRow, base: bytes, size: int, terms: DeployTerms, expiry: int, now: int
) -> DesiredRow:
    newest = store.rollouts.newest_desired(to.lineage)
    # Above any number of a registry that was restored from an older copy: the time is in it.
    number = max(newest.number + 1 if newest else 1, now * 1000)
    if number >= 1 << 63:
        reason = f"no number is left for {to.device}/{to.model}: the row of its newest desired has the last one"
        raise LineageError(reason=reason, fix="edgecloud verify names rows that the director never sealed")
    said = Desired(store.fleet, to.device, to.model, now, number, expiry, base, size, to.phase, more=terms.as_map())
    record = records.encode(said, key, store.identity.id)
    return store.rollouts.put_desired(DesiredRow(to.lineage, number, row.id, base, record, expiry, now))
