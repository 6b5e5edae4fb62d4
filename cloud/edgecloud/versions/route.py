"""The cheapest way to a version: from the base, a snapshot or a kept state, along updates forward and, where they invert, backward.

Dijkstra over the tree of versions, from the version that is asked for outwards, which reads as many rows as the way is long. Work is
counted in seconds by rates that were measured on this machine, so that a recipe costs what its replay takes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

from edgecloud.registry import Status, Store, VersionLink, VersionRow
from modelwire import limits

RECIPE, SNAPSHOT = "recipe", "snapshot"
INVERTIBLE = ("delta", "exact")
ROWS = 32  # read at first; then more each time, as the way turns out to be long
ROWS_MAX = 4096
FORK = 3  # rows that tell whether a version on the way up has other children
FORKS = 12  # versions on the way up of which that is asked at once

Node: TypeAlias = int | bytes  # a version's id, or the commit of a base
Part: TypeAlias = tuple[str, int]  # what a way was found to be broken at: ("state" | "forward" | "back", version id)


@dataclass(frozen=True, slots=True)
class Rates:
    """What work takes on one machine, in seconds. The defaults were measured on one core of a small server."""

    weight: float = 8e-9  # to set up and to prove one weight, whatever the way
    state: float = 3e-4  # to find and open one kept state
    state_byte: float = 2e-7  # of it
    update: float = 3e-4  # to find, prove and open one update
    update_byte: float = 2.5e-7  # of it
    multiply: float = 4e-10  # one multiply-add of a recipe's training

    def of_state(self, size: int) -> float:
        """Return the seconds that it takes to read and decode a kept state, or a snapshot, of so many bytes."""
        return self.state + size * self.state_byte

    def of_update(self, size: int, multiplies: int = 0) -> float:
        """Return the seconds that it takes to read and apply an update of so many bytes."""
        return self.update + size * self.update_byte + multiplies * self.multiply

    def proven(self, weights: int) -> float:
        """Return the seconds that a model of so many weights takes on any way: its arrays made and its root computed."""
        return weights * self.weight


@dataclass(frozen=True, slots=True)
class Hop:
    """One update on the way. It moves a state forward to `after`, or back to `before`."""

    before: Node
    after: int
    link: VersionLink  # whose container it is
    back: bool
    seconds: float

    @property
    def part(self) -> Part:
        return "back" if self.back else "forward", self.link.id


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a version, with what it costs."""

    start: Node  # a base, or a version whose state is kept
    start_size: int  # bytes of the kept state; 0 where it starts at a base
    hops: tuple[Hop, ...]
    seconds: float

    @property
    def size(self) -> int:
        """Bytes that are read on the way, the base aside."""
        return self.start_size + sum(hop.link.size for hop in self.hops)

    @property
    def soft(self) -> Part:
        """What of it is to be done without first, when its end is not exact: the kept state, or else the last step back."""
        if self.start_size and isinstance(self.start, int):
            return "state", self.start
        return next((hop.part for hop in reversed(self.hops) if hop.back), self.hops[-1].part)

    @property
    def plain(self) -> bool:
        """Whether it is made of what devices sent alone."""
        return not self.start_size and not any(hop.back for hop in self.hops)


def rates_of(store: Store) -> Rates:
    """Return the rates that were measured on this machine, and the usual ones for what was not."""
    known = store.policies.rates()
    return Rates(**{f.name: known[f.name][0] for f in fields(Rates) if f.name in known})


def work_of(store: Store, link: VersionLink, rates: Rates) -> float:
    """Return the seconds that a version's own update takes to apply; a recipe's as its settings and rows say."""
    if link.kind == SNAPSHOT:
        return rates.of_state(link.size)
    if link.kind != RECIPE:
        return rates.of_update(link.size)
    recipe = store.blobs.container(link.blob, limits.LARGE).recipe(limits.LARGE)
    return rates.of_update(link.size, recipe.head.work(len(recipe.rows)))


def find(store: Store, target: VersionRow, rates: Rates, avoid: Iterable[Part] = ()) -> Route | None:
    """Return the cheapest way to a version, None where what is to be avoided leaves none. Raises RegistryDamaged for a row that is none."""
    return _Search(_Tree(store), store, rates, frozenset(avoid)).find(target)


