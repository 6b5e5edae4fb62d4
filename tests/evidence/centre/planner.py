"""The planner against the optimum with the same knowledge, and against hindsight, over 1,000 random traces.

    python -m tests.evidence.centre.planner

A trace is a link, prices, sizes, updates that come at random and connections that come and go at random, in slots of time. The planner is
asked when an update comes, when a connection is there again and when wait_most is over; it is told the means and nothing of the slots. The
optimum is an exact dynamic programme over those very slots and chances, written here without a line of the planner: its policy minimises
the expected cost per second for ever, by which form at which number of updates, age and state of the link. Hindsight knows the trace.
Gap: realised cost of the planner over that of the optimum's policy on the same trace, less 1.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modelwire.planning import (
    PROFILES,
    Bar,
    Candidate,
    Choice,
    Conditions,
    Figure,
    Forecast,
    PlanNote,
    Prices,
    decide,
)

TRACES = 1000
FACTORS = (0.4, 0.8, 1.8)  # of what an update takes, where sizes vary: 1 in the mean
UPDATES = 200  # that may wait in the programme: no trace comes near

Policy = NDArray[np.bool_]  # send? by age in slots and updates - 1; with a connection


@dataclass(frozen=True)
class World:
    """One link, its prices and what comes: all that the chances of a trace hang on."""

    seed: int
    link: str
    prices: Prices
    interval: float  # seconds
    slots_an_interval: int
    wait_slots: int
    window: float | None  # seconds; None: always connected
    gap: float
    forms: tuple[tuple[Candidate, float, float], ...]  # with the bytes of one update and of a full one, at factor 1
    recoveries: float
    months: float
    watts: float
    rate: float  # weights/s of encoding
    recipes: bool

    @property
    def slot(self) -> float:
        return self.interval / self.slots_an_interval

    @property
    def loss(self) -> float:
        return 0.0 if self.window is None else min(1.0, self.slot / self.window)

    @property
    def finding(self) -> float:
        return 0.0 if self.window is None else min(1.0, self.slot / self.gap)

    @property
    def held(self) -> float:
        """Price of one update that waits for one slot."""
        return self.prices.per_hour_waiting * self.slot / 3600.0


def world(seed: int) -> World:
    """Draw one."""
    rng = random.Random(seed)

    def spread(least: float, most: float) -> float:
        return math.exp(rng.uniform(math.log(least), math.log(most)))

    usual = Prices()
    prices = Prices(
        usual.per_byte * spread(0.1, 10), usual.per_joule * spread(0.1, 10), usual.per_byte_month * spread(0.1, 10),
        usual.per_second * spread(0.1, 10), usual.per_accuracy * spread(0.001, 1), usual.per_hour_waiting * spread(0.03, 30),
    )  # fmt: skip
    weights = int(spread(5e3, 3e6))
    interval = spread(60, 86400)
    connected = rng.random() < 0.5
    forms = [(Candidate(Choice.SNAPSHOT, 3.2 * weights, encoded=weights, recover_s=spread(0.01, 0.2)), 0.0, 3.2 * weights)]
    lost = spread(1e-6, 1e-3)
    for density in (0.001, 0.003, 0.01, 0.03):
        size = 60 + 1.1 * density * weights
        delta = Candidate(Choice.DELTA, size, density, encoded=weights, recover_s=spread(0.05, 1), accuracy_lost=lost * 0.001 / density)
        forms.append((delta, size, 1.2 * weights))
    forms.append((Candidate(Choice.EXACT, 1.6 * weights, encoded=weights, recover_s=spread(0.05, 1)), 1.6 * weights, 2.2 * weights))
    forms.append((Candidate(Choice.RECIPE, spread(5e3, 2e5), recover_s=spread(0.1, 30)), spread(5e3, 2e5), math.inf))
    window, gap = interval * spread(0.1, 20), interval * spread(0.05, 5)
    return World(
        seed, rng.choice(sorted(PROFILES)), prices, interval, 8, int(8 * spread(0.5, 40)), None if connected else window,
        gap, tuple(forms), spread(0.01, 3), spread(1, 120), spread(0.5, 5), spread(1e6, 1e8), rng.random() < 0.5,
    )  # fmt: skip


# What an upload costs, written out once more.


def size_of(w: World, place: int, updates: float) -> float:
    """Bytes of so many updates of the mean size in one."""
    form, alone, full = w.forms[place]
    if form.choice is Choice.SNAPSHOT:
        return form.bytes
    if math.isinf(full):
        return updates * alone
    return full * (1.0 - (1.0 - alone / full) ** updates)  # each touches this share of a full update, at random


def upload(w: World, place: int, updates: int, mean: float | None = None) -> float:
    """Cost of an upload of so many updates, which take as much as `mean` of the mean size."""
    form, link, p = w.forms[place][0], PROFILES[w.link], w.prices
    size = size_of(w, place, updates if mean is None else mean)
    on_air = size if link.frame is None else -(-size // link.frame) * link.frame
    joules = (0.0 if link.always_on else link.joules_per_wakeup) + on_air * link.joules_per_byte + w.watts * form.encoded / w.rate
    return (
        p.per_byte * size + p.per_joule * joules + p.per_byte_month * size * w.months
        + updates * (p.per_second * w.recoveries * form.recover_s + p.per_accuracy * form.accuracy_lost)
    )  # fmt: skip


def allowed(w: World) -> list[int]:
    return [i for i, (form, _, _) in enumerate(w.forms) if form.choice is not Choice.RECIPE or w.recipes]


def cheapest(w: World) -> NDArray[np.float64]:
    """The cost of the best upload by updates - 1."""
    return np.array([min(upload(w, i, n) for i in allowed(w)) for n in range(1, UPDATES + 1)])


# The optimum with the same knowledge.


def programme(w: World, costs: NDArray[np.float64], rate: float) -> tuple[float, Policy]:
    """Return what a cycle from upload to upload is worth against `rate` a second, and the policy that is best against it.

    A slot: the connection turns, an update comes, then one sends or waits. Values are by updates - 1.
    """
    p, loss, finding = 1.0 / w.slots_an_interval, w.loss, w.finding
    held = np.arange(1, UPDATES + 1) * w.held
    idle = rate * w.slot

    def come(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return (1 - p) * values + p * np.append(values[1:], values[-1])

    # At wait_most: with a connection all goes; without one it goes once there is one. From the largest number backwards.
    last = np.zeros_like(costs)
    after = come(costs)
    stays = (1 - finding) * (1 - p)
    for n in range(UPDATES - 1, -1, -1):
        nxt = last[n + 1] if n + 1 < UPDATES else None
        constant = held[n] - idle + finding * after[n]
        if nxt is None:
            last[n] = constant / (1 - (1 - finding)) if finding else constant
        else:
            last[n] = (constant + (1 - finding) * p * nxt) / (1 - stays)
    opened, closed = costs, last
    sends = np.ones((w.wait_slots + 1, UPDATES), bool)
    for age in range(w.wait_slots - 1, -1, -1):
        come_open, come_closed = come(opened), come(closed)
        waits = held - idle + (1 - loss) * come_open + loss * come_closed
        closed = held - idle + finding * come_open + (1 - finding) * come_closed
        sends[age] = costs <= waits
        sends[age, -1] = True
        opened = np.where(sends[age], costs, waits)
    # Nothing waits: idle until the first update comes.
    first_open, first_closed = float(opened[0]), float(closed[0])
    # values i (open before), j (closed before): i = -idle + (1-loss)(p F + (1-p) i) + loss (p G + (1-p) j), and j alike
    a, b = 1 - (1 - loss) * (1 - p), -loss * (1 - p)
    c, d = -finding * (1 - p), 1 - (1 - finding) * (1 - p)
    r = -idle + p * ((1 - loss) * first_open + loss * first_closed)
    s = -idle + p * (finding * first_open + (1 - finding) * first_closed)
    return (r if w.window is None else (r * d - b * s) / (a * d - b * c)) / (a if w.window is None else 1.0), sends


def optimum(w: World, costs: NDArray[np.float64]) -> tuple[float, Policy]:
    """Return the least expected cost per second, where a cycle's worth is 0, and its policy. By regula falsi (Illinois)."""
    low, high = 0.0, float(costs[0]) / w.interval * 2 + w.held / w.slot * (w.gap / w.interval + 1) + 1e-30
    at_low, at_high = programme(w, costs, low)[0], programme(w, costs, high)[0]
    while at_high > 0:
        high *= 2
        at_high = programme(w, costs, high)[0]
    side = 0
    for _ in range(60):
        rate = (low * at_high - high * at_low) / (at_high - at_low)
        worth = programme(w, costs, rate)[0]
        if abs(high - low) <= 1e-10 * high or abs(worth) <= 1e-10 * float(costs[0]):
            break
        if worth > 0:
            low, at_low, at_high = rate, worth, at_high / 2 if side == 1 else at_high
            side = 1
        else:
            high, at_high, at_low = rate, worth, at_low / 2 if side == -1 else at_low
            side = -1
    return rate, programme(w, costs, rate)[1]


