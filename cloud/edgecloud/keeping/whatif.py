"""What the store of a fleet would cost under a policy: arrays of the versions' rows in, what is kept and what it costs out.

Touches no registry and rebuilds nothing. It decides as the compactor and the thinner do; what rows do not say is estimated, and said so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.versions.route import Rates

from .promise import Promise, chosen
from .retention import DAY, Keep

I64: TypeAlias = NDArray[np.int64]
F64: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

DELTA, EXACT, RECIPE, SNAPSHOT = range(4)
KINDS = ("delta", "exact", "recipe", "snapshot")
SIDE_BY_SIDE = 64  # epochs: fewer are gone through one by one


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

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, these: Mask) -> Chains:
        """Return some of the versions."""
        return Chains(**{name: getattr(self, name)[these] for name in self.__dataclass_fields__})

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
    out: Mask = ~chains.gone if keep.everything else heads.copy()
    if keep.everything:
        return out
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
    out &= ~chains.gone
    return out


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
    """Return of which versions the compactor keeps states, shape (n,): as `promise.chosen` says for each epoch, and the heads'."""
    n = len(chains)
    kept = np.zeros(n, bool)
    if not n:
        return kept
    work, theta = work_in_states(chains, rates, promise)
    snapshot = chains.kind == SNAPSHOT
    fixed = snapshot | (chains.kind == RECIPE)
    starts = np.flatnonzero(chains.fresh | chains.new_lineage)
    two_way(work, fixed, snapshot, theta[starts], starts, kept)
    kept |= heads & ~snapshot
    return kept


def work_in_states(chains: Chains, rates: Rates, promise: Promise) -> tuple[F64, F64]:
    """Return the work of each update in states, and how much of it may lie before a version, theta: as `promise.Measure` counts both."""
    if promise.states:
        replay = chains.multiplies * rates.multiply / rates.state_byte
        return (chains.size + replay) / chains.state_size, np.full(len(chains), promise.states - 1)
    state = least_seconds(chains, rates)
    update = rates.update + chains.size * rates.update_byte + chains.multiplies * rates.multiply
    return update / state, np.maximum(0.0, promise.seconds / state - 1)


def least_seconds(chains: Chains, rates: Rates) -> F64:
    """Return the seconds to read and prove one kept state of each version: no version comes back in less."""
    return chains.weights * rates.weight + (rates.state + chains.state_size * rates.state_byte)


def two_way(work: F64, fixed: Mask, alone: Mask, theta: F64, starts: I64, kept: Mask) -> None:
    """Mark the versions whose states the two-way rule keeps, shape (n,), of all epochs side by side: version after version of each.

    starts: where each epoch begins, rising; theta: of each. fixed and alone: whether an update can't be taken back, and whether it is a
    state by itself. The same sums in the same order as `promise.chosen` makes for one epoch, so that both come to the same.
    """
    lengths = np.diff(np.append(starts, len(work)))
    longest_first = np.argsort(-lengths, kind="stable")
    alone_ones = _long_ones(lengths[longest_first])
    for place in longest_first[:alone_ones]:  # a step of all costs as much as sixty of one
        a, b = int(starts[place]), int(starts[place] + lengths[place])
        kept[a + np.array(chosen(work[a:b].tolist(), fixed[a:b].tolist(), alone[a:b].tolist(), float(theta[place])), np.int64)] = True
    longest_first = longest_first[alone_ones:]
    starts, lengths, limit = starts[longest_first], lengths[longest_first], theta[longest_first] * (1 + 1e-9)
    gathered, behind = np.zeros(len(starts)), np.zeros(len(starts))
    last = np.full(len(starts), -1)
    going = len(starts)
    for i in range(int(lengths[0]) if len(lengths) else 0):
        while lengths[going - 1] <= i:
            going -= 1
        at, most = starts[:going] + i, limit[:going]
        w, stuck, state = work[at], fixed[at], alone[at]
        before, after = gathered[:going], gathered[:going] + w
        end = np.where(stuck, after, behind[:going])
        far = ((stuck | state) & (before > most)) | (~state & (np.minimum(after / 2, after - end) > most))
        far &= last[:going] < i - 1
        kept[at[far] - 1] = True
        last[:going] = np.where(far, i - 1, last[:going])
        after = np.where(far, w, after)
        end = np.where(far, np.where(stuck, w, 0.0), end)
        long = ~state & (end == after) & (after > most)
        kept[at[long & (i < lengths[:going] - 1)]] = True
        anew = state | long
        last[:going] = np.where(anew, i, last[:going])
        gathered[:going], behind[:going] = np.where(anew, 0.0, after), np.where(anew, 0.0, end)


def _long_ones(lengths: I64) -> int:
    """Return how many epochs are so much longer than the others that they are gone through alone. lengths: falling."""
    most = min(len(lengths), SIDE_BY_SIDE)
    rest = int(lengths[most]) if len(lengths) > most else 0
    return int(np.searchsorted(-lengths[:most], -4 * rest - 1, side="right"))


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


def _epochs(chains: Chains) -> I64:
    """Return a number for each version that rises from epoch to epoch."""
    return np.cumsum(chains.new_lineage | chains.fresh)


def _first_of_lineage(chains: Chains) -> I64:
    """Return where the lineage of each version begins."""
    return np.maximum.accumulate(np.where(chains.new_lineage, np.arange(len(chains)), 0))
