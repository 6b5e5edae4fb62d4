"""Which of many points are groups, from their squared distances alone and without being told how many: average linkage, cut where it holds.

Two branches of the tree are two groups when both of this are so: they are far apart for how wide they are themselves (APART), and a
single cloud that is spread along the same axes hardly ever parts as clearly (CHANCE): clouds are drawn to see. Groups that hold make
every branch above them hold. What is left over, fewer than FEWEST together, is alone where it is far from every group, else it joins
the nearest. Numpy alone; the same answer for the same distances.

Sources: UPGMA by nearest-neighbour chains, Murtagh, Complexities of hierarchic clustering algorithms (1984); the test of a branch against
a Gaussian of the same spread, Kimes, Liu, Hayes and Marron, Statistical significance for hierarchical clustering (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modelwire.errors import BadArgument

Squares = NDArray[np.float64]  # [n, n] squared distances, 0 on the diagonal
Labels = NDArray[np.int64]

APART = 0.2  # how much larger the mean square between two groups is than within them
ALONE = 0.75  # likewise of fewer than FEWEST, against the group that is nearest
FEWEST = 3  # from so many on chance can be asked
CHANCE, OF_MANY, MANY = 0.1, 0.02, 40  # of clouds without groups that may part as clearly; and of clouds of MANY points and more
CLOUDS = 49  # drawn for a branch
SAMPLE = 100  # points of a branch that are compared with clouds
_PASSES = 10


@dataclass(slots=True)
class Branch:
    """One node of the tree. height: mean square between its two sides."""

    size: int
    within: float  # sum of squared distances over its pairs
    height: float = 0.0
    sides: tuple[Branch, Branch] | None = None
    point: int = -1
    holds: bool = False  # it, or one below it, parts into groups


def groups(squares: Squares, count: int | None = None) -> Labels:
    """Return the number of each point's group, from 0 on, the largest group first; of equal ones that with the first point.

    squares: shape (n, n), symmetric. count: of groups, None to find it. Raises BadArgument for more groups than points.
    """
    n = len(squares)
    if count is not None and not 1 <= count <= n:
        raise BadArgument(reason=f"{n} devices can't be parted into {count} cohorts", fix="edgecloud cluster --cohorts auto")
    if n < 2:
        return np.zeros(n, np.int64)
    root = tree(squares)[-1]
    if count is not None:
        return _ordered(_settled(squares, [points(one) for one in _greedy(root, count)], fewest=1))
    rng = np.random.default_rng([n, 15])
    _judge(root, squares, rng)
    parts = [points(one) for one in _held(root)]
    return _ordered(_settled(squares, parts, fewest=FEWEST))


def tree(squares: Squares) -> list[Branch]:
    """Return the branches of the average-linkage tree, the root last."""
    n = len(squares)
    apart = np.array(squares, np.float64)
    np.fill_diagonal(apart, np.inf)
    size, merged, chain = np.ones(n), [], list[int]()
    left = np.arange(n)
    for _ in range(n - 1):
        if not chain:
            chain.append(int(left[0]))
        while True:
            row = apart[chain[-1]]
            near = int(row.argmin())
            if len(chain) > 1 and row[chain[-2]] <= row[near]:
                break
            chain.append(near)
        a, b = sorted((chain.pop(), chain.pop()))
        merged.append((float(apart[a, b]), a, b))
        joined = (size[a] * apart[a] + size[b] * apart[b]) / (size[a] + size[b])
        joined[[a, b]] = np.inf
        apart[a], apart[:, a] = joined, joined
        apart[b], apart[:, b] = np.inf, np.inf
        size[a] += size[b]
        left, chain = left[left != b], [one for one in chain if one not in (a, b)]  # none is there but by rounding
    own = [Branch(1, 0.0, point=i) for i in range(n)]
    out = []
    for height, a, b in sorted(merged, key=lambda m: m[0]):  # stable: a branch comes after its own
        one, other = own[a], own[b]
        within = one.within + other.within + height * one.size * other.size
        own[a] = Branch(one.size + other.size, within, height, (one, other))
        out.append(own[a])
    return out or own


def points(branch: Branch) -> list[int]:
    """Return the points of a branch, in order."""
    out, stack = [], [branch]
    while stack:
        one = stack.pop()
        if one.sides is None:
            out.append(one.point)
        else:
            stack += one.sides
    return sorted(out)


def _judge(root: Branch, squares: Squares, rng: np.random.Generator) -> None:
    """Mark the branches that hold, from the leaves up; nothing is asked of one that has one that holds below it."""
    order, stack = [], [root]
    while stack:
        one = stack.pop()
        order.append(one)
        stack += one.sides or ()
    for one in reversed(order):
        if one.sides is not None:
            one.holds = any(side.holds for side in one.sides) or _parts(one, squares, rng)


def _parts(branch: Branch, squares: Squares, rng: np.random.Generator) -> bool:
    a, b = branch.sides or (branch, branch)
    if min(a.size, b.size) < FEWEST:
        return max(a.size, b.size) >= FEWEST and branch.height > (1 + ALONE) * _spread(max(a, b, key=lambda side: side.size))
    within = (a.size * _spread(a) + b.size * _spread(b)) / branch.size
    if branch.height < (1 + APART) * within:
        return False
    some = [_some(points(side), max(FEWEST, SAMPLE * side.size // branch.size), rng) for side in (a, b)]
    at = [*some[0], *some[1]]
    here = squares[np.ix_(at, at)]
    clear = _clearness(here, np.arange(len(at)) >= len(some[0]))
    drawn = [_clearness(cloud, _two(cloud)) for cloud in _clouds(here, rng)]
    return (1 + sum(one >= clear for one in drawn)) / (CLOUDS + 1) <= (CHANCE if len(at) < MANY else OF_MANY)


def _spread(branch: Branch) -> float:
    """Return the mean square over the pairs of a branch."""
    return 2 * branch.within / (branch.size * (branch.size - 1)) if branch.size > 1 else 0.0


def _some(of: list[int], most: int, rng: np.random.Generator) -> list[int]:
    return of if len(of) <= most else sorted(rng.choice(of, most, replace=False).tolist())


def _clearness(squares: Squares, second: NDArray[np.bool_]) -> float:
    """Return how clearly two sides part: the variance between them by that within, as in Fisher's F."""
    n = len(squares)
    within = sum(float(squares[np.ix_(side, side)].sum()) / (2 * int(side.sum())) for side in (second, ~second))
    return (float(squares.sum()) / (2 * n) - within) / max(within, 1e-300) * (n - 2)


