"""The hash that csrc/selftest_non_finite.c returns, computed by the numpy twin alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from modelwire import _reference as twin
from modelwire._reference import model as twin_of_models
from modelwire.errors import ModelWireError, TrainingDiverged
from modelwire.output_head_settings import Loss, Optimizer, OutputHeadSettings, Schedule
from tests.crossisa.stream import Stream

SOUND, N, OUTPUTS = 40, 530, 19
KINDS = (0x7F800000, 0xFF800000, 0xFFC00000, 0x7F800001, 0x7FFF7FFF, 0x7FFF8000, 0xFFFFFFFF)
PLACES = (31, 512, 529)
BASE, WEIGHTS, TRAINED, RESIDUAL = "base", "w", "trained", "residual"


class Run(Stream):
    """All kinds of what is no number, in all arrays."""

    def __init__(self, status_of: Callable[[ModelWireError], int]) -> None:
        super().__init__(0)
        self.status_of = status_of

    def said(self, call: Callable[[], Any]) -> Any:
        """Feed status and place of a call's end, and return what it gave, or None."""
        try:
            result = call()
        except TrainingDiverged as error:
            self.feed(struct.pack("<3Q", self.status_of(error), 0, int(str(error.facts["steps"]))))
        except ModelWireError as error:
            place = error.facts.get("tensor", 0), error.facts.get("index")
            if place[1] is None:  # it stands in the text
                place = 0, int(str(error.facts["reason"]).split()[1])
            self.feed(struct.pack("<3Q", self.status_of(error), *place))
        else:
            self.feed(bytes(24))
            return result
        return None

    def spoil(self, which: str, place: int, bits: int) -> None:
        i = np.arange(SOUND + N)
        self.base = (i % 37 - 18).astype(np.float32)
        self.q = np.full(SOUND + N, 5, np.int32)
        self.w = self.base + np.float32(5)
        self.trained = self.w + np.where(i % 2, 3, -3).astype(np.float32)
        self.residual, self.left = np.zeros(SOUND + N, np.uint16), np.zeros(SOUND + N, np.uint16)
        if which == RESIDUAL:
            self.residual[SOUND + place] = bits >> 16
        elif which:
            getattr(self, which).view(np.uint32)[SOUND + place] = bits

    def parts(self, *arrays: Any) -> list[list[Any]]:
        return [[a[:SOUND], a[SOUND:]] for a in arrays]

    def round(self, dtype: int) -> Any:
        lists = self.parts(self.base, self.w, self.q, self.trained, self.residual, self.left)
        return twin.Round(*lists, exponents=[0, 0], kinds=[0, 0], dtypes=[1, dtype], starts=[0, SOUND])

    def known(self, dtype: int, threshold: float) -> None:
        kept = self.said(lambda: self.round(dtype).adopt_known(steps=[1, 1], thresholds=[0.5, threshold]))
        if kept:
            self.feed(struct.pack("<3Q", len(kept[0]), *kept[4]))

    def largest(self, dtype: int) -> None:
        found = self.said(lambda: self.round(dtype).collect(SOUND + N))
        if found:
            self.feed(struct.pack("<3Q", len(found[0]), 0, 0))

    def candidates(self, dtype: int) -> None:
        i = np.arange(SOUND + N)
        index, d = np.where(i < SOUND, i, i - SOUND).astype(np.uint32), np.where(i % 2, 3, -3).astype(np.float32).view(np.int32)
        ends = [SOUND, SOUND + N]
        kept = self.said(lambda: self.round(dtype).adopt(index, d, ends, steps=[1, 1], thresholds=[0.5, 0.5]))
        if kept:
            self.feed(struct.pack("<3Q", len(kept[0]), *kept[4]))

    def streamed(self, dtype: int, snapshot: bool) -> None:
        table = b"".join(struct.pack("<HBBBbHI", t, 1, 1, 0, 0, 0, n) for t, n in enumerate((SOUND, N)))
        model = twin.Model(*self.parts(self.base, self.w, self.q), dtypes=bytes([1, dtype]), kinds=bytes(2), shapes=[(1, SOUND), (1, N)])
        lanes = self.said(lambda: twin.apply_stream(model, [0, 0], table, coded(), snapshot=snapshot, lanes=(0, 0)))
        if lanes:
            self.feed(struct.pack("<3Q", 0, *lanes))

    def one_tensor(self) -> None:
        base, w, q, trained, residual = (a[SOUND:] for a in (self.base, self.w, self.q, self.trained, self.residual))
        out, found = np.zeros(N, np.float32), np.zeros(N, np.int32)
        self.said(lambda: twin.differences(w, trained, residual, out))
        self.said(lambda: twin.weights_from_q(base, q, out, exponent=0))
        self.said(lambda: twin.q_from_weights(base, w, found, exponent=0))
        index, value = np.arange(N, dtype=np.uint32), np.full(N, 7, np.int32)
        self.said(lambda: twin.check_lattice(base, q, index, value, exponent=0, step=1))
        for dtype in (1, 2, 3, 4):
            self.said(lambda dtype=dtype: twin.round_stored(w, out, dtype=dtype))
        for dtype in (2, 3, 4):
            stored = np.zeros(N, np.uint8 if dtype == 4 else np.uint16)
            self.said(lambda dtype=dtype, stored=stored: twin.to_storage(w, stored, dtype=dtype))
        self.split(w.view(np.uint32), base.view(np.uint32), 0x7F800000)

    def split(self, fresh: Any, parent: Any, infinity: int) -> None:
        changed, planes = np.zeros(N // 8 + 1, np.uint8), np.zeros(fresh.nbytes, np.uint8)
        self.said(lambda: twin.split_planes(fresh, parent, changed, planes, infinity=infinity))

    def sixteen_bits(self, dtype: int, infinity: int, place: int, bits: int) -> None:
        self.spoil("", 0, 0)
        stored, out = np.zeros(N, np.uint16), np.zeros(N, np.float32)
        twin.to_storage(self.w[SOUND:], stored, dtype=dtype)
        stored[place] = infinity | bits >> 31 << 15 | bits & 1 | bits >> 13 & 0x200
        self.said(lambda: twin.from_storage(stored, out, dtype=dtype))
        self.split(stored, None, infinity)

    def head(self) -> None:
        recipe = OutputHeadSettings(
            2, OUTPUTS, 3, loss=Loss.SOFTMAX, optimizer=Optimizer.SGD, schedule=Schedule.CONSTANT, batch=1, rate=0.01, decay=0.0,
        )  # fmt: skip
        features, label = np.full(2, 2.0**127, np.float32), np.zeros(1, np.uint32)
        for k in range(OUTPUTS * 4):
            weights = np.zeros(recipe.size, np.float32)
            weights[k // 4 * 2 : k // 4 * 2 + 2] = np.array([(1, 1), (-1, -1), (1, -1), (-1, 1)][k % 4]) * 2.0**127
            slots = np.zeros(0, np.float32)
            self.said(
                lambda weights=weights, slots=slots: twin.head_train(recipe, features, label, weights, slots, scale=1.0, step=0, count=3)
            )

    def all(self) -> int:
        for bits in KINDS:
            for p, place in enumerate(PLACES):
                for which in (BASE, WEIGHTS, TRAINED, RESIDUAL):
                    self.array(which, p, bits)
                self.sixteen_bits(2, 0x7C00, place, bits)
                self.sixteen_bits(3, 0x7F80, place, bits)
        self.head()
        return self.hash

    def array(self, which: str, p: int, bits: int) -> None:
        for dtype in (1, 2, 3, 4):
            calls: list[tuple[Any, ...]] = [(self.known, 0.5), (self.known, 1e30), (self.largest,)]
            if which in (BASE, WEIGHTS):
                calls.append((self.candidates,))
            if which == BASE and p in (0, 2):
                calls.append((self.streamed, p == 2))
            for call, *facts in calls:
                self.spoil(which, PLACES[p], bits)
                call(dtype, *facts)
        self.spoil(which, PLACES[p], bits)
        self.one_tensor()


@cache
def coded() -> bytes:
    sections = [(1, n, np.arange(n, dtype=np.uint32), np.full(n, 7, np.int32)) for n in (SOUND, N)]
    return twin.encode_sections(sections)


def non_finite_hash(status_of: Callable[[ModelWireError], int]) -> int:
    """Return what csrc/selftest_non_finite.c returns."""
    decode = twin_of_models.decode_sections
    read = cache(lambda data, shapes: decode(data, shapes))
    twin_of_models.decode_sections = lambda data, shapes: read(data, tuple(shapes))  # one stream, many times
    try:
        with np.errstate(all="ignore"):
            return Run(status_of).all()
    finally:
        twin_of_models.decode_sections = decode
