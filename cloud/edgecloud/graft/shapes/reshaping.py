"""Finds where a reshape of one sample takes the batch, and when it stands for a transposition of many."""

from __future__ import annotations

from math import prod

IN_FRONT = -1  # an axis: the batch stands before all axes of a tensor that one sample has none of


def reshaped(shape: tuple[int, ...], axis: int, to: tuple[int, ...]) -> int | None:
    """Return where a reshape takes the batch, None when nowhere."""
    if axis == IN_FRONT:
        return 0 if to == (1, *shape) else None
    same = [i for i, n in enumerate(to) if prod(to[:i]) == prod(shape[:axis]) and n == 1]
    if same:
        return same[0]
    moved = [i for i, n in enumerate(to) if n == 1 == shape[axis] and to[:i] + to[i + 1 :] == shape[:axis] + shape[axis + 1 :]]
    if moved:
        return moved[0]
    return 0 if prod(shape[:axis]) == 1 and len(to) > 1 else None


def moves(shape: tuple[int, ...], axis: int, to: tuple[int, ...], moved_to: int) -> list[int] | None:
    """Return the order of axes of a transposition that a reshape of one sample stands for, None where it is a reshape for many too.

    Converters write the transposition of an axis of 1 as a reshape: [1, 24, 6] to [24, 1, 6]. Shapes are of one sample.
    """
    if IN_FRONT in (moved_to, axis) or prod(to[:moved_to]) == prod(shape[:axis]):
        return None
    order = [i for i in range(len(shape)) if i != axis]
    order.insert(moved_to, axis)
    return order
