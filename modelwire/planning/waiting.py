"""Whether to send now or to wait and coalesce: what waiting comes to, solved exactly over a small grid.

A wake-up is paid once for all that is sent in it, so waiting saves; each update and hour that the centre goes without costs, so waiting
has an end. State: how many updates wait, how long the oldest has, whether there is a connection. Updates come, and connections come and go,
at random with known means. The best policy for ever after has a cost per second, g (Dinkelbach's iteration over one cycle from upload to
upload finds it); waiting now is worth what it saves against g. Elementwise float arithmetic alone, so the same bits on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .candidates import Bar, Candidate
from .conditions import Conditions, Forecast
from .costs import terms_of
from .links import F64
from .prices import Prices

UPDATES_MOST = 128  # further ones that are looked ahead to; then what waits goes
SLOTS_MOST = 128  # of the grid, from now to where all goes at the latest
_ROUNDS = 12  # of Dinkelbach's iteration: it is done after two to four
_LEAST_S = 1e-3  # shorter intervals, windows and gaps count as this
_TERMS = 6  # bytes, energy, storage, recovery, accuracy, waiting; then the seconds


@dataclass(frozen=True, slots=True)
class Outlook:
    """What waiting for at least one more update, and then going by the best policy, comes to against sending now."""

    barred: Bar
    terms: tuple[float, ...] = (0.0,) * _TERMS
    seconds: float = 0.0  # until the upload, expected
    now: int = 1
    updates: float = 1.0  # in that upload, expected


@dataclass(frozen=True, slots=True)
class _Grid:
    """Times of the forecast in slots: chance of an update, of losing and of finding the connection, in each."""

    slot: float
    arrival: float
    loss: float
    finding: float
    gap: float
    interval: float
    per_slot: float  # price of one update that waits for one slot

    def slots(self, seconds: float) -> int:
        return min(SLOTS_MOST, max(1, math.ceil(seconds / self.slot)))


def outlook(candidates: Sequence[Candidate], conditions: Conditions, prices: Prices) -> Outlook:
    """Return what waiting comes to with these allowed candidates, in money; or why it is no choice."""
    forecast = conditions.forecast
    if not candidates:
        return Outlook(Bar.NOTHING)
    if conditions.link.always_on:
        return Outlook(Bar.ALWAYS_ON)
    if forecast is None:
        return Outlook(Bar.UNTOLD)
    left = forecast.wait_most_s - forecast.oldest_s
    if left <= 0:
        return Outlook(Bar.WAITED, now=forecast.waiting)
    fresh = _cheapest(candidates, conditions, prices, UPDATES_MOST, 0)
    lots = _lots(fresh, prices.per_hour_waiting / 3600.0, max(forecast.interval_s.value, _LEAST_S))
    most = min(UPDATES_MOST, 8 + 2 * int(lots.argmin()))
    grid = _grid_of(forecast, prices, most)
    share = _share(fresh[:, :most].tobytes(), most, float(lots.min()), grid, grid.slots(forecast.wait_most_s))
    coming = _cheapest(candidates, conditions, prices, most, max(1, forecast.waiting))
    rate = _added(share)
    _, _, waits = _backward(coming, grid, rate, grid.slots(left), max(1, forecast.waiting))
    seconds = float(waits[_TERMS])
    terms = tuple(float(waits[i]) - seconds * share[i] for i in range(_TERMS))
    seconds = min(seconds, left + grid.gap)  # a slot of the grid may be longer than what is left
    return Outlook(Bar.NONE, terms, seconds, forecast.waiting, forecast.waiting + seconds / grid.interval)


def _grid_of(forecast: Forecast, prices: Prices, updates: int) -> _Grid:
    interval = max(forecast.interval_s.value, _LEAST_S)
    loss = finding = gap = 0.0
    if forecast.window_s is not None and forecast.gap_s is not None and forecast.gap_s.value > 0:
        gap = max(forecast.gap_s.value, _LEAST_S)
    # So many updates are there within 1.5 times their intervals, nearly always: a wait_most beyond that binds no more.
    most = min(max(forecast.wait_most_s, _LEAST_S), 1.5 * updates * interval + gap)
    slot = max(most / SLOTS_MOST, min(interval / 4.0, most / 16.0))
    if slot > interval / 2.0:  # a slot holds one update at most: where many are awaited, one comes in each
        slot = interval
    if gap and forecast.window_s is not None:
        loss = min(1.0, slot / max(forecast.window_s.value, _LEAST_S))
        finding = min(1.0, slot / gap)
    return _Grid(slot, min(1.0, slot / interval), loss, finding, gap, interval, prices.per_hour_waiting * slot / 3600.0)


def _lots(fresh: F64, held: float, interval: float) -> F64:
    """Return the cost per second of always sending so many updates at once, were there always a connection and no wait_most, shape (M,).

    It is where the iteration begins, and it says how far to look ahead. held: price of an update that waits a second.
    """
    number = np.arange(1.0, fresh.shape[1] + 1.0)
    return np.asarray((_cost(fresh) + held * interval * number * (number - 1.0) / 2.0) / (number * interval))


def _cheapest(candidates: Sequence[Candidate], conditions: Conditions, prices: Prices, most: int, waiting: int) -> F64:
    """Return the terms of the cheapest form by the number of updates in it, shape (6, most).

    waiting: as many as wait now, with 0 to most - 1 further ones; 0: 1 to `most` that come after an upload. A wake-up is always paid:
    that the radio is up now says nothing of later.
    """
    out = np.zeros((_TERMS, most))
    updates = np.arange(most, dtype=np.float64) + max(1, waiting)
    for place, candidate in enumerate(candidates):
        sizes = np.array(candidate.sizes(most, fresh=not waiting), dtype=np.float64)
        terms = terms_of(candidate, sizes, updates, conditions, prices, awake=False)
        cheaper = _cost(terms) < _cost(out[:5])
        if not place:
            cheaper[:] = True
        out[:5] = np.where(cheaper, terms, out[:5])
    return out


def _added(terms: Sequence[float]) -> float:
    total = 0.0
    for term in terms:  # one order on every Python: since 3.12 sum() compensates
        total += term
    return total


@lru_cache(8)  # a forecast stands while many updates come
def _share(terms: bytes, count: int, rate: float, grid: _Grid, slots: int) -> tuple[float, ...]:
    """Return the cost per second of the best policy from upload to upload, by term.

    terms: what `_cheapest` gave, of `count` updates; rate: a first guess of the sum.
    """
    fresh = np.frombuffer(terms).reshape(_TERMS, count)
    open_then = 1.0
    if grid.finding:
        # Between an upload and the next update the connection may have gone: both are memoryless, so two fractions say it.
        out, back = grid.loss / (grid.loss + grid.arrival), grid.finding / (grid.finding + grid.arrival)
        open_then = (1.0 - out) / (1.0 - out * back)
    share, least = (0.0,) * _TERMS, math.inf
    for _ in range(_ROUNDS):
        opened, closed, _ = _backward(fresh, grid, rate, slots, 1)
        cycle = open_then * opened[:, 0] + (1.0 - open_then) * closed[:, 0]
        found = tuple((cycle[:_TERMS] / (cycle[_TERMS] + grid.interval)).tolist())  # of a policy, so never below the best one's
        rate = _added(found)
        if not rate < least * (1.0 - 1e-9):
            break
        share, least = found, rate
    return share


def _backward(costs: F64, grid: _Grid, rate: float, slots: int, waiting: int) -> tuple[F64, F64, F64]:
    """Return what is to come with and without a connection, shape (7, M), and what waiting a slot with the first number comes to, (7,).

    costs: terms of an upload for each number of updates, `waiting` of them at place 0. The last row counts seconds; an optimum is one of
    cost less rate * seconds. At the end of the slots, and at the largest number, all goes as soon as there is a connection.
    """
    count = costs.shape[1]
    send = np.zeros((_TERMS + 1, count))
    send[:_TERMS] = costs
    held = np.arange(waiting, waiting + count, dtype=np.float64)
    slot = np.zeros((_TERMS + 1, count))
    slot[_TERMS - 1] = held * grid.per_slot
    slot[_TERMS] = grid.slot
    opened, closed = send, _until_found(send, held, grid) if grid.finding else send
    stuck = closed[:, -1]
    goes = _total(send, rate)
    waits = opened
    for _ in range(slots):
        waits = slot + _arrivals(_mixed(opened, closed, grid.loss), grid.arrival)
        if grid.finding:
            closed = slot + _arrivals(_mixed(closed, opened, grid.finding), grid.arrival)
            closed[:, -1] = stuck
        better = _total(waits, rate) < goes
        better[-1] = False
        opened = np.where(better, waits, send)
    return opened, closed, waits[:, 0]


def _total(values: F64, rate: float) -> F64:
    return np.asarray(_cost(values) - rate * values[_TERMS])


def _cost(terms: F64) -> F64:
    """Return the sum of the terms, in their order: numpy's own sum has another one."""
    total = terms[0]
    for term in terms[1:_TERMS]:
        total = total + term
    return np.asarray(total)


def _mixed(stays: F64, turns: F64, chance: float) -> F64:
    return stays if chance == 0 else (1.0 - chance) * stays + chance * turns


def _arrivals(values: F64, chance: float) -> F64:
    more = np.concatenate([values[:, 1:], values[:, -1:]], axis=1)
    return (1.0 - chance) * values + chance * more


def _until_found(send: F64, held: F64, grid: _Grid) -> F64:
    """Return what is to come when all goes once there is a connection again: updates that come until then go along."""
    more = grid.gap / grid.interval  # expected
    count = send.shape[1]
    place = np.minimum(np.arange(count) + more, count - 1.0)
    low = place.astype(np.int64)
    high = np.minimum(low + 1, count - 1)
    part = place - low
    out = (1.0 - part) * send[:, low] + part * send[:, high]
    price = grid.per_slot / grid.slot
    out[_TERMS - 1] += price * (held * grid.gap + more * grid.gap)
    out[_TERMS] += grid.gap
    return np.asarray(out)
