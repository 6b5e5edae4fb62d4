"""What the store of a fleet would cost under a policy: arrays of the versions' rows in, what is kept and what it costs out.

Touches no registry and rebuilds nothing. It decides as the compactor and the thinner do; what rows do not say is estimated, and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.versions.route import Rates

from .promise import Promise
from .retention import DAY, Keep

I64: TypeAlias = NDArray[np.int64]
F64: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

DELTA, EXACT, RECIPE, SNAPSHOT = range(4)
KINDS = ("delta", "exact", "recipe", "snapshot")


@dataclass(frozen=True)
class Chains:
    """The verified versions of some lineages, one lineage after the other, each in the order of linking. All arrays have shape (n,)."""

    ids: I64
    lineage: I64
    size: I64  # bytes of what is stored for the version: its container, or the squash in its place
    kind: I64  # an index of KINDS
    fresh: Mask  # made on a base: an epoch's first, mostly
    at: I64  # Unix seconds, when it came
    state: I64  # bytes of the state that is kept of it, 0 where none is
    state_size: F64  # bytes that a kept state of it takes, or would take
    weights: F64  # of its model
    multiplies: F64  # of a recipe's training, 0 for all else
    tagged: Mask
    gone: Mask  # thinned already: its own bytes are there no more, and no policy brings it back
    sent: I64 | None = None  # bytes of the containers as they came; None: as stored

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, these: Mask) -> Chains:
        """Return some of the versions."""
        return Chains(*(None if (a := getattr(self, name)) is None else a[these] for name in self.__dataclass_fields__))

    @property
    def new_lineage(self) -> Mask:
        """Where another lineage begins."""
        first = np.ones(len(self), bool)
        first[1:] = self.lineage[1:] != self.lineage[:-1]
        return first

    def work(self, rates: Rates) -> F64:
        """Return the seconds that each version's own update takes to read and apply."""
        seconds = rates.update + self.size * rates.update_byte + self.multiplies * rates.multiply
        return np.where(self.kind == SNAPSHOT, rates.state + self.size * rates.state_byte, seconds)

    def state_work(self, rates: Rates) -> F64:
        """Return the seconds that reading a kept state of each version takes, or would take."""
        return rates.state + self.state_size * rates.state_byte


@dataclass(frozen=True)
class Recovery:
    """What it takes to recover each version, by the cheapest way. Arrays of shape (n,)."""

    seconds: F64
    bytes: F64  # read on that way, the base aside

    def worst(self) -> int:
        """Return which version takes the longest."""
        return int(np.argmax(self.seconds))


@dataclass(frozen=True)
class StoreForecast:
    """What a store comes to. Bytes, seconds and counts."""

    versions: int  # that came
    recoverable: int
    containers: int  # bytes of them that are stored
    squashes: int = 0  # bytes of what stands in the place of dropped ones
    states: int = 0
    state_bytes: int = 0
    worst_s: float = 0.0
    worst_bytes: float = 0.0
    worst_id: int = 0  # version id
    mean_s: float = 0.0
    mean_bytes: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def stored(self) -> int:
        """Bytes of all that."""
        return self.containers + self.squashes + self.state_bytes


def forecast(chains: Chains, promise: Promise, keep: Keep, rates: Rates, heads: Mask) -> tuple[StoreForecast, Mask]:
    """Return what a store under this policy comes to, and of which versions it would keep states (shape (n,)).

    heads: where an epoch ends. What is thinned already stays thinned.
    """
    stay = staying(chains, keep, heads)
    rest, squashed = thinned(chains, stay)
    kept = kept_states(rest, rates, promise, heads[stay])
    state = np.where(kept, rest.state_size, 0)
    recovery = recoveries(rest, rates, state)
    told = _forecast(len(chains), rest, recovery, state, squashed)
    mask = np.zeros(len(chains), bool)
    mask[np.flatnonzero(stay)[kept]] = True
    return told, mask


def as_it_is(chains: Chains, rates: Rates) -> tuple[StoreForecast, Recovery]:
    """Return what the store comes to with the states that are kept now, and what each recoverable version takes."""
    rest, squashed = thinned(chains, ~chains.gone)
    recovery = recoveries(rest, rates, rest.state.astype(float))
    return _forecast(len(chains), rest, recovery, rest.state.astype(float), squashed), recovery