# A trace, and who goes over it.


@dataclass(frozen=True)
class Trace:
    comes: Sequence[bool]
    connected: Sequence[bool]
    sizes: Sequence[float]  # of each update that comes, against the mean

    @property
    def changes(self) -> list[bool]:
        """At which slots anything happened: an update, or a connection that was not there before."""
        return [self.comes[t] or (self.connected[t] and t > 0 and not self.connected[t - 1]) for t in range(len(self.comes))]


def trace(w: World, updates: int, *, varied: bool) -> Trace:
    rng = random.Random(w.seed ^ 0x7ACE)
    comes, connected = [], []
    now = True
    while sum(comes) < updates:
        now = rng.random() >= w.loss if now else rng.random() < w.finding
        connected.append(now)
        comes.append(rng.random() < 1.0 / w.slots_an_interval)
    return Trace(comes, connected, [rng.choice(FACTORS) if varied else 1.0 for _ in range(updates)])


class ByProgramme:
    """Goes by the optimum's policy."""

    def __init__(self, w: World, policy: Policy) -> None:
        self.w, self.policy = w, policy

    def send(self, updates: int, size: float, age: int, changed: bool) -> int | None:
        if not self.policy[min(age, self.w.wait_slots), updates - 1]:
            return None
        return min(allowed(self.w), key=lambda i: (upload(self.w, i, updates, size), i))


