"""One step of a director: heeds what was sealed, takes devices in, offers, judges, moves on. Killed anywhere, it ends alike.

What moves a rollout is read anew within the transaction that moves it, and nothing is offered to who is not waiting in that transaction: of
two directors the second finds it done.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgecloud import keys
from edgecloud.registry import AssignmentRow, RolloutRow, SqliteStore
from edgecloud.registry.rollout_rows import (
    ABORTED,
    DONE,
    DRAFT,
    HALTED,
    PAUSED,
    ROLLED_BACK,
    ROLLING_BACK,
    RUNNING,
    SOAKING,
    WAITING,
)
from modelwire.deploying.states import FINAL, State
from modelwire.deploying.variants import Variant
from modelwire.errors import DiskUnwritable, ModelWireError, RegistryDamaged, StateBusy
from modelwire.wire.signing import Role, Signer
from modelwire.wire.trust import Trusted

from . import gates, judging, moves
from .enrolling import Enrolment
from .gates import GateRuling, Ruling
from .judging import RolloutStanding
from .moves import RolloutMove
from .offering import BACK_EXPIRY, DAY, RolloutOffer, offered, soak_of, taken_back
from .orders import RolloutOrders, SealedOrder, orders_of, variant_in

BATCH = 500  # devices that one step offers something, in one transaction: a tenth of a second in which no update is taken in
LOOK_EVERY = 60  # seconds between two looks at all of a fleet for who has come to fit, or did not hear in time
AWAY = 600  # seconds after which the way back is not waited for where its device is off line
ANSWERED = DAY  # seconds after which the way back is waited for no more: one that says nothing keeps no fleet from what comes next
_TURNS = 64  # of one rollout in one step
_NOT_SERVED = (State.OFFERED.value, State.FETCHING.value, State.STAGED.value, State.PROBING.value)
_SERVED = (State.SOAKING.value, State.CONFIRMED.value)
_OPEN = tuple(state.value for state in State if state not in FINAL)


@dataclass(slots=True)
class StepDone:
    """What a step did."""

    offered: int = 0  # devices that were offered a variant
    taken_back: int = 0  # devices that were sent back, or told to stay
    assigned: int = 0  # devices that were taken into a phase
    unfinished: bool = False  # whether the fleet was not looked through yet for who fits
    lines: list[str] = field(default_factory=list)  # how rollouts went on, in words
    notes: list[str] = field(default_factory=list)  # what does not hold or leads nowhere

    def __bool__(self) -> bool:
        return bool(self.offered or self.taken_back or self.assigned or self.unfinished or self.lines)


def step(store: SqliteStore, key: Signer, now: int) -> StepDone:
    """Do what is due, once. key: the director's; now: Unix seconds. Raises BadArgument unless the trust record in force names the key."""
    return Stepper(store, key).step(now)