class _Tree:
    """The links of a lineage around a version, read a few at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._links: dict[int, VersionLink] = {}
        self._below: dict[int, list[VersionLink]] = {}
        self._up = self._down = ROWS

    def link(self, version_id: int) -> VersionLink | None:
        if version_id not in self._links:
            self._links.update((one.id, one) for one in self._store.states.above(version_id, self._up))
            self._up = min(ROWS_MAX, 4 * self._up)
        return self._links.get(version_id)

    def children(self, version_id: int, far: bool) -> list[VersionLink]:
        """Return what was built on a version and takes back to it. far: read those behind them, too; else a fork is looked for."""
        if version_id not in self._below and not far:
            top = self._above(version_id)
            if top != version_id:
                self._read_below(top, 2 * FORKS)
        if version_id not in self._below:
            limit = self._down if far else FORK
            if far:
                self._down = min(ROWS_MAX, 4 * self._down)
            self._read_below(version_id, limit)
        return self._below[version_id]

    def _above(self, version_id: int) -> int:
        """Return the version farthest above one that is known and was not asked about, a few steps up at most."""
        for _ in range(FORKS):
            link = self._links.get(version_id)
            parent = None if link is None else link.parent_id
            if parent is None or parent not in self._links or parent in self._below:
                break
            version_id = parent
        return version_id

    def _read_below(self, version_id: int, limit: int) -> None:
        """Read what was built on a version, and on those, until so many are read."""
        found = self._store.states.below(version_id, limit)
        order = [version_id, *(one.id for one in found)]  # the nearest first, all children of one before those of the next
        lists: dict[int, list[VersionLink]] = {one: [] for one in order}
        for one in found:
            self._links.setdefault(one.id, one)
            lists[one.parent_id or 0].append(one)
        if len(found) >= limit:  # of the last parent, and of those behind it, not all children were read
            whole = max(1, order.index(found[-1].parent_id or 0))
            lists = {one: lists[one] for one in order[:whole]}
        self._below.update((one, some) for one, some in lists.items() if one not in self._below)


class _Search:
    """One search, from the version that is asked for outwards."""

    def __init__(self, tree: _Tree, store: Store, rates: Rates, avoid: frozenset[Part]) -> None:
        self._tree, self._store, self._rates, self._avoid = tree, store, rates, avoid

    def find(self, target: VersionRow) -> Route | None:
        near: dict[Node, tuple[float, Hop | None]] = {target.id: (0.0, None)}  # seconds from there to the target, by its first hop
        queue: list[tuple[float, int, Node]] = [(0.0, 0, target.id)]
        count, best, at = 0, float("inf"), None
        done: set[Node] = set()
        while queue and queue[0][0] < best:
            seconds, _, node = heapq.heappop(queue)
            if node in done:
                continue
            done.add(node)
            start = self._start(node)
            if start is not None and seconds + start < best:
                best, at = seconds + start, node
            came = near[node][1]
            for hop in self._hops(node, came is None or came.back):
                here = hop.after if hop.back else hop.before
                there = seconds + hop.seconds
                if here not in near or there < near[here][0]:
                    near[here] = there, hop
                    count += 1
                    heapq.heappush(queue, (there, count, here))
        return None if at is None else self._route(at, near, best)

    def _start(self, node: Node) -> float | None:
        """Return the seconds to have a state there, None where none is to be had."""
        if isinstance(node, bytes):
            return 0.0
        link = self._tree.link(node)
        if link is None or not link.state_size or ("state", node) in self._avoid:
            return None
        return self._rates.of_state(link.state_size)

    def _hops(self, node: Node, far: bool) -> Iterator[Hop]:
        """Yield what leads to a node."""
        if isinstance(node, bytes):
            return
        link = self._tree.link(node)
        if link is not None and link.status is not Status.REFUSED and ("forward", node) not in self._avoid:
            alone = link.kind == SNAPSHOT or link.parent_id is None
            before: Node = link.base if alone else link.parent_id or 0
            yield Hop(before, node, link, False, work_of(self._store, link, self._rates))
        for child in self._tree.children(node, far):
            if ("back", child.id) not in self._avoid:
                yield Hop(node, child.id, child, True, work_of(self._store, child, self._rates))

    def _route(self, at: Node, near: Mapping[Node, tuple[float, Hop | None]], seconds: float) -> Route:
        hops, node = [], at
        while (hop := near[node][1]) is not None:
            hops.append(hop)
            node = hop.before if hop.back else hop.after
        link = None if isinstance(at, bytes) else self._tree.link(at)
        return Route(at, link.state_size if link is not None else 0, tuple(hops), seconds)

