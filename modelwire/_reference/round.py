"""A round of the device, tensor by tensor with whole-array numpy: what stands out, taking over what is sent, taking that back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modelwire.errors import IndexOutOfRange, KernelError, Malformed
from modelwire.limits import Q_MAX
from modelwire.tensors import F32, I32, U16, U32

from .arrays import Array, take, unit, whole_step
from .integrity import lanes_of
from .lattice import difference, first_fault, from_bf16, in_range, not_finite, not_finite_as, overflow, to_bf16, weights_at
from .planes import past_codes, stored_weights_at

Lanes = tuple[int, int]
Kept = tuple[U32, I32, list[int], list[int], Lanes]
LATTICE, VERBATIM = 0, 1
INT8, INT32 = 4, 5
CODE_MAX = 127


class Round:
    """The arrays of one round. Unlike the compiled one it looks at everything before it writes anything."""

    def __init__(
        self, base: Sequence[Array], w: Sequence[Array], q: Sequence[I32], trained: Sequence[Array], residual: Sequence[U16],
        left: Sequence[U16], *, exponents: Sequence[int], kinds: Sequence[int], dtypes: Sequence[int], starts: Sequence[int],
    ) -> None:  # fmt: skip
        self._kinds, self._dtypes, self._exponents, self._starts = list(kinds), list(dtypes), list(exponents), list(starts)
        n = len(self._kinds)
        lists = [list(arrays) for arrays in (base, w, q, trained, residual, left)]
        for length in (*map(len, lists), len(self._exponents), len(self._dtypes), len(self._starts)):
            if length != n:
                raise KernelError(what="round", reason=f"expected {n} tensors, got {length}")
        self._base, self._w, self._q, self._trained, self._residual, self._left = lists
        for t, kind in enumerate(self._kinds):
            if kind > VERBATIM:
                continue
            of = np.int32 if self._dtypes[t] == INT32 else np.float32
            size = len(take("base", self._base[t], of))
            take("w", self._w[t], of, n=size, writable=True)
            take("q", self._q[t], np.int32, n=size, writable=True)
            take("trained", self._trained[t], of, n=size)
            if size and self._trained[t].ctypes.data == self._w[t].ctypes.data:
                raise KernelError(what="trained", reason="it is the weights themselves, which the round changes")
            if kind == LATTICE:
                take("residual", self._residual[t], np.uint16, n=size)
                take("left", self._left[t], np.uint16, n=size, writable=True)
                if size and self._residual[t].ctypes.data == self._left[t].ctypes.data:
                    raise KernelError(what="left", reason="it is the residual itself, which the round reads")

    def collect(self, k: int) -> tuple[U32, I32, list[int], float, float]:
        indices, found, ends = [np.zeros(0, np.uint32)], [np.zeros(0, np.float32)], []
        for t in range(len(self._kinds)):
            if self._kinds[t] == LATTICE and self._dtypes[t] != INT8:
                d = self._differences(t)
                first_fault([(~np.isfinite(d), not_finite(self._trained[t], t))])
                self._left[t][:] = to_bf16(d)
                index = np.flatnonzero(d)
                indices.append(index.astype(np.uint32))
                found.append(d[index])
            ends.append(sum(map(len, indices)))
        kept = np.concatenate(found)
        edge = float(np.sort(np.abs(kept))[len(kept) - max(1, k)]) if max(1, k) <= len(kept) else 0.0
        least = float(np.array(1, np.uint32).view(np.float32))
        return np.concatenate(indices), kept.view(np.int32), ends, edge, least

    def adopt(
        self, index: U32, d: I32, ends: Sequence[int], *, steps: Sequence[int], thresholds: Sequence[float]
    ) -> Kept:
        index = take("index", index, np.uint32, writable=True)
        d = take("d", d, np.int32, n=len(index), writable=True)
        chosen = self._choices(steps, thresholds)
        self._bound(ends, len(index))
        parts = []
        for t, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if chosen[t]:
                parts.append((t, index[start:end].copy(), d[start:end].view(np.float32).copy()))
        return self._take_over(parts, chosen)

    def adopt_known(self, *, steps: Sequence[int], thresholds: Sequence[float], room: int = 0) -> Kept:
        chosen = self._choices(steps, thresholds)
        parts = []
        for t in range(len(self._kinds)):
            if chosen[t]:
                d = self._differences(t)
                index = np.flatnonzero(d)  # a NaN is none of the zeros
                parts.append((t, index.astype(np.uint32), d[index]))
        return self._take_over(parts, chosen, dense=True)

    def adopt_verbatim(self) -> tuple[U32, I32, list[int], Lanes]:
        for t, kind in enumerate(self._kinds):
            if kind == VERBATIM and self._dtypes[t] != INT32:
                first_fault([(~np.isfinite(self._trained[t]), not_finite_as("the trained weights", t))])
        indices, values, ends, lanes = [np.zeros(0, np.uint32)], [np.zeros(0, np.int32)], [], (0, 0)
        for t, kind in enumerate(self._kinds):
            if kind == VERBATIM:
                w, new = self._w[t].view(np.uint32), self._trained[t].view(np.uint32)
                moved = (new - w).view(np.int32)
                index = np.flatnonzero(moved)
                self._q[t].view(np.uint32)[:] += moved.view(np.uint32)
                w[:] = new
                indices.append(index.astype(np.uint32))
                values.append(moved[index])
                lanes = lanes_of(index.astype(np.uint64), moved[index].astype(np.int64), self._starts[t], True, lanes)
            ends.append(sum(map(len, indices)))
        return np.concatenate(indices), np.concatenate(values), ends, lanes

    def retract(self, index: U32, value: I32, ends: Sequence[int], *, steps: Sequence[int]) -> None:
        index = take("index", index, np.uint32)
        value = take("value", value, np.int32, n=len(index), writable=True)
        if len(steps) != len(self._kinds):
            raise KernelError(what="steps", reason=f"expected {len(self._kinds)}, got {len(steps)} and {len(steps)} thresholds")
        self._bound(ends, len(index))
        for t, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            if start == end:
                continue
            i, by = index[start:end], value[start:end]
            if self._kinds[t] == LATTICE:
                unit(self._exponents[t])
                whole_step(steps[t])
            self._ordered(t, i)
            q = self._q[t]
            if self._kinds[t] == VERBATIM:
                self._w[t].view(np.uint32)[i] -= by.view(np.uint32)
                q.view(np.uint32)[i] -= by.view(np.uint32)
                continue
            q[i] = (q[i].astype(np.int64) - by.astype(np.int64) * steps[t]).astype(np.int32)
            self._w[t][i] = self._weights_at(t, i, q[i])
            d = difference(self._w[t][i], self._trained[t][i], self._residual[t][i])
            self._left[t][i] = to_bf16(d)
            by[:] = d.view(np.int32)

    def _differences(self, t: int) -> F32:
        return difference(self._w[t], self._trained[t], self._residual[t])

    def _weights_at(self, t: int, index: Array, q: Array) -> F32:
        """Return the weights of some entries as they are stored."""
        return stored_weights_at(self._base[t][index], q, self._exponents[t], self._dtypes[t])

    def _choices(self, steps: Sequence[int], thresholds: Sequence[float]) -> list[tuple[int, np.float32] | None]:
        n = len(self._kinds)
        if len(steps) != n or len(thresholds) != n:
            raise KernelError(what="steps", reason=f"expected {n}, got {len(steps)} and {len(thresholds)} thresholds")
        out: list[tuple[int, np.float32] | None] = []
        for t in range(n):
            if self._kinds[t] != LATTICE or not steps[t]:
                out.append(None)
                continue
            unit(self._exponents[t])
            step = whole_step(steps[t])
            with np.errstate(all="ignore"):
                least = np.float32(thresholds[t])
            if not least >= 0:
                raise Malformed(what="threshold", reason="it is negative or not a number")
            out.append((step, least))
        return out

    def _bound(self, ends: Sequence[int], size: int) -> None:
        if len(ends) != len(self._kinds):
            raise KernelError(what="ends", reason=f"expected {len(self._kinds)}, got {len(ends)}")
        if any(not a <= b <= size for a, b in zip([0, *ends], ends, strict=False)):
            raise KernelError(what="ends", reason="they are not in order")

    def _ordered(self, t: int, index: U32) -> None:
        outside = index >= len(self._q[t])
        outside[1:] |= index[1:] <= index[:-1]
        first_fault([(outside, lambda k: IndexOutOfRange(tensor=t, index=int(index[k]), size=len(self._q[t])))])

    def _take_over(
        self, parts: list[tuple[int, U32, F32]], chosen: list[tuple[int, np.float32] | None], *, dense: bool = False
    ) -> Kept:
        """Judge every entry of every tensor, then write."""
        planned = {}
        for t, index, d in parts:
            choice = chosen[t]
            assert choice is not None
            planned[t] = self._judged(t, index, d, *choice)
        indices, values, ends, clamped, lanes = [np.zeros(0, np.uint32)], [np.zeros(0, np.int32)], [], [], (0, 0)
        for t in range(len(self._kinds)):
            cut = 0
            if t in planned:
                if dense:
                    self._left[t][:] = to_bf16(self._differences(t))
                i, steps, moved, weights, left, cut = planned[t]
                self._q[t][i], self._w[t][i], self._left[t][i] = moved, weights, left
                indices.append(i.astype(np.uint32))
                values.append(steps)
                choice = chosen[t]
                assert choice is not None
                lanes = lanes_of(i.astype(np.uint64), steps.astype(np.int64) * choice[0], self._starts[t], False, lanes)
            ends.append(sum(map(len, indices)))
            clamped.append(cut)
        return np.concatenate(indices), np.concatenate(values), ends, clamped, lanes

    def _judged(self, t: int, index: U32, d: F32, step: int, least: np.float32) -> tuple[Array, I32, I32, F32, U16, int]:
        """Return what becomes of one tensor: entries, whole steps, Q, weights and residuals, and how many were cut."""
        outside = index >= len(self._q[t])
        outside[1:] |= index[1:] <= index[:-1]
        misplaced = (outside, lambda k: IndexOutOfRange(tensor=t, index=int(index[k]), size=len(self._q[t])))
        if outside.all():
            first_fault([misplaced])
        safe = np.where(outside, 0, index)
        magnitude, q, w = np.abs(d), self._q[t][safe], self._w[t][safe]
        sent = (magnitude >= least) & (magnitude > 0)
        over = sent & ~in_range(q)
        with np.errstate(all="ignore"):
            ratio = np.minimum(magnitude / (np.float32(step) * unit(self._exponents[t])), np.float32(2**31))
            whole = np.maximum(1, np.rint(np.where(np.isfinite(ratio), ratio, 0)).astype(np.int64))
            sign = np.where(d > 0, 1, -1)
            room = (Q_MAX - sign * np.where(over, 0, q).astype(np.int64)) // step
            steps = np.where(sent & np.isfinite(d), sign * np.minimum(whole, room), 0)
            lost = (steps != 0) & ~np.isfinite(w)
            if self._dtypes[t] == INT8:
                end = np.where(np.isfinite(w), np.float32(CODE_MAX) - np.where(d > 0, w, -w), 0)
                room = np.minimum(room, np.clip(end, 0, 2 * Q_MAX).astype(np.int64))
                steps = np.where(steps != 0, sign * np.minimum(whole, room), 0)
            moved = (q + steps * step).astype(np.int32)
            weights = self._weights_at(t, safe, moved)
            rest = np.where(steps != 0, d - (weights - w), d)
            unfit = (steps != 0) & ~np.isfinite(weights)
            past = unfit & ~lost & past_codes(weights_at(self._base[t][safe], moved, self._exponents[t]), self._dtypes[t])
        rounded = to_bf16(rest)
        first_fault([
            misplaced,
            (~np.isfinite(d), lambda k: not_finite(self._trained[t], t)(int(index[k]))),
            (over | past, lambda k: overflow(int(index[k]), t)),
            (lost | unfit, lambda k: not_finite_as("the weights", t)(int(index[k]))),
            (~np.isfinite(rest) | ~np.isfinite(from_bf16(rounded)), lambda k: not_finite_as("the residual", t)(int(index[k]))),
        ])
        kept = steps != 0
        cut = int(np.count_nonzero(sent & (whole > room)))
        return index[kept].astype(np.int64), steps[kept].astype(np.int32), moved[kept], weights[kept], rounded[kept], cut


def kth_magnitude(d: I32, k: int) -> float:
    d = take("d", d, np.int32)
    if not 1 <= k <= len(d):
        raise KernelError(what="k", reason=f"expected 1 to {len(d)}, got {k}")
    bits = d.view(np.uint32) & np.uint32(0x7FFFFFFF)  # magnitudes order like their bits, NaNs included
    return float(np.sort(bits)[len(d) - k : len(d) - k + 1].view(np.float32)[0])