def _forecast(versions: int, rest: Chains, recovery: Recovery, state: F64, squashed: Mask) -> StoreForecast:
    n = len(rest)
    worst = recovery.worst() if n else 0
    return StoreForecast(
        versions, n, int(rest.size[~squashed].sum()), int(rest.size[squashed].sum()), int((state > 0).sum()), int(state.sum()),
        *((float(recovery.seconds[worst]), float(recovery.bytes[worst]), int(rest.ids[worst])) if n else (0.0, 0.0, 0)),
        *((float(recovery.seconds.mean()), float(recovery.bytes.mean())) if n else (0.0, 0.0)),
    )  # fmt: skip


def staying(chains: Chains, keep: Keep, heads: Mask) -> Mask:
    """Return which versions stay recoverable under a policy, shape (n,): as `retention.kept` says, of what the rows tell."""
    if keep.everything:
        return ~chains.gone
    out = heads.copy()
    if keep.tagged:
        out |= chains.tagged
    epoch = _epochs(chains)
    if keep.daily:
        day = chains.at // DAY
        last = np.ones(len(chains), bool)
        last[:-1] = (day[1:] != day[:-1]) | (epoch[1:] != epoch[:-1])
        out |= last
    if keep.last:
        ends = np.searchsorted(epoch, epoch, side="right")
        out |= ends - np.arange(len(chains)) <= keep.last
    return out & ~chains.gone


def thinned(chains: Chains, stay: Mask) -> tuple[Chains, Mask]:
    """Return the versions that stay, each with the bytes that lead to it, and where those are a squash.

    A run that goes is squashed into the next version that stays. Updates that are added together overlap: what the squash takes is
    estimated, as if each touched weights at random.
    """
    index = np.flatnonzero(stay)
    rest = chains.only(stay)
    if len(index) == len(chains) or not len(index):
        return rest, np.zeros(len(index), bool)
    # What was thinned before has its squash already, and bytes of its own no more.
    going = ~stay & ~chains.gone
    before = np.concatenate(([0], np.cumsum(going)))
    starts = np.where(rest.new_lineage, _first_of_lineage(chains)[index], np.concatenate(([0], index[:-1] + 1)))
    runs = before[index] - before[starts] > 0
    runs &= rest.kind != SNAPSHOT  # it rests on nothing before it
    total = np.concatenate(([0.0], np.cumsum(np.where(chains.gone, 0, chains.size).astype(float))))
    summed = total[index + 1] - total[starts]
    full = np.maximum(rest.state_size, 1.0)
    squash = full * -np.expm1(-summed / full)
    changes = {
        "size": np.where(runs, np.ceil(squash), rest.size).astype(np.int64),
        "kind": np.where(runs, DELTA, rest.kind),
        "multiplies": np.where(runs, 0.0, rest.multiplies),
    }
    return Chains(**{name: changes.get(name, getattr(rest, name)) for name in rest.__dataclass_fields__}), runs


def kept_states(chains: Chains, rates: Rates, promise: Promise, heads: Mask) -> Mask:
    """Return of which versions the compactor keeps states, shape (n,).

    The two-way rule: behind each start, the base, a snapshot or a kept state, a state when the work that has gathered would pass
    2 * theta, theta being what the promise allows beyond reading one state; theta where an update takes more than half a state, or does
    not invert. Heads are kept, too, where they are no starts themselves.
    """
    n = len(chains)
    kept = np.zeros(n, bool)
    if not n:
        return kept
    work, state = chains.work(rates), chains.state_work(rates)
    theta = beyond_one_state(promise, rates, state, chains.weights)
    limit = np.where((work > state / 2) | (chains.kind == RECIPE), theta, 2 * theta)
    starts = np.flatnonzero(chains.fresh | chains.new_lineage | (chains.kind == SNAPSHOT))
    ends = np.append(starts[1:], n)
    done = np.cumsum(work)
    origin = np.where(chains.kind[starts] == SNAPSHOT, done[starts], done[starts] - work[starts])
    narrow = np.flatnonzero(limit < 2 * theta)
    while len(starts):
        allowed = 2 * theta[np.minimum(starts, n - 1)]
        found = np.searchsorted(done, origin + allowed + _SLACK * allowed, side="right")
        if len(narrow):
            found = np.minimum(found, _first_narrow(narrow, done, origin, theta, starts, n))
        found = np.maximum(found, starts)
        going = found < ends
        found, ends = found[going], ends[going]
        kept[found] = True
        origin, starts = done[found], found + 1
        alive = starts < ends
        origin, starts, ends = origin[alive], starts[alive], ends[alive]
    return kept | (heads & (chains.kind != SNAPSHOT))