class ByPlanner:
    """Asks the planner, which is told means and sizes."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.before: PlanNote | None = None
        self.asked = 0

    def send(self, updates: int, size: float, age: int, changed: bool) -> int | None:
        w = self.w
        if not changed and age < w.wait_slots:
            return None
        self.asked += 1
        candidates = []
        for i, (form, alone, full) in enumerate(w.forms):
            grows = form.choice is not Choice.SNAPSHOT
            most = None if math.isinf(full) else full
            candidates.append(replace(form, bytes=size_of(w, i, size), alone=alone if grows else None, full=most))
        forecast = Forecast(
            Figure(w.interval), updates, age * w.slot, w.wait_slots * w.slot,
            None if w.window is None else Figure(w.window), None if w.window is None else Figure(w.gap),
        )  # fmt: skip
        conditions = Conditions(
            PROFILES[w.link], encode_rate=Figure(w.rate), watts=Figure(w.watts), recoveries=Figure(w.recoveries), months=Figure(w.months),
            recipes=w.recipes, trainer_known=True, forecast=forecast,
        )  # fmt: skip
        plan = decide(candidates, conditions, w.prices, self.before)
        self.before = plan.note
        if plan.choice is Choice.WAIT:
            assert age < w.wait_slots and plan.rows[-1].barred is Bar.NONE
            return None
        assert plan.chosen is not None
        return plan.chosen


def cost_of(w: World, t: Trace, who: ByProgramme | ByPlanner, rate: float) -> tuple[float, int]:
    """Return what the trace costs with `who` deciding, and the uploads. What waits at its end is taken at the optimum's price each."""
    total, uploads, waiting, age, size, come = 0.0, 0, 0, 0, 0.0, 0
    changes = t.changes
    for slot in range(len(t.comes)):
        if t.comes[slot]:
            waiting, size, come = waiting + 1, size + t.sizes[come], come + 1
        if not waiting:
            continue
        sent = who.send(waiting, size, age, changes[slot]) if t.connected[slot] else None
        if sent is not None:
            total += upload(w, sent, waiting, size)
            uploads, waiting, age, size = uploads + 1, 0, 0, 0.0
        else:
            total += waiting * w.held
            age += 1
    return total + waiting * rate * w.interval, uploads


def in_hindsight(w: World, t: Trace, rate: float) -> float:
    """Return the least cost of the trace for one who knows it: over all ways to cut it into uploads."""
    arrivals = [slot for slot in range(len(t.comes)) if t.comes[slot]]
    sums, sizes = np.concatenate([[0], np.cumsum(arrivals)]), np.concatenate([[0.0], np.cumsum(t.sizes)])
    most = 0 if PROFILES[w.link].always_on else w.wait_slots
    connected = np.concatenate([[0], np.cumsum(t.connected)])  # connected slots before each
    best = {0: 0.0}  # by updates that are gone

    def in_time(gone: int, slot: int) -> bool:
        """No connected slot lies between the time when the oldest must go and this one."""
        due = min(arrivals[gone] + most, slot)
        return not connected[slot] - connected[due]

    for slot in (s for s, changed in enumerate(t.changes) if changed and t.connected[s]):
        there = int(np.searchsorted(arrivals, slot, side="right"))
        for gone, cost in list(best.items()):
            if there > gone and in_time(gone, slot):
                waited = w.held * ((there - gone) * slot - (sums[there] - sums[gone]))
                sent = min(upload(w, i, there - gone, sizes[there] - sizes[gone]) for i in allowed(w))
                best[there] = min(best.get(there, math.inf), cost + waited + sent)
            elif there > gone:
                del best[gone]  # too late for ever
    end, n = len(t.comes), len(arrivals)
    return float(min(
        cost + w.held * ((n - gone) * end - (sums[n] - sums[gone])) + (n - gone) * rate * w.interval
        for gone, cost in best.items() if gone == n or in_time(gone, end)
    ))  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """What one trace came to. Gaps are shares."""

    gap: float
    hindsight: float
    varied: float | None  # the gap where sizes vary, of which both know the mean alone; None: not measured
    at_once: float  # the gap of one who never waits: what there was to lose
    link: str
    updates: float  # an upload, of the optimum
    seed: int


