"""Scores many versions on the rows of a probe set: one pass through what they share, their trailing layers as one product.

The scores are the interpreter's: where rounding could decide which output is the largest, the row is run whole. docs/comparing.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecloud.probes import running
from edgecloud.registry import Store, VersionRow
from edgecloud.versions import materialise
from modelwire.errors import ModelWireError, ShapeMismatch
from modelwire.tensors import F32
from modelwire.tflite.graph import LOGISTIC, SOFTMAX

from . import products, tails

Rows: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]
SMALLEST = 1e-7  # a probability below this counts as this, as on the board
FILES = 2  # that stay parsed for the next question about them
SECONDS_A_ROW = 0.1  # that a model may take, beyond what the first rows may


class Probes(Protocol):
    """What is asked of a probe set. x: float32 [rows, ...]; y: class numbers [rows], or targets, float32 [rows, ...]."""

    @property
    def x(self) -> F32: ...
    @property
    def y(self) -> NDArray[np.generic] | None: ...


@dataclass(slots=True)
class Scores:
    """How versions did, row by row, in the order in which they were asked for."""

    right: NDArray[np.bool_] | None  # [versions, rows]; None where rows have targets in the place of classes
    loss: F32  # [versions, rows]: cross-entropy of classes, mean squared error of targets; NaN where an output is no number
    failed: dict[int, str] = field(default_factory=dict)  # which of them could not be scored, and why
    shared: int = 0  # versions that went through a shared pass
    whole: int = 0  # that were run whole
    near: int = 0  # rows of shared ones that were run whole, since rounding could have decided them


@dataclass(slots=True)
class Contender:
    """A version's weights as far as they are not the base's bits."""

    place: int  # in the order in which they were asked for
    differing: dict[str, F32]


def score(
    store: Store,
    versions: Sequence[VersionRow | bytes],
    probes: Probes,
    rows: Rows | None = None,
    *,
    bases: materialise.LoadedBases | None = None,
    progress: Progress | None = None,
    spare: running.Spare | None = None,
) -> Scores:
    """Return how versions do on rows of a probe set.

    versions: rows of the registry, or commits of bases that are to be scored themselves. rows: numbers of rows; all by default.
    progress: told versions rebuilt and all. spare: where several questions share a process. Raises ShapeMismatch for probes that a model
    can't take, RuntimeUnusable where no runtime works. A version that can't be rebuilt or run is a reason in `failed`, not the end of the
    others.
    """
    bases = materialise.LoadedBases(store) if bases is None else bases
    x, y = np.asarray(probes.x, np.float32), probes.y
    if y is None:
        raise ShapeMismatch(tensor="the probe set", expected="labels y", got="none")
    x, wanted = (x, np.asarray(y)) if rows is None else (x[rows], np.asarray(y)[rows])
    out = empty(len(versions), wanted)
    groups: dict[bytes, list[Contender]] = {}
    for done, (base, one) in enumerate(_rebuilt(store, versions, bases, out)):
        groups.setdefault(base, []).append(one)
        if progress is not None:
            progress(done + 1, len(versions))
    for commit, candidates in groups.items():
        Judge(bases[commit], x, wanted, spare).judge(candidates, out)
    return out


def _rebuilt(
    store: Store, versions: Sequence[VersionRow | bytes], bases: materialise.LoadedBases, out: Scores
) -> Iterator[tuple[bytes, Contender]]:
    for place, version in enumerate(versions):
        if isinstance(version, bytes):
            yield version, Contender(place, {})
            continue
        try:
            state = materialise.rebuild(store, version, bases)
        except ModelWireError as error:
            out.failed[place] = error.message
            continue
        schema = state.manifest.schema
        differing = {
            spec.name: weights.reshape(spec.shape).copy()
            for spec, base, weights in zip(schema.tensors, state.base, state.weights, strict=True)
            if base.tobytes() != weights.tobytes()
        }
        yield state.manifest.commit, Contender(place, differing)


def empty(versions: int, wanted: NDArray[np.generic]) -> Scores:
    shape = (versions, len(wanted))
    classes = wanted.dtype.kind in "iu"
    return Scores(np.zeros(shape, np.bool_) if classes else None, np.full(shape, np.nan, np.float32))


class Judge:
    """Scores versions of one base on rows."""

    def __init__(
        self, base: materialise.LoadedBase, x: F32, wanted: NDArray[np.generic], spare: running.Spare | None = None
    ) -> None:  # fmt: skip
        self.base, self.x, self.wanted, self.spare = base, x, wanted, spare
        self.named = {spec.name: held.reshape(spec.shape) for spec, held in zip(base.manifest.schema.tensors, base.weights, strict=True)}

    def judge(self, candidates: Sequence[Contender], out: Scores) -> None:
        """Fill in the scores of these candidates. Raises RuntimeUnusable."""
        groups, alone = self._grouped(candidates)
        cuts = [self._cut(tail) for tail, _ in groups]
        # What is to be run follows from what has come of the models before it: one process runs all of them, one after the other.
        waiting = deque([*(cut for cut in cuts if cut is not None), *([self._model(Contender(-1, {}))] if groups else [])])
        with closing(self._run(waiting)) as runs:
            features = [None if cut is None else next(runs) for cut in cuts]
            base, again = next(runs) if groups else None, list[tuple[Contender, Rows]]()
            for (tail, together), run in zip(groups, features, strict=True):
                given = self.x if tail.cut is None else run.output if run is not None and not run.reason else None
                flat = None if given is None else given.reshape(len(self.x), -1)
                if flat is None or base is None or base.output is None or not self._believed(tail, flat, base.output):
                    alone += together
                else:
                    again += self._shared(tail, flat, together, out)
            for one in alone:
                waiting.append(self._model(one))
                self._alone(one, next(runs), out)
            for one, rows in again:
                waiting.append(self._model(one, rows))
                self._again(one, rows, next(runs), out)

    def _grouped(self, candidates: Sequence[Contender]) -> tuple[list[tuple[tails.Tail, list[Contender]]], list[Contender]]:
        """Return the candidates that may share a pass, by where their tails begin, and the others."""
        groups: dict[int | None, tuple[tails.Tail, list[Contender]]] = {}
        found: dict[frozenset[str], tails.Tail | None] = {}
        alone = []
        for one in candidates:
            names = frozenset(one.differing)
            if names not in found:
                found[names] = _tail_of(self.base.file.data, names) if names and self.base.file.head is None else None
            tail = found[names]
            if tail is None or (tail.cut is None and len(tail.layers) > 1):  # nothing that a pass could share
                alone.append(one)
            else:
                groups.setdefault(tail.cut, (tail, []))[1].append(one)
        alone += [one for _, together in groups.values() if len(together) == 1 for one in together]
        return [group for group in groups.values() if len(group[1]) > 1], alone

    def _run(self, waiting: deque[running.Runnable]) -> Generator[running.ModelRun, None, None]:
        def models() -> Iterator[running.Runnable]:
            while waiting:
                yield waiting.popleft()

        limits = running.RunLimits(seconds=max(running.RunLimits().seconds, SECONDS_A_ROW * len(self.x)))
        spare = None if self.spare is None else (self.spare, self.base.manifest.commit)
        return running.outputs(models(), self.x, batches=True, limits=limits, spare=spare)

    def _model(self, one: Contender, rows: Rows | None = None) -> running.Runnable:
        return running.Runnable(f"candidate {one.place}", self.base.file, {**self.named, **one.differing}, rows=rows)

    def _cut(self, tail: tails.Tail) -> running.Runnable | None:
        """Return what gives the features of a tail; None where they are the rows themselves, or the file can't be cut."""
        return None if tail.cut is None else _backbone_of(self.base.file.data, tail)

    def _alone(self, one: Contender, run: running.ModelRun, out: Scores) -> None:
        if run.output is None:
            out.failed[one.place] = run.reason
            return
        out.whole += 1
        self.put(one.place, run.output, out)

    def _shared(self, tail: tails.Tail, features: F32, together: Sequence[Contender], out: Scores) -> list[tuple[Contender, Rows]]:
        """Score candidates by one product. Return which rows of which have to be run whole: rounding could decide them."""
        width, again = products.at_once(len(self.x), tail, self.named), []
        for start in range(0, len(together), width):
            part = together[start : start + width]
            made = products.outputs_of(tail, features, self.named, [one.differing for one in part])
            near = self._put_all(tail, made, [one.place for one in part], out)
            self._look_closer(tail, features, part, near, out)
            again += [(one, np.flatnonzero(unsure)) for one, unsure in zip(part, near, strict=True) if unsure.any()]
        out.shared += len(together)
        return again

    def _look_closer(self, tail: tails.Tail, features: F32, part: Sequence[Contender], near: NDArray[np.bool_], out: Scores) -> None:
        """Decide in float64 what the rough bound left open, and mark in `near` that it is: the bound of these very products is smaller."""
        version, row = np.nonzero(near & np.isfinite(out.loss[[one.place for one in part]]))
        if not len(row) or tail.last != SOFTMAX or out.right is None:
            return
        pairs = version.astype(np.int64), row.astype(np.int64)
        found = products.closer(tail, features, self.named, [one.differing for one in part], pairs, self.wanted[row].astype(np.int64))
        if found is None:
            return
        ahead, room = found
        sure = np.abs(ahead) > room
        places = np.array([one.place for one in part])[version[sure]]
        out.right[places, row[sure]] = ahead[sure] > 0
        near[version[sure], row[sure]] = False

    def _again(self, one: Contender, rows: Rows, run: running.ModelRun, out: Scores) -> None:
        """Take in the rows that were run whole since rounding could decide them."""
        if run.output is None:
            out.failed[one.place] = run.reason
            return
        out.near += len(rows)
        self.put(one.place, run.output, out, rows)

    def _believed(self, tail: tails.Tail, features: F32, base: F32) -> bool:
        """Return whether the base comes out of a product as it does of the interpreter, within the bound of rounding."""
        made = products.outputs_of(tail, features, self.named, [{}])
        got, want = products.values_of(tail, made.scores[0]).T, base.reshape(len(base), -1)
        room = made.apart[0][:, None] * np.maximum(1, np.abs(got))
        if want.shape != got.shape:
            return False
        same = (np.abs(got - want) <= room) | ~np.isfinite(want)
        return bool(same.all())

    def _put_all(self, tail: tails.Tail, made: products.Outputs, places: Sequence[int], out: Scores) -> NDArray[np.bool_]:
        """Judge a product's outputs and write that down. Return of which version and row [versions, rows] rounding could decide that."""
        scores, outputs = made.scores, made.scores.shape[1]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is run whole
            finite: NDArray[np.bool_] = np.isfinite(scores.sum(1))
        if self.wanted.dtype.kind not in "iu" or outputs == 1 or tail.last != SOFTMAX:
            values = products.values_of(tail, scores)
            for place, one in zip(places, values, strict=True):
                self.put(place, one.T, out)
            return ~finite if self.wanted.dtype.kind not in "iu" else ~finite | self._unsure(tail, values, made)
        check_classes(self.wanted, outputs)
        classes, rows = self.wanted.astype(np.int64), np.arange(len(self.wanted))
        own = scores[:, classes, rows]
        top = scores.max(1)
        with np.errstate(over="ignore", invalid="ignore"):
            shares = np.exp(scores - top[:, None])
            loss = -np.log(np.maximum(np.exp(own - top) / shares.sum(1), np.float32(SMALLEST)))
            others = scores.copy()
            others[:, classes, rows] = -np.inf
            ahead = own - others.max(1)
        out.loss[places] = loss
        if out.right is not None:
            out.right[places] = ahead > 0
        sure: NDArray[np.bool_] = finite & (np.abs(ahead) > made.apart)
        return ~sure

    def _unsure(self, tail: tails.Tail, values: F32, made: products.Outputs) -> NDArray[np.bool_]:
        """Return the same of models without a softmax. Two that are certain may be equal behind a logistic."""
        if values.shape[1] == 1:
            middle = made.scores[:, 0] - np.float32(0 if tail.last == LOGISTIC else 0.5)
            near: NDArray[np.bool_] = ~(np.abs(middle) > made.apart)
            return near
        best, top = np.partition(values, -2, 1)[:, -2:], np.partition(made.scores, -2, 1)[:, -2:]
        sure: NDArray[np.bool_] = (best[:, 1] - best[:, 0] > products.ULPS) & (top[:, 1] - top[:, 0] > made.apart)
        return ~sure

    def put(self, place: int, values: F32, out: Scores, rows: Rows | None = None) -> None:
        """Judge outputs [rows, ...] and write that down."""
        at = slice(None) if rows is None else rows
        wanted = self.wanted[at]
        values = values.reshape(len(values), -1)
        finite = np.isfinite(values).all(-1)
        right, loss = judged(values, wanted)
        out.loss[place, at] = np.where(finite, loss, np.nan)
        if right is not None and out.right is not None:
            out.right[place, at] = right & finite


