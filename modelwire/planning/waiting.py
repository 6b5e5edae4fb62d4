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
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .candidates import Bar, Candidate
from .conditions import Conditions, Forecast
from .costs import terms_of
from .prices import Prices

F64: TypeAlias = NDArray[np.float64]
UPDATES_MOST = 256  # further ones that are looked ahead to; then what waits goes
SLOTS_MOST = 384  # of the grid between an update's arrival and wait_most
_ROUNDS = 12  # of Dinkelbach's iteration: it is done after four to six
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
    grid = _grid_of(forecast, prices)
    most = _reach(candidates, conditions, prices, grid)
    fresh = _cheapest(candidates, conditions, prices, most, fresh=True)
    share = _share(fresh, grid, grid.slots(forecast.wait_most_s))
    coming = _cheapest(candidates, conditions, prices, most, fresh=False)
    rate = _added(share.tolist())
    _, _, waits = _backward(coming, grid, rate, grid.slots(left), forecast.waiting)
    seconds = float(waits[_TERMS])
    terms = tuple(float(waits[i]) - seconds * float(share[i]) for i in range(_TERMS))
    return Outlook(Bar.NONE, terms, seconds, forecast.waiting, forecast.waiting + seconds / grid.interval)


def _grid_of(forecast: Forecast, prices: Prices) -> _Grid:
    interval = max(forecast.interval_s.value, _LEAST_S)
    most = min(max(forecast.wait_most_s, _LEAST_S), SLOTS_MOST * interval)
    slot = max(most / SLOTS_MOST, min(interval / 4.0, most / 16.0))
    loss = finding = gap = 0.0
    if forecast.window_s is not None and forecast.gap_s is not None and forecast.gap_s.value > 0:
        gap = max(forecast.gap_s.value, _LEAST_S)
        loss = min(1.0, slot / max(forecast.window_s.value, _LEAST_S))
        finding = min(1.0, slot / gap)
    return _Grid(slot, min(1.0, slot / interval), loss, finding, gap, interval, prices.per_hour_waiting * slot / 3600.0)


def _reach(candidates: Sequence[Candidate], conditions: Conditions, prices: Prices, grid: _Grid) -> int:
    """Return how many updates to look ahead: some times as many as the square root of economic order lots says."""
    once = min(_added(terms_of(c, c.bytes, conditions, prices)) for c in candidates)
    held = grid.per_slot / grid.slot * grid.interval
    lot = UPDATES_MOST if held <= 0 else min(float(UPDATES_MOST), math.sqrt(2.0 * once / held))
    return min(UPDATES_MOST, 8 + 3 * int(lot))


def _cheapest(candidates: Sequence[Candidate], conditions: Conditions, prices: Prices, most: int, *, fresh: bool) -> F64:
    """Return the terms of the cheapest form by the number of updates in it, shape (6, most).

    fresh: 1 to `most` updates that come after an upload; else what waits now, with 0 to most - 1 further ones.
    """
    out = np.zeros((_TERMS, most))
    sizes = [_sizes(c, most, fresh=fresh) for c in candidates]
    for place in range(most):
        rows = [terms_of(c, size[place], conditions, prices) for c, size in zip(candidates, sizes, strict=True)]
        out[:5, place] = min(rows, key=_added)
    return out


def _added(terms: Sequence[float]) -> float:
    total = 0.0
    for term in terms:  # one order on every Python: since 3.12 sum() compensates
        total += term
    return total


def _sizes(candidate: Candidate, most: int, *, fresh: bool) -> list[float]:
    size = candidate.bytes
    if fresh:
        size = candidate.after(0.0 if candidate.alone is not None else candidate.bytes, 1)
    sizes = []
    for _ in range(most):
        sizes.append(size)
        size = candidate.after(size, 1)
    return sizes


def _share(fresh: F64, grid: _Grid, slots: int) -> F64:
    """Return the cost per second of the best policy from upload to upload, by term, shape (6,)."""
    open_then = 1.0
    if grid.finding:
        # Between an upload and the next update the connection may have gone: both are memoryless, so two fractions say it.
        out, back = grid.loss / (grid.loss + grid.arrival), grid.finding / (grid.finding + grid.arrival)
        open_then = (1.0 - out) / (1.0 - out * back)
    rate = float("inf")
    share = np.zeros(_TERMS)
    for _ in range(_ROUNDS):
        opened, closed, _ = _backward(fresh, grid, rate, slots, 1)
        cycle = open_then * opened[:, 0] + (1.0 - open_then) * closed[:, 0]
        share = cycle[:_TERMS] / (cycle[_TERMS] + grid.interval)
        found = _added(share.tolist())
        if not found < rate * (1.0 - 1e-9):
            break
        rate = found
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
    cost = values[0] + values[1] + values[2] + values[3] + values[4] + values[5]
    if math.isinf(rate):  # before anything is known of it: the shortest cycle, then the cheapest
        return np.asarray(values[_TERMS])
    return np.asarray(cost - rate * values[_TERMS])


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