def _two(squares: Squares) -> NDArray[np.bool_]:
    sides = tree(squares)[-1].sides
    assert sides is not None
    second = np.zeros(len(squares), bool)
    second[points(sides[1])] = True
    return second


def _clouds(squares: Squares, rng: np.random.Generator) -> list[Squares]:
    """Return the squared distances within clouds that are spread as these points are, along each axis normally.

    What is alike along all axes is noise of as many dimensions as the model has weights: there any two points are equally far apart.
    """
    n = len(squares)
    centred = np.eye(n) - 1 / n
    along = np.sort(np.maximum(np.linalg.eigvalsh(-0.5 * centred @ squares @ centred)[1:], 0))
    floor = along[: max(1, len(along) // 4)].mean()
    scale, out = np.sqrt(np.maximum(along - floor, 0)), []
    for _ in range(CLOUDS):
        x = rng.standard_normal((n, n - 1))
        x -= x.mean(0)
        x *= scale / np.sqrt((x**2).sum(0))
        length = (x**2).sum(1)
        cloud = np.maximum(length[:, None] + length - 2 * x @ x.T, 0) + 2 * floor
        np.fill_diagonal(cloud, 0)
        out.append(cloud)
    return out


def _held(root: Branch) -> list[Branch]:
    """Return the largest branches that do not part."""
    out, stack = [], [root]
    while stack:
        one = stack.pop()
        if one.holds and one.sides is not None:
            stack += one.sides
        else:
            out.append(one)
    return out


def _greedy(root: Branch, count: int) -> list[Branch]:
    """Return so many branches: the one is parted next whose sides explain most, one that gives a few apart only when no other is left."""
    out = [root]
    while len(out) < count:
        one = max((b for b in out if b.sides), key=lambda b: (min(side.size for side in b.sides or ()) >= FEWEST, _gain(b)))
        out.remove(one)
        out += one.sides or ()
    return out


def _gain(branch: Branch) -> float:
    a, b = branch.sides or (branch, branch)
    return branch.within / branch.size - a.within / a.size - b.within / b.size


def _settled(squares: Squares, parts: list[list[int]], *, fewest: int) -> Labels:
    """Return labels once those left over have joined a group or stay alone, and every point is in the group whose middle is nearest."""
    n, large = len(squares), [part for part in parts if len(part) >= fewest]
    if not large:
        return _labels(parts, n)
    labels = _labels([*large, *(part for part in parts if len(part) < fewest)], n)
    groups_of = len(large)
    for _ in range(_PASSES):
        before = labels.copy()
        alone = labels >= groups_of
        member = np.zeros((groups_of, n))
        member[labels[~alone], np.flatnonzero(~alone)] = 1
        size = member.sum(1)
        if size.min() < 2:
            break
        to_all = member @ squares  # [groups, n] sums
        spread = (to_all * member).sum(1) / (size * (size - 1))
        own = member.astype(bool)
        # A point is no part of the middle that it is measured against.
        rest = np.where(own, size[:, None] - 1, size[:, None])
        inner = ((to_all * member).sum(1)[:, None] - 2 * np.where(own, to_all, 0)) / (2 * rest**2)
        middle = to_all / rest - inner
        near = middle.argmin(0)
        mean = to_all / rest
        far = mean[near, np.arange(n)] > (1 + ALONE) * spread[near]
        labels = np.where(alone & far, labels, near)
        if np.array_equal(labels, before):
            break
    return labels


def _labels(parts: list[list[int]], n: int) -> Labels:
    out = np.zeros(n, np.int64)
    for number, part in enumerate(parts):
        out[part] = number
    return out


def _ordered(labels: Labels) -> Labels:
    _, first, number, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return np.asarray(rank[number])