@lru_cache(maxsize=FILES)
def _tail_of(file: bytes, names: frozenset[str]) -> tails.Tail | None:
    return tails.tail_of(file, names)


@lru_cache(maxsize=FILES)
def _backbone_of(file: bytes, tail: tails.Tail) -> running.Runnable | None:
    """Return a file that is cut in front of a tail, as a model to run."""
    cut = tails.cut_file(file, tail)
    return None if cut is None else replace(running.of_file("backbone", cut), signature=tail.signature)


def judged(values: F32, wanted: NDArray[np.generic]) -> tuple[NDArray[np.bool_] | None, F32]:
    """Return which rows are right, None for targets, and the loss of each. values: [rows, outputs]; wanted: classes, or targets.

    Cross-entropy where the outputs of a row are probabilities, mean squared error else, as on the board. Raises ShapeMismatch.
    """
    n, width = values.shape
    if wanted.dtype.kind not in "iu":
        if wanted.size != values.size:
            raise ShapeMismatch(tensor="y of the probe set", expected=f"{width} entries a row", got=f"{wanted.size // max(1, n)}")
        return None, np.square(values - wanted.astype(np.float32).reshape(values.shape), dtype=np.float64).mean(-1).astype(np.float32)
    check_classes(wanted, width)
    classes = wanted.astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        if width == 1:
            likely = np.where(classes == 1, values[:, 0], 1 - values[:, 0])
            right: NDArray[np.bool_] = (values[:, 0] > 0.5) == (classes == 1)
            return right, -np.log(np.clip(likely, SMALLEST, 1)).astype(np.float32)
        right = values.argmax(-1) == classes
        likely = values[np.arange(n), classes]
        sums = np.abs(values.sum(-1, dtype=np.float64) - 1) < 1e-2
        squares = np.square(values - np.eye(width, dtype=np.float32)[classes], dtype=np.float64).mean(-1)
        loss = np.where(sums & (values >= -1e-6).all(-1), -np.log(np.maximum(likely, SMALLEST)), squares)
    return right, loss.astype(np.float32)


def check_classes(wanted: NDArray[np.generic], outputs: int) -> None:
    """Raise ShapeMismatch unless all are classes that a model of so many outputs can name."""
    if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < max(2, outputs):
        got = f"{wanted.min()} to {wanted.max()}"
        raise ShapeMismatch(tensor="y of the probe set", expected=f"classes from 0 to {max(2, outputs) - 1}", got=got)