_SLACK = 1e-9  # sums of many floats: what is equal to the limit in numbers is not above it


def _first_narrow(narrow: I64, done: F64, origin: F64, theta: F64, starts: I64, n: int) -> I64:
    """Return, for each run, the first update that takes more than half a state and finds more than theta gathered; n where none does."""
    over = np.searchsorted(done, origin + theta[np.minimum(starts, n - 1)] * (1 + _SLACK), side="right")
    place = np.searchsorted(narrow, np.maximum(over, starts))
    return np.where(place < len(narrow), narrow[np.minimum(place, len(narrow) - 1)], n)


def beyond_one_state(promise: Promise, rates: Rates, state: F64, weights: F64) -> F64:
    """Return theta: the seconds of work that the promise allows beyond reading one kept state; 0 where it allows no more."""
    if promise.states:
        return (promise.states - 1) * state
    return np.maximum(promise.seconds - state - weights * rates.weight, 0.0)


def recoveries(chains: Chains, rates: Rates, state: F64) -> Recovery:
    """Return what each version takes: from the best start before it forward, or back from the next kept state behind it.

    state: bytes of the kept state of each version, 0 where none is kept, shape (n,). Seconds with the proof of the root.
    """
    n = len(chains)
    if not n:
        return Recovery(np.zeros(0), np.zeros(0))
    work, proven = chains.work(rates), chains.weights * rates.weight
    opened = rates.state + state * rates.state_byte
    alone = chains.kind == SNAPSHOT
    begins = chains.fresh | chains.new_lineage | alone
    begins[0] = True
    segment = np.cumsum(begins) - 1
    starts = np.flatnonzero(begins)
    here = np.cumsum(work)
    here -= (here[starts] - work[starts])[segment]  # seconds from the base, or through the snapshot, to each
    read = np.cumsum(chains.size.astype(float))
    read -= (read[starts] - chains.size[starts])[segment]
    # The best start before: the one with the most of `here` that it saves. Offsets keep the segments apart.
    saves = np.where(state > 0, here - opened, 0.0)
    span = float(here.max()) + float(opened.max()) + 1.0
    lifted = saves + segment * span
    best = np.maximum.accumulate(lifted)
    at = np.maximum.accumulate(np.where(lifted == best, np.arange(n), 0))
    # Where a state saves less than nothing, the segment's own start stays the best: `saves` is 0 there.
    own = (state[at] <= 0) | (saves[at] <= 0) | (segment[at] != segment)
    forward = np.where(own, here, here - here[at] + opened[at])
    forward_bytes = np.where(own, read, read - read[at] + state[at])
    # Back: as far as updates invert. A snapshot and a recipe do not, nor does an update take back to its base's other epoch.
    wall = begins | (chains.kind == RECIPE)
    group = np.cumsum(wall)
    costs = np.where(state > 0, here + opened, np.inf)
    lowered = np.where(np.isfinite(costs), costs, 0.0) + group * span + np.where(np.isfinite(costs), 0.0, span * (n + 2.0))
    nearest = np.minimum.accumulate(lowered[::-1])[::-1]
    from_ = n - 1 - np.maximum.accumulate(np.where(lowered == nearest, np.arange(n)[::-1], 0)[::-1])[::-1]
    usable = (state[from_] > 0) & (group[from_] == group)
    back = np.where(usable, here[from_] - here + opened[from_], np.inf)
    back_bytes = read[from_] - read + state[from_]
    return Recovery(np.minimum(forward, back) + proven, np.where(back < forward, back_bytes, forward_bytes))


def ends_of_epochs(chains: Chains) -> Mask:
    """Return where an epoch ends, as far as the rows tell: the last version before another begins on a base."""
    out = np.ones(len(chains), bool)
    epoch = _epochs(chains)
    out[:-1] = epoch[1:] != epoch[:-1]
    return out


def by_kind(chains: Chains) -> Mapping[str, int]:
    """Return the bytes of the versions' containers by kind."""
    return {name: int(chains.size[chains.kind == number].sum()) for number, name in enumerate(KINDS)}


def _epochs(chains: Chains) -> I64:
    """Return a number for each version that rises from epoch to epoch."""
    return np.cumsum(chains.new_lineage | chains.fresh)


def _first_of_lineage(chains: Chains) -> I64:
    """Return where the lineage of each version begins."""
    return np.maximum.accumulate(np.where(chains.new_lineage, np.arange(len(chains)), 0))