def gap_of(seed: int, varied: bool = True) -> Gap:
    """Go over one trace, or two: the second with sizes that vary."""
    w = world(seed)
    costs = cheapest(w)
    if PROFILES[w.link].always_on:  # nothing waits there, for nobody: what is left is which form goes
        rate, policy = float(costs[0]) / w.interval, np.ones((w.wait_slots + 1, UPDATES), bool)
    else:
        rate, policy = optimum(w, costs)
    updates = 90
    least, uploads = cost_of(w, trace(w, updates, varied=False), ByProgramme(w, policy), rate)
    if uploads < 30:  # some thirty cycles, or chance speaks louder than the policy
        updates = min(600, 30 * updates // max(1, uploads))
    t = trace(w, updates, varied=False)
    least, uploads = cost_of(w, t, ByProgramme(w, policy), rate)
    cost, _ = cost_of(w, t, ByPlanner(w), rate)
    at_once, _ = cost_of(w, t, ByProgramme(w, np.ones_like(policy)), rate)
    other = None
    if varied:
        v = trace(w, updates, varied=True)
        other = cost_of(w, v, ByPlanner(w), rate)[0] / cost_of(w, v, ByProgramme(w, policy), rate)[0] - 1.0
    hindsight = cost / in_hindsight(w, t, rate) - 1.0
    return Gap(cost / least - 1.0, hindsight, other, at_once / least - 1.0, w.link, updates / max(1, uploads), seed)


def measure(full: bool = False) -> dict[str, float]:
    """Return the mean and the worst gap in percent over 1,000 traces; how far from hindsight, and which traces are worst, to stderr.

    full: with sizes that vary on each trace; else on every eighth.
    """
    found = []
    jobs = [(seed, full or seed % 8 == 0) for seed in range(TRACES)]
    with multiprocessing.Pool(max(1, min(8, os.cpu_count() or 1))) as pool:
        for done, gap in enumerate(pool.imap(_gap_of, jobs, 5), 1):
            found.append(gap)
            if done % 100 == 0:
                print(f"planner: {done} of {TRACES} traces, mean gap {100 * statistics.mean(f.gap for f in found):.2f} %", file=sys.stderr)
    return report(found)


def _gap_of(job: tuple[int, bool]) -> Gap:
    return gap_of(*job)


def report(found: Sequence[Gap]) -> dict[str, float]:
    """Print the gaps by link and the worst traces to stderr; return them over all, in percent."""
    for link in sorted({f.link for f in found}):
        of = [f for f in found if f.link == link]
        parts = [f"{name} {100 * statistics.mean(each):.2f} % worst {100 * max(each):.2f} %" for name, each in _columns(of).items()]
        an_upload = statistics.mean(f.updates for f in of)
        print(f"planner: {link:13} {len(of):3} traces, {an_upload:4.1f} updates an upload: {'; '.join(parts)}", file=sys.stderr)
    staked = [f for f in found if f.at_once > 0.01]
    if staked:
        lost = statistics.mean(f.gap / f.at_once for f in staked)
        print(f"planner: {len(staked)} traces where sending at once costs over 1 % more; lost of that: {100 * lost:.2f} %", file=sys.stderr)
    for f in sorted(found, key=lambda f: -f.gap)[:5]:
        print(f"planner: trace {f.seed}: {100 * f.gap:.2f} %, {f.link}, {f.updates:.1f} updates an upload", file=sys.stderr)
    out = {}
    for name, values in _columns(found).items():
        out[f"planner_mean_{name.replace(' ', '_')}_percent"] = round(100 * statistics.mean(values), 3)
        out[f"planner_worst_{name.replace(' ', '_')}_percent"] = round(100 * max(values), 3)
    return out


def _columns(found: Sequence[Gap]) -> dict[str, list[float]]:
    varied = [f.varied for f in found if f.varied is not None]
    return {
        "gap": [f.gap for f in found], "gap to hindsight": [f.hindsight for f in found], "gap where sizes vary": varied or [0.0],
        "gap of sending at once": [f.at_once for f in found],
    }  # fmt: skip


if __name__ == "__main__":
    print(measure())
