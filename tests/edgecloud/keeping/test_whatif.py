"""Planning a store from rows alone comes to what the compactor, the thinner and the recovery do one version at a time."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np
import pytest

from edgecloud.keeping import chains as reading
from edgecloud.keeping import whatif
from edgecloud.keeping.compacting import Compactor
from edgecloud.keeping.prices import StorePolicy
from edgecloud.keeping.promise import chosen, parse_promise
from edgecloud.keeping.retention import Needed, kept, parse_keep
from edgecloud.keeping.whatif import DELTA, RECIPE, SNAPSHOT, Chains
from edgecloud.registry import PolicyRow, SqliteStore, Status, VersionRow
from edgecloud.versions import route
from edgecloud.versions.route import Rates
from modelwire.update.sections import Kind, invert
from tests.edgecloud.centre import add_base
from tests.edgecloud.wide import WideDevice, add_version, enrol, wide_base

DAY = 86_400
TODAY = StorePolicy(parse_promise("2 states"), parse_keep("all"))


def some_chains(rng: np.random.Generator, *, lineages: int = 4, most: int = 40, states: float = 0.0, plain: bool = False) -> Chains:
    """Return random versions: of a few lineages, each of one or two epochs."""
    lengths = rng.integers(1, most, lineages)
    n = int(lengths.sum())
    lineage = np.repeat(np.arange(1, lineages + 1), lengths)
    first = np.concatenate(([True], lineage[1:] != lineage[:-1]))
    kind = rng.choice(4, n, p=(1, 0, 0, 0) if plain else (0.75, 0.1, 0.1, 0.05))
    kind[first] = DELTA
    size = np.maximum(1, np.round(400 * rng.lognormal(0, 1, n))).astype(np.int64)
    state_size = np.repeat(rng.integers(500, 20_000, lineages), lengths)
    return Chains(
        ids=np.arange(1, n + 1) * 3, lineage=lineage, size=size, kind=kind, fresh=first | ((rng.random(n) < 0.03) & (kind == DELTA)),
        at=np.sort(rng.integers(0, 6 * DAY, n)), state=np.where(rng.random(n) < states, state_size, 0), state_size=state_size.astype(float),
        weights=np.full(n, 5000.0), multiplies=np.where(kind == RECIPE, 1e5, 0.0), tagged=rng.random(n) < 0.1, gone=np.zeros(n, bool),
    )  # fmt: skip


def cheapest(c: Chains, i: int, rates: Rates, state: np.ndarray) -> float:
    """Return the seconds of the cheapest way to a version, by Dijkstra from it outwards: a way of its own to the figure."""
    work = c.work(rates)
    near, queue, best = {i: 0.0}, [(0.0, i)], float("inf")
    while queue:
        seconds, node = heapq.heappop(queue)
        if seconds > near[node]:
            continue
        if state[node]:
            best = min(best, seconds + rates.of_state(int(state[node])))
        begins = node == 0 or c.fresh[node] or c.lineage[node] != c.lineage[node - 1]
        steps = []
        if begins or c.kind[node] == SNAPSHOT:
            best = min(best, seconds + work[node])
        else:
            steps.append((node - 1, work[node]))
        after = node + 1
        if after < len(c) and c.lineage[after] == c.lineage[node] and not c.fresh[after] and c.kind[after] not in (SNAPSHOT, RECIPE):
            steps.append((after, work[after]))
        for there, takes in steps:
            if seconds + takes < near.get(there, float("inf")):
                near[there] = seconds + takes
                heapq.heappush(queue, (near[there], there))
    return best + c.weights[i] * rates.weight


@pytest.mark.parametrize("seed", range(20))
def test_every_version_takes_what_its_cheapest_way_takes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = some_chains(rng, states=float(rng.choice([0, 0.05, 0.3])))
    rates = Rates(update=float(rng.choice([0, 3e-4])), multiply=1e-9)
    recovery = whatif.recoveries(c, rates, c.state.astype(float))
    for i in range(len(c)):
        assert recovery.seconds[i] == pytest.approx(cheapest(c, i, rates, c.state), rel=1e-9), i


@pytest.mark.parametrize("seed", range(60))
def test_epochs_side_by_side_keep_the_states_that_the_compactors_rule_keeps_of_each(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whatif, "SIDE_BY_SIDE", (0, 2, 64)[seed % 3])  # above it they go side by side, and not one by one
    rng = np.random.default_rng(seed)
    c = some_chains(rng, plain=bool(seed % 2))
    starts = np.flatnonzero(c.fresh | c.new_lineage)
    work, theta = np.round(rng.lognormal(-2, 1, len(c)), 2), rng.choice([0.0, 0.5, 1.0, 2.0], len(starts))
    fixed, alone = (c.kind == RECIPE) | (c.kind == SNAPSHOT), c.kind == SNAPSHOT
    mask = np.zeros(len(c), bool)
    whatif.two_way(work, fixed, alone, theta, starts, mask)
    for a, b, most in zip(starts, [*starts[1:], len(c)], theta, strict=True):
        wanted = chosen(work[a:b].tolist(), fixed[a:b].tolist(), alone[a:b].tolist(), float(most))
        assert np.flatnonzero(mask[a:b]).tolist() == wanted


@pytest.mark.parametrize("said", ["all", "last 3", "daily", "tagged", "daily + last 2 + tagged"])
@pytest.mark.parametrize("seed", range(5))
def test_what_stays_is_what_retention_lets_stay(seed: int, said: str) -> None:
    rng = np.random.default_rng(seed)
    c = some_chains(rng)
    heads, keep = whatif.ends_of_epochs(c), parse_keep(said)
    stay = whatif.staying(c, keep, heads)
    epoch = np.cumsum(c.fresh | c.new_lineage)
    for lineage in np.unique(c.lineage):
        mine = np.flatnonzero(c.lineage == lineage)
        rows = [
            VersionRow(
                int(lineage), int(epoch[i]), int(i) + 1, "delta", bytes(32), bytes(32), None, bytes(32), bytes(32), bytes(16), bytes(32),
                int(c.size[i]), int(c.at[i]), b"", int(c.ids[i]), Status.VERIFIED, "",
            )
            for i in mine
        ]  # fmt: skip
        needed = Needed(heads=c.ids[mine][heads[mine]].tolist(), tagged=c.ids[mine][c.tagged[mine]].tolist())
        assert set(c.ids[mine][stay[mine]].tolist()) == kept(rows, keep, needed)


def test_a_squash_is_no_larger_than_what_it_is_of_nor_than_a_state() -> None:
    c = some_chains(np.random.default_rng(7), most=60)
    stay = whatif.staying(c, parse_keep("last 2"), whatif.ends_of_epochs(c))
    rest, squashed = whatif.thinned(c, stay)
    assert squashed.any() and len(rest) == stay.sum()
    ends = np.flatnonzero(stay)
    for place in np.flatnonzero(squashed):
        began = ends[place - 1] + 1 if place and c.lineage[ends[place - 1]] == c.lineage[ends[place]] else None
        began = began if began is not None else int(np.flatnonzero(c.lineage == c.lineage[ends[place]])[0])
        assert 0 < rest.size[place] <= min(c.size[began : ends[place] + 1].sum(), np.ceil(rest.state_size[place]))
    assert (rest.size[~squashed] == c.size[stay][~squashed]).all()


def test_no_versions_cost_nothing() -> None:
    none = _none()
    told, mask = whatif.forecast(none, TODAY.promise, TODAY.keep, Rates(), np.zeros(0, bool))
    assert (told.versions, told.stored, told.worst_s, len(mask)) == (0, 0, 0.0, 0)
    assert whatif.as_it_is(none, Rates())[0].stored == 0


def _none() -> Chains:
    c = some_chains(np.random.default_rng(1))
    return c.only(np.zeros(len(c), bool))


def compact(store: SqliteStore, promise: str) -> None:
    """Set a promise, and let the compactor keep it."""
    store.policies.add(PolicyRow(store.policies.current().number + 1, promise, "all", b"", 1))
    compactor = Compactor(store, clock=lambda: 1e9, settle=0)
    while compactor.run() is not None:
        pass


def there_and_back(store: SqliteStore, seed: int) -> int:
    """Return a lineage in which each second update takes the one before it back, so that all its states are of one size."""
    device = WideDevice(wide_base(40_000, rows=8), name="pi-7", seed=seed)
    add_base(store, device.base, "wide")
    lineage, base = enrol(store, device), device.base.manifest.commit
    with store.transaction():
        add_version(store, lineage, device.seal(Kind.DELTA, device.moved(0.9)), base)
        for _ in range(60):
            moved = device.moved(0.04)
            add_version(store, lineage, device.seal(Kind.DELTA, moved), base)
            back = tuple(invert(moved))
            device.state.apply(Kind.DELTA, back)
            add_version(store, lineage, device.seal(Kind.DELTA, back), base)
    return lineage


@pytest.mark.parametrize(("updates", "seed"), [(2, 3), (3, 1), (5, 2)])
def test_the_plan_of_a_policy_is_what_the_compactor_does_under_it(store: SqliteStore, updates: int, seed: int) -> None:
    """updates: how many fit into a gap, and a half: the compactor and the plan may differ in a state's size by a hundredth."""
    lineage = there_and_back(store, seed)
    compact(store, "2 states")
    read, rates = reading.read(store).chains, route.rates_of(store)
    promise = f"{1 + (updates + 0.5) * np.median(read.size) / np.median(read.state_size) / 2:.4f} states"
    told, mask = whatif.forecast(read, parse_promise(promise), TODAY.keep, rates, whatif.ends_of_epochs(read))
    compact(store, promise)
    assert set(read.ids[mask].tolist()) == {row.version_id for row in store.states.of(lineage)} and told.states > 2
    read = reading.read(store).chains
    now, recovery = whatif.as_it_is(read, rates)
    assert (now.states, now.containers, now.recoverable) == (told.states, told.containers, 121)
    assert now.state_bytes == pytest.approx(told.state_bytes, rel=0.02)
    for i in range(0, len(read), 7):
        version = store.versions.by_id(int(read.ids[i]))
        assert version is not None and (way := route.find(store, version, rates)) is not None
        assert recovery.seconds[i] - read.weights[i] * rates.weight == pytest.approx(way.seconds, rel=1e-9)
        assert recovery.bytes[i] == way.size


def test_promises_in_time_are_counted_by_the_rates() -> None:
    c = some_chains(np.random.default_rng(3), plain=True)
    heads = whatif.ends_of_epochs(c)
    least = float(whatif.least_seconds(c, Rates()).max())
    tight = whatif.forecast(c, parse_promise(f"{1000 * least:.3f} ms"), TODAY.keep, Rates(), heads)[0]
    wide = whatif.forecast(c, parse_promise("1 min"), TODAY.keep, Rates(), heads)[0]
    assert tight.worst_s <= least * 1.01 and wide.states < tight.states and wide.worst_s > tight.worst_s
    assert replace(wide, states=0).stored == wide.stored
