"""The hash that csrc/selftest.c prints, computed by the numpy twin alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelwire import _reference as twin
from modelwire.errors import IndexOutOfRange, Malformed, ModelWireError, NonFinite, RangeOverflow, TrainingDiverged
from modelwire.limits import Q_MAX
from tests.crossisa.stream import Stream
from tests.crossisa.twin_head import head_hash
from tests.crossisa.twin_non_finite import non_finite_hash

HEADER = Path(__file__).parents[2] / "csrc" / "mw.h"
STATUS = {name: i for i, name in enumerate(re.findall(r"^  (MW_\w+)(?: = 0)?,", HEADER.read_text(), re.MULTILINE))}
N = 768
EXPONENTS = (-96, -95, -40, -14, 0, 31, 99, 100)
STEPS = (96, 255 << 3, 1)
COLUMNS = (32, 768, 5)
START = 1000003
FIRST = N // 2 - 100  # where the second of two tensors starts, for the passes that take a model


class Run(Stream):
    """One pass over the fixed stream of awkward numbers."""

    def __init__(self) -> None:
        super().__init__(0)

    def number(self, *numbers: int) -> None:
        for number in numbers:
            self.feed(struct.pack("<Q", number))

    def status(self, call: Callable[[], Any]) -> Any:
        """Feed how the call ended, and return what it returned, or the error."""
        try:
            result = call()
        except ModelWireError as error:
            status = status_of(error)
            self.number(status)
            if "index" in error.facts:
                self.number(int(str(error.facts["index"])))
            elif status == STATUS["MW_OFF_LATTICE"]:
                self.number(int(str(error.facts["reason"]).split()[1]))
            return error
        self.number(0)
        return result

    def tensor(self, e: int) -> None:
        """Make base, q and residual: subnormals, -0.0, exact and near cancellations, weights far from the unit."""
        base, q, residual = [], [], []
        unit = np.float32(2.0**e)
        for _ in range(N):
            kind = self.rnd()
            units = self.rnd() % (2 * Q_MAX + 1) - Q_MAX
            if kind & 7 == 0:
                units = 0
            if kind & 7 == 1:
                units = self.rnd() % 7 - 3
            if 2 <= kind & 7 <= 4:
                by = 1 << self.rnd() % 22
                units = units // by if units >= 0 else -(-units // by)
            q.append(units)
            cancel = int((np.float32(-units) * unit).view(np.uint32))
            exponent = min(250, max(1, e + 127 + self.rnd() % 48 - 20))
            plain = self.rnd() & 0x807FFFFF | exponent << 23
            case = kind >> 3 & 7
            if case == 0:
                plain = self.rnd() & 0x807FFFFF
            elif case == 1:
                plain = 0x80000000
            elif case == 2:
                plain = cancel
            elif case == 3:
                plain = cancel + self.rnd() % 7 - 3 if cancel & 0x7F800000 else cancel
            base.append(plain)
            residual.append(int((np.float32(self.rnd() % 65 - 32) * unit).view(np.uint32)) >> 16)
        self.base = np.array(base, np.uint32).view(np.float32)
        self.q = np.array(q, np.int32)
        self.residual = np.array(residual, np.uint16)

    def train(self, e: int, step: int) -> Any:
        trained = self.w.copy()
        bits = trained.view(np.uint32)
        unit = np.float32(2.0**e)
        for i in range(N):
            kind = self.rnd() & 15
            product = (self.rnd() % 257 - 128) * step
            moved = product // 32 if product >= 0 else -(-product // 32)
            wild = self.rnd() & 0x807FFFFF | (e + 127 + 24 if e < 100 else 250) << 23
            subnormal = self.rnd() & 0x807FFFFF
            if kind >= 4:
                trained[i] = self.w[i] + np.float32(moved) * unit
            if kind == 1:
                bits[i] = wild
            if kind == 2:
                bits[i] = subnormal
        return trained

    def fingerprint(self, q: Any, verbatim: bool) -> tuple[int, int]:
        lanes = twin.fingerprint(q, start=START, verbatim=verbatim)
        self.number(*lanes)
        return lanes

    def round_trip(self, e: int, step: int) -> Any:
        threshold = np.float32(0.6) * (np.float32(step) * np.float32(2.0**e))
        trained = self.train(e, step)
        out = self.out
        self.status(lambda: twin.differences(self.w, trained, self.residual, out))
        self.feed(out.tobytes())
        self.fingerprint(self.q, False)
        k = 1
        while k <= N:
            self.collect(trained, e, step, threshold, k)
            k *= 5
        left = np.zeros(N, np.uint16)
        index, value, ends, clamped, _ = self.whole(lambda: self.round(self.w, self.q, trained, left, e).adopt_known(
            steps=[step] * 2, thresholds=[float(threshold)] * 2
        ))  # fmt: skip
        index[ends[0] :] += FIRST
        self.residual = left
        self.number(len(index), sum(clamped))
        self.feed(index.tobytes() + value.tobytes())
        self.feed(self.w.tobytes() + self.residual.tobytes() + self.q.tobytes())
        self.fingerprint(self.q, False)
        return index, value

    def round(self, w: Any, q: Any, trained: Any, left: Any, e: int) -> Any:
        """Return the tensor as two tensors of one model."""
        def parts(a: Any) -> list[Any]:
            return [a[:FIRST], a[FIRST:]]

        return twin.Round(
            parts(self.base), parts(w), parts(q), parts(trained), parts(self.residual), parts(left),
            exponents=[e] * 2, kinds=[0] * 2, dtypes=[1] * 2, starts=[START, START + FIRST],
        )  # fmt: skip

    def whole(self, call: Callable[[], Any]) -> Any:
        """Feed how a call on the whole model ended; in this stream they all end well."""
        result = call()
        self.number(0)
        return result

    def collect(self, trained: Any, e: int, step: int, threshold: Any, k: int) -> None:
        w, q, left = self.w.copy(), self.q.copy(), np.zeros(N, np.uint16)
        round = self.round(w, q, trained, left, e)
        index, d, ends, edge, _ = self.whole(lambda: round.collect(k))
        self.feed(np.float32(edge).tobytes() + left.tobytes())
        least = max(float(threshold), edge)
        index, _, _, _, lanes = self.whole(lambda: round.adopt(index, d, ends, steps=[step] * 2, thresholds=[least] * 2))
        self.number(len(index), *lanes)
        self.feed(w.tobytes() + left.tobytes())

    def decode(self, data: bytes, shapes: list[tuple[int, int, int]]) -> None:
        for index, value in twin.decode_sections(data, shapes):
            self.feed(index.tobytes() + value.tobytes())

    def code(self, sections: list[Any]) -> None:
        shaped = [(N // c + 1, c, index, value) for c, (index, value) in zip(COLUMNS, sections, strict=True)]
        shapes = [(rows, columns, len(index)) for rows, columns, index, _ in shaped]
        coded = twin.encode_sections(shaped)
        self.number(len(coded))
        self.feed(coded)
        self.decode(coded, shapes)
        for _ in range(4):
            mutated = bytearray(coded)
            place = self.rnd() % len(coded)
            mutated[place] ^= 1 << self.rnd() % 8
            data = bytes(mutated[: len(coded) - self.rnd() % 3])
            self.status(lambda data=data: self.decode(data, shapes))

    def refuse(self, difference: Any, bits: Any) -> None:
        for round_ in range(8):
            count = 1 + self.rnd() % 6
            place = self.rnd() % N
            index, value = np.zeros(count, np.uint32), np.zeros(count, np.int32)
            for k in range(count):
                index[k] = place
                noise = self.rnd()
                value[k] = np.uint32(noise >> self.rnd() % 32).view(np.int32)
                place += self.rnd() % 200 + (round_ > 4)
            step = STEPS[self.rnd() % len(STEPS)]
            step <<= self.rnd() % 20
            self.status(lambda i=index, v=value, s=step: twin.check_lattice(self.base, self.q, i, v, exponent=self.exponent, step=s))
            self.status(lambda i=index, v=value: twin.apply_verbatim(self.base.view(np.uint32), bits, difference, i, v))
            self.feed(bits.tobytes() + difference.tobytes())

    def planes(self, dtype: int, width: int, infinity: int) -> None:
        kind_of: Any = np.dtype(f"u{width}")
        top = 1 << 8 * width - 1

        def finite(bits: int) -> int:
            bits &= 2 * top - 1
            return bits & top if infinity and bits & top - 1 >= infinity else bits

        parent, fresh = np.zeros(N, kind_of), np.zeros(N, kind_of)
        for i in range(N):
            parent[i], kind, by = finite(self.rnd()), self.rnd(), self.rnd()
            fresh[i] = finite(int(parent[i]) + by % 200 - 100) if kind & 3 else parent[i]
            if kind & 31 == 31:
                fresh[i] = finite(by)
        changed, planes = np.zeros(N // 8, np.uint8), np.zeros(width * N, np.uint8)
        count = twin.split_planes(fresh, parent, changed, planes, infinity=infinity)
        self.number(count)
        self.feed(changed.tobytes() + planes.reshape(width, N)[:, :count].tobytes())
        difference = np.zeros(N, np.int32)
        twin.ordered_differences(fresh, parent, difference, infinity=infinity)
        self.feed(difference.tobytes())
        if dtype in (2, 3, 4):
            held = np.zeros(N, np.float32)
            twin.from_storage(fresh, held, dtype=dtype)
            self.feed(held.tobytes())
        joined = np.zeros(N, kind_of)
        for _ in range(8):
            place, bit, which = self.rnd() % N, self.rnd() % 8, self.rnd()
            of, at = (changed, place // 8) if which & 1 else (planes, place)
            of[at] ^= 1 << bit
            if not isinstance(
                self.status(lambda: twin.join_planes(changed, planes, parent, joined, count=count, infinity=infinity)), ModelWireError
            ):
                self.feed(joined.tobytes())
            of[at] ^= 1 << bit

    def stored(self, dtype: int) -> None:
        for _ in range(N):
            noise, kind = self.rnd(), self.rnd()
            bits = noise & 0x807FFFFF | 0x60 + kind % 48 << 23
            if kind & 0xF000 == 0:
                bits = noise & 0x807FFFFF | 0x7F000000
            if kind & 0xF000 == 0x1000:
                bits &= 0xFFFFE000 + (noise & 0x2000) & 0xFFFFFFFF
            total = np.array([bits], np.uint32).view(np.float32) if dtype != 4 else np.array([noise % 300 - 150], np.float32)
            held = np.zeros(1, np.float32)
            if not isinstance(self.status(lambda t=total, h=held: twin.round_stored(t, h, dtype=dtype)), ModelWireError):
                self.feed(held.tobytes())

    def whole_update(self, e: int) -> None:
        """A model of all classes, one stream for all of it, and the same with a bit of it changed."""
        halves, wide, codes, steps = [], [], [], []
        for _ in range(N):
            halves.append(self.rnd() & 0xBFFF)
            wide.append(self.rnd() % 2001 - 1000)
            codes.append(self.rnd() % 255 - 127)
            steps.append(self.rnd() % 255 - 127 - codes[-1])
        half = np.array(halves, np.uint16).view(np.float16).astype(np.float32)
        bases = [self.base, self.base, half, np.array(codes, np.float32)]
        difference = (self.w.view(np.uint32) - self.base.view(np.uint32)).view(np.int32)
        moves = [self.q, difference, np.array(wide, np.int32), np.array(steps, np.int32)]
        exponents = [e, 0, -14, 0]
        shapes = [(N // columns, columns) for columns in (32, 768, 4, 96)]
        sections, table = [], b""
        for t, (shape, move) in enumerate(zip(shapes, moves, strict=True)):
            index = np.flatnonzero(move).astype(np.uint32)
            sections.append((*shape, index, move[index]))
            table += struct.pack("<HBBBbHI", t, 1, 3 if t == 2 else 1, 0, exponents[t], 0, len(index))
        coded = twin.encode_sections(sections)
        w, q = [b.copy() for b in bases], [np.zeros(N, np.int32) for _ in bases]
        model = twin.Model(bases, w, q, dtypes=bytes([1, 1, 2, 4]), kinds=bytes([0, 1, 0, 0]), shapes=shapes)
        lanes = twin.apply_stream(model, exponents, table, coded, snapshot=False, lanes=(0, 0))

        def feed() -> None:
            self.number(*lanes)
            for pair in zip(w, q, strict=True):
                for a in pair:
                    self.feed(a.tobytes())

        feed()
        for round_ in range(6):
            mutated = bytearray(coded)
            place = self.rnd() % len(coded)
            mutated[place] ^= 1 << self.rnd() % 8
            data, now = bytes(mutated[: len(coded) - self.rnd() % 2]), lanes
            result = self.status(
                lambda data=data, now=now, snapshot=bool(round_ & 1): twin.apply_stream(
                    model, exponents, table, data, snapshot=snapshot, lanes=now
                )
            )
            lanes = lanes if isinstance(result, ModelWireError) else result
            feed()

    def all(self) -> int:
        self.out = np.zeros(N, np.float32)
        for k, e in enumerate(EXPONENTS):
            self.exponent = e
            self.state = 88172645463325252 + k
            self.tensor(e)
            self.w = np.zeros(N, np.float32)
            self.status(lambda e=e: twin.weights_from_q(self.base, self.q, self.w, exponent=e))
            self.feed(self.base.tobytes() + self.w.tobytes())
            sections = [self.round_trip(e, step) for step in STEPS]
            found = np.zeros(N, np.int32)
            self.status(lambda e=e, f=found: twin.q_from_weights(self.base, self.w, f, exponent=e))
            self.feed(found.tobytes())
            self.code(sections)
            bits = self.w.view(np.uint32).copy()
            difference = (bits - self.base.view(np.uint32)).view(np.int32)
            self.fingerprint(difference, True)
            self.refuse(difference, bits)
            self.number(twin.crc32c(self.w.tobytes()))
            self.whole_update(e)
        self.state = 88172645463325252
        for dtype, width, infinity in ((1, 4, 0x7F800000), (2, 2, 0x7C00), (3, 2, 0x7F80), (4, 1, 0), (5, 4, 0)):
            self.planes(dtype, width, infinity)
        for dtype in (1, 2, 3, 4):
            self.stored(dtype)
        self.number(head_hash())
        return self.hash


def status_of(error: ModelWireError) -> int:
    """Return the number of the C core's status that stands for this error."""
    by_what = {
        "the trained weights": "MW_TRAINED_NOT_FINITE",
        "the difference to the trained weights": "MW_DIFFERENCE_NOT_FINITE",
        "the weights": "MW_WEIGHT_NOT_FINITE",
        "the residual": "MW_RESIDUAL_NOT_FINITE",
        "exponent": "MW_EXPONENT",
        "step": "MW_STEP",
        "value": "MW_VALUE",
        "weights": "MW_OFF_LATTICE",
    }
    by_reason = {
        "the bytes end too early": "MW_STREAM_SHORT",
        "there are more bytes than needed": "MW_STREAM_LONG",
        "no encoder writes these bytes": "MW_STREAM_DAMAGED",
        "the changed entries are not as many as they say": "MW_PLANES",
    }
    if isinstance(error, IndexOutOfRange):
        return STATUS["MW_INDEX"]
    if isinstance(error, RangeOverflow):
        return STATUS["MW_RANGE"]
    if isinstance(error, TrainingDiverged):
        return STATUS["MW_DIVERGED"]
    if isinstance(error, NonFinite | Malformed):
        return STATUS[by_reason.get(str(error.facts.get("reason")), by_what.get(str(error.facts["what"]), ""))]
    raise error


def selftest_hashes() -> tuple[str, str]:
    """Return what every build of csrc/selftest.c prints first in its two lines."""
    with np.errstate(all="ignore"):
        return f"{Run().all():016x}", f"{non_finite_hash(status_of):016x}"


if __name__ == "__main__":
    print(*selftest_hashes(), sep="\n")