class Stepper:
    """Steps again and again, and remembers between two steps what it has looked through: what it forgets costs time alone."""

    def __init__(self, store: SqliteStore, key: Signer) -> None:
        self.store, self.key = store, key
        self._enrolments: dict[tuple[int, int], Enrolment] = {}
        self._looked: dict[int, int] = {}  # when the whole fleet was looked at last for who fits a rollout
        self._renewed: dict[int, int] = {}  # when it was last looked for who did not hear in time
        self._judge = judging.PhaseJudge()

    def on(self, store: SqliteStore) -> None:
        """Go on with the registry as it was opened anew; what was looked through before still holds."""
        self.store = store

    def step(self, now: int) -> StepDone:
        """Do what is due. Raises BadArgument unless the trust record in force names the key, or the one before it while they overlap."""
        held = keys.trusted(self.store.identity, [row.record for row in self.store.trusts.all()])
        if self.key.public not in held.keys(Role.DIRECTOR, now):
            keys.require_speaks(self.key, Role.DIRECTOR, held, "the director's key")
        done = StepDone()
        for row in self.store.rollouts.all():
            try:
                self._rollout(row, held, now, done)
            except (StateBusy, DiskUnwritable, RegistryDamaged):
                raise
            except ModelWireError as error:  # one rollout that can't go on holds up no other
                for one in [one for one in self._enrolments if one[0] == row.id]:
                    del self._enrolments[one]  # others of its model wait for it
                done.notes.append(f"{row.name}: {error.message}")
        return done

    def _rollout(self, row: RolloutRow, held: Trusted, now: int, done: StepDone) -> None:
        for one in [(id, phase) for id, phase in self._enrolments if id == row.id and (row.state, row.phase) != (RUNNING, phase)]:
            del self._enrolments[one]  # what was seen of the fleet before a pause is old when it goes on
        if row.state in (ROLLED_BACK, ABORTED) or (row.state in (DRAFT, DONE) and not self._decided(row)):
            return
        orders = orders_of(self.store, held, row, now)
        done.notes += [f"{row.name}: {fault}" for fault in orders.faults]
        for _ in range(_TURNS):
            move = self._turn(row, orders, held, now, done)
            if move is None or (moved := self._moved(row, orders, move, now)) is None:
                return
            if moved.state != row.state or moved.phase != row.phase:
                phase = f" phase {moved.phase + 1}" if moved.state in (RUNNING, SOAKING, PAUSED) else ""
                done.lines.append(f"{row.name}: {row.state} > {moved.state}{phase}: {moves.why(moved)}")
            row = moved

    def _decided(self, row: RolloutRow) -> bool:
        """Return whether something was decided that was not heeded yet; without a look at seals."""
        rows = self.store.rollouts.decisions(row.id)
        return bool(rows) and rows[-1].number > moves.heeded(row)

    def _moved(self, row: RolloutRow, orders: RolloutOrders, move: RolloutMove, now: int) -> RolloutRow | None:
        """Move a rollout on, and return how it stands; None where another director has moved it meanwhile."""
        fresh = next(_fresh(row, orders), None)
        number = fresh.said.number if fresh is not None else moves.heeded(row)
        reason = moves.marked(moves.why(row) if move.reason is None else move.reason, number)
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) != row:
                return None
            if move.state == RUNNING and row.state != RUNNING:
                self._end_followers(row, now)
            return self.store.rollouts.move(row.id, state=move.state, phase=move.phase, reason=reason, now=now)

    def _turn(self, row: RolloutRow, orders: RolloutOrders, held: Trusted, now: int, done: StepDone) -> RolloutMove | None:
        """Return how a rollout goes on; None when nothing is left to be done now."""
        fresh = next(_fresh(row, orders), None)
        if fresh is not None:
            stand = RolloutStanding.of(self.store, row)
            move = moves.by_order(row, orders, fresh, offered=stand.offered, served=stand.served)
            done.notes += [f"{row.name}: {move.note}"] * bool(move.note)
            return move
        if row.state == HALTED:
            self._take_back(row, _NOT_SERVED, now, done)
            return None
        if row.state == ROLLING_BACK:
            return self._rolling_back(row, now, done)
        if row.state not in moves.UNDER_WAY:
            return None
        if orders.plan is None:
            reason = f"{moves.SEAL}: {orders.faults[0]}"
            return RolloutMove(PAUSED, None, reason) if row.state != PAUSED else None
        return self._under_way(row, orders, held, now, done)

    def _under_way(self, row: RolloutRow, orders: RolloutOrders, held: Trusted, now: int, done: StepDone) -> RolloutMove | None:
        assert orders.plan is not None
        stand = RolloutStanding.of(self.store, row)
        halting = self._judge.halting(self.store, row, stand, orders.plan.gates)
        if halting is not None:
            return RolloutMove(HALTED, None, _said(halting))
        if row.state == PAUSED:
            return None
        if not orders.lets_run(served=stand.served > 0):
            reason = f"{moves.SEAL}: it is {row.state}, and no decision that is sealed by a key which speaks lets it run"
            return RolloutMove(PAUSED, None, reason)
        if row.phase >= len(orders.plan.phases):
            reason = f"{moves.SEAL}: its row is in phase {row.phase + 1}, and its plan has {len(orders.plan.phases)}"
            return RolloutMove(PAUSED, len(orders.plan.phases) - 1, reason)
        try:
            offer = RolloutOffer(orders.plan, *_stated(self.store, held, orders, now))
        except ModelWireError as error:
            return RolloutMove(PAUSED, None, f"{moves.SEAL}: {error.message}")
        if row.state == SOAKING:
            self._offer(row, offer, now, done)  # who waits still, where a person has waived the gate of the phase
            self._renew(row, offer, now, done)
            return self._soaking(row, orders, stand, now)
        return self._running(row, orders, offer, now, done)

    def _running(self, row: RolloutRow, orders: RolloutOrders, offer: RolloutOffer, now: int, done: StepDone) -> RolloutMove | None:
        assert orders.plan is not None
        follows = moves.word(row) == moves.FOLLOWS
        if follows or not self.store.rollout_steps.assigned_count(row.id, row.phase):
            nobody = self._take_in(row, offer, orders, now, done)
            if nobody is not None and not follows:
                return nobody
        self._offer(row, offer, now, done)
        self._renew(row, offer, now, done)
        stand = RolloutStanding.of(self.store, row)
        if follows or not stand.phase.assigned:
            return None
        waited = now - max(row.phase_at, row.changed_at)
        ruling = gates.success(stand.phase, orders.plan.gates, confirmed=False, waited=waited)
        if ruling.ruling is Ruling.PASS:
            if self.store.rollouts.waiting(row.id, 1, row.phase):
                return None  # whom rate or jitter hold up yet: after the last phase nobody would offer it to them
            return RolloutMove(SOAKING, None, _said(ruling))
        return RolloutMove(PAUSED, None, _said(ruling)) if ruling.ruling is Ruling.PAUSE else None

    def _soaking(self, row: RolloutRow, orders: RolloutOrders, stand: RolloutStanding, now: int) -> RolloutMove | None:
        assert orders.plan is not None
        soak, waived = soak_of(orders.plan, row.phase), moves.word(row) == moves.WAIVED
        if now - row.changed_at < soak if waived else 0 <= now - row.phase_at < soak:
            return None
        if not waived:  # who has confirmed it has soaked by his own clock
            ruling = gates.success(stand.phase, orders.plan.gates, confirmed=True, waited=now - row.changed_at - soak)
            if ruling.ruling is not Ruling.PASS:
                return RolloutMove(PAUSED, None, _said(ruling)) if ruling.ruling is Ruling.PAUSE else None
        ruling = self._judge.at_end(self.store, row, stand, orders.plan.gates)
        if ruling.ruling is Ruling.PASS:
            return moves.next_phase(row, orders, _said(ruling))
        return RolloutMove(HALTED if ruling.ruling is Ruling.HALT else PAUSED, None, _said(ruling))

    def _take_in(self, row: RolloutRow, offer: RolloutOffer, orders: RolloutOrders, now: int, done: StepDone) -> RolloutMove | None:
        """Take the devices of a phase in, once the whole fleet was looked at; a move when nobody comes in."""
        if moves.word(row) == moves.FOLLOWS and 0 <= now - self._looked.get(row.id, 0) < LOOK_EVERY:
            return None
        if any(id != row.id and one.model == row.model for (id, _), one in self._enrolments.items()):
            done.unfinished = True  # both would find the same devices
            return None
        one = self._enrolments.setdefault((row.id, row.phase), Enrolment(row.id, offer.plan, offer.variant))
        if not one.go_on(self.store):
            done.unfinished = True
            return None
        del self._enrolments[row.id, row.phase]
        self._looked[row.id] = now
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) != row:
                return None
            taken = self.store.rollouts.assign(row.id, one.chosen(self.store, row.phase), row.phase, now)
        done.assigned += taken
        if taken:
            return None
        if not self.store.rollout_steps.assigned_count(row.id):
            return RolloutMove(PAUSED, None, f"{gates.GateName.PATIENCE.value}: nobody whom it is for can take it now")
        return moves.next_phase(row, orders, f"phase: {row.phase + 1} takes nobody in beside those of the phases before")

    def _offer(self, row: RolloutRow, offer: RolloutOffer, now: int, done: StepDone) -> None:
        """RolloutOffer it to those who wait, as many as the rate and the jitter let this step."""
        room = self._room(row, offer, now)
        if room <= 0:
            return
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) != row:
                return
            for one in self.store.rollouts.waiting(row.id, room, row.phase):
                offered(self.store, self.key, row, offer, one, now)
                done.offered += 1

    def _renew(self, row: RolloutRow, offer: RolloutOffer, now: int, done: StepDone) -> None:
        """RolloutOffer it anew to those who did not hear of it in time."""
        if 0 <= now - self._renewed.get(row.id, 0) < LOOK_EVERY:
            return
        self._renewed[row.id] = now
        before = now - offer.plan.expiry - DAY * (offer.plan.window[0] != offer.plan.window[1])
        room = self._room(row, offer, now, spread=False)
        if room <= 0:
            return
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) != row:
                return
            late = self.store.rollout_steps.under_way(row.id, (State.OFFERED.value,), back=False, before=before, limit=room)
            for one in late:
                if not self.store.rollouts.is_frozen(one.device, one.model):
                    offered(self.store, self.key, row, offer, one, now)
                    done.offered += 1

    def _room(self, row: RolloutRow, offer: RolloutOffer, now: int, *, spread: bool = True) -> int:
        plan, room = offer.plan, BATCH
        if plan.rate:
            room = min(room, plan.rate - self.store.rollout_steps.offers_between(row.id, now - 60, now, plan.rate))
        if plan.jitter and spread:
            # Devices wait in an order that is chance already: as many as the time that has passed makes due.
            of = self.store.rollout_steps.assigned_count(row.id, row.phase)
            left = sum(one.devices for one in self.store.rollouts.tallies(row.id) if (one.phase, one.state) == (row.phase, WAITING))
            begun = now - row.phase_at  # below 0: by a clock that was ahead
            due = math.ceil(of * min(1.0, (begun + 1) / plan.jitter)) if begun >= 0 else of
            room = min(room, due - (of - left))
        return room

    def _rolling_back(self, row: RolloutRow, now: int, done: StepDone) -> RolloutMove | None:
        sent, kept = self._take_back(row, (*_NOT_SERVED, *_SERVED), now, done)
        self._repeat_back(row, now, done)
        if sent == BATCH:
            return None
        tallies = self.store.rollouts.tallies(row.id)
        back = [one for one in tallies if one.back]
        waits = sum(one.devices for one in back if one.state in _OPEN)
        if waits and self._any_may_answer(row, now):
            return None
        late = now - row.changed_at >= ANSWERED
        stayed = sum(one.devices for one in back if one.state not in _OPEN and one.state != State.CONFIRMED.value)
        parts = [f"{sum(one.devices for one in back if one.state == State.CONFIRMED.value)} devices are back on what they had"]
        parts += [f"{stayed} ended otherwise"] * bool(stayed)
        parts += [f"{waits} {'have not answered' if late else 'are away'}, and go back when they come"] * bool(waits)
        parts += [f"of {kept} it is not known what they had"] * bool(kept)
        newer = sum(one.devices for one in tallies if not one.back and one.state in _SERVED) - kept
        parts += [f"{newer} were told something newer since, and are left as they are"] * (newer > 0)
        ended = ABORTED if moves.word(row) == "abort" else ROLLED_BACK
        return RolloutMove(ended, None, f"{moves.word(row)}: {'; '.join(parts)}")

    def _any_may_answer(self, row: RolloutRow, now: int) -> bool:
        """Return whether one that was sent back and has not answered is on line, or was told of it only just now."""
        if now - row.changed_at >= ANSWERED:
            return False
        after, look = 0, self.store.rollout_steps.under_way
        while waits := look(row.id, _OPEN, back=True, before=now + 1, after=after, limit=2 * BATCH):
            for one in waits:
                presence = self.store.lineages.presence(one.lineage)
                if now - one.offered_at < AWAY or (presence is not None and presence.online):
                    return True
            after = waits[-1].lineage
        return False

    def _take_back(self, row: RolloutRow, states: Sequence[str], now: int, done: StepDone) -> tuple[int, int]:
        """Send back, or tell to stay, devices in some states; return how many, and of how many it is not known what they had."""
        sent = kept = after = 0
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) != row:
                return BATCH, 0
            while sent < BATCH:
                page: list[AssignmentRow] = self.store.rollout_steps.under_way(
                    row.id, states, back=False, before=now + 1, after=after, limit=BATCH - sent
                )
                if not page:
                    break
                for one in page:
                    known = taken_back(self.store, self.key, row, one, now) is not None
                    sent, kept, after = sent + known, kept + (not known), one.lineage
        done.taken_back += sent
        return sent, kept

    def _repeat_back(self, row: RolloutRow, now: int, done: StepDone) -> None:
        if 0 <= now - self._renewed.get(row.id, 0) < LOOK_EVERY:
            return
        self._renewed[row.id] = now
        with self.store.transaction():
            if self.store.rollouts.by_id(row.id) == row:
                late = self.store.rollout_steps.under_way(row.id, _OPEN, back=True, before=now - BACK_EXPIRY, limit=BATCH)
                done.taken_back += sum(taken_back(self.store, self.key, row, one, now) is not None for one in late)

    def _end_followers(self, row: RolloutRow, now: int) -> None:
        """End rollouts of the same model that only take in who comes later: what is newer begins."""
        for other in self.store.rollouts.all(ended=False):
            if other.id != row.id and other.model == row.model and moves.word(other) == moves.FOLLOWS and other.state == RUNNING:
                reason = moves.marked(f"{moves.FOLLOWS}: {row.name} begins, which is newer", moves.heeded(other))
                self.store.rollouts.move(other.id, state=DONE, reason=reason, now=now)


def _fresh(row: RolloutRow, orders: RolloutOrders) -> Iterator[SealedOrder]:
    """Give decisions that were not heeded yet, by number."""
    last = moves.heeded(row)
    return (one for one in orders.orders if one.said.number > last)


def _stated(store: SqliteStore, held: Trusted, orders: RolloutOrders, now: int) -> tuple[Variant, bytes]:
    assert orders.plan is not None
    said, row = variant_in(store, held, orders.plan, now)
    return said, row.statement


def _said(ruling: GateRuling) -> str:
    return f"{ruling.gate.value}: {ruling.reason}"
