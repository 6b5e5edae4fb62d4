"""The range coder: the reader of a stream (coder page)."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Malformed

_SHIFT = [(min(seen, 253) + 3).bit_length() - 1 for seen in range(255)]
_THRESHOLDS = (52, 131, 328, 819, 2048)
_T = (30, 83, 207, 518, 1295, 2896)
_CLASS = [sum(t <= d for t in _THRESHOLDS) for d in range(4097)]
_BLOCK = 32
_FULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Section:
    """A sparse matrix: its shape, and its entries by rising index."""

    rows: int
    columns: int
    index: list[int]
    value: list[int]


class Probability:
    """Two estimates of a 0, and how many decisions were coded with them."""

    __slots__ = ("fast", "seen", "slow")

    def __init__(self, expect: int | None = None) -> None:
        """Start at one half, or at expect(t)."""
        self.fast = self.slow = 32768 if expect is None else 65536 - 16 * expect
        self.seen = 0 if expect is None else 6

    def learn(self, bit: int) -> None:
        """Move both estimates."""
        k = _SHIFT[min(self.seen, 254)]
        s, t = min(k, 5), min(k, 8)
        if bit:
            self.fast -= self.fast >> s
            self.slow -= self.slow >> t
        else:
            self.fast += (65536 - self.fast) >> s
            self.slow += (65536 - self.slow) >> t
        self.seen += 1


class Number:
    """The number V of a stream, read decision by decision."""

    def __init__(self, stream: bytes) -> None:
        """Begin with the first four bytes."""
        self.stream = stream
        if stream[:4] == b"\xff\xff\xff\xff":
            raise Malformed("K1: the number behind the whole range")
        self.range = _FULL
        self.offset = int.from_bytes(stream[:4].ljust(4, b"\0"), "big")
        self.used = 4

    def _move(self) -> None:
        """Move on while the range is short (K3)."""
        while self.range < 1 << 24:
            if self.used >= len(self.stream) + 4:
                raise Malformed("K3: the bytes end too early")
            byte = self.stream[self.used] if self.used < len(self.stream) else 0
            self.range <<= 8
            self.offset = self.offset << 8 | byte
            self.used += 1

    def decision(self, p: Probability) -> int:
        """Read a decision."""
        bound = (self.range >> 16) * ((p.fast + p.slow) >> 1)
        if self.offset >= bound:
            self.offset -= bound
            self.range -= bound
            bit = 1
        else:
            self.range = bound
            bit = 0
        p.learn(bit)
        self._move()
        return bit

    def raw(self) -> int:
        """Read a raw bit (K2)."""
        self.range >>= 1
        bit = 0
        if self.offset >= self.range:
            self.offset -= self.range
            bit = 1
        if self.offset >= self.range:
            raise Malformed("K2: no encoder writes these bytes")
        self._move()
        return bit

    def finish(self) -> None:
        """Look that the stream ends as a writer ends it (K4 to K6)."""
        n = self.used - 4
        if len(self.stream) > self.used:
            raise Malformed("K4: there are more bytes than needed")
        if len(self.stream) > n and self.stream[-1] == 0:
            raise Malformed("K5: a zero byte that could be left off")
        window = int.from_bytes(self.stream[n : n + 4].ljust(4, b"\0"), "big")
        low = (window - self.offset) & _FULL
        if roundest(low, self.range) != low + self.offset:
            raise Malformed("K6: a number other than the roundest")


def roundest(low: int, width: int) -> int:
    """Find the number that a writer takes for V."""
    for zeros in (32, 24, 16, 8):
        unit = 1 << zeros
        rounded = (low + unit - 1) // unit * unit
        if rounded < low + width:
            return rounded
    return low


class Model:
    """All probabilities of one stream."""

    def __init__(self) -> None:
        """Start all of them anew."""
        self.any = [[Probability(t) for _ in range(4)] for t in _T]
        self.nonzero = [[[Probability((s + t) // 2) for _ in range(8)] for t in _T] for s in _T]
        self.sign = [[Probability() for _ in range(3)] for _ in range(3)]
        self.more = [Probability() for _ in range(4)]
        self.length = [Probability() for _ in range(30)]
        self.digit = [[Probability() for _ in range(64)] for _ in range(31)]


class Walk:
    """One section with entries, walked block by block."""

    def __init__(self, number: Number, model: Model, rows: int, columns: int, count: int) -> None:
        """Set the states of the section's start."""
        self.number, self.model = number, model
        self.rows, self.columns = rows, columns
        self.left = count
        blocks = -(-columns // _BLOCK)
        self.density = [200] * columns
        self.above = [0] * columns
        self.signs = [0] * columns
        self.block_density = [800] * blocks
        self.block_above = [0] * blocks
        self.row_density = 200
        self.last_sign = 0
        self.index: list[int] = []
        self.value: list[int] = []

    def run(self) -> Section:
        """Walk until all values are read."""
        total = self.rows * self.columns
        for row in range(self.rows):
            left_any = 0
            for block, start in enumerate(range(0, self.columns, _BLOCK)):
                end = min(start + _BLOCK, self.columns)
                behind = total - (row * self.columns + end)
                left_any = self.any(row, block, left_any, behind)
                if left_any:
                    self.entries(row, start, end, behind)
                    if self.left == 0:
                        return Section(self.rows, self.columns, self.index, self.value)
                else:
                    self.above[start:end] = [0] * (end - start)
        raise Malformed("a section with fewer values than its count")

    def any(self, row: int, block: int, left_any: int, behind: int) -> int:
        """Read whether a block has a value."""
        d = self.block_density[block]
        bit = 1 if self.left > behind else self.number.decision(self.model.any[_CLASS[d]][2 * left_any + self.block_above[block]])
        self.block_density[block] = d + ((4095 - d) >> 4) if bit else d - (d >> 4)
        self.block_above[block] = bit
        return bit

    def entries(self, row: int, start: int, end: int, behind: int) -> None:
        """Read the entries of a block."""
        l1 = l2 = found = 0
        for column in range(start, end):
            d, r = self.density[column], self.row_density
            if self.left == behind + end - column or (column == end - 1 and not found):
                bit = 1
            else:
                context = 4 * self.above[column] + 2 * l1 + l2
                bit = self.nonzero(row, column, self.model.nonzero[_CLASS[d]][_CLASS[r]][context])
            self.density[column] = d + ((4095 - d) >> 4) if bit else d - (d >> 4)
            self.row_density = r + ((4095 - r) >> 5) if bit else r - (r >> 5)
            self.above[column] = bit
            l1, l2 = bit, l1
            if bit:
                found = 1
                self.index.append(row * self.columns + column)
                self.value.append(self.read_value(row, column))
                self.left -= 1
                if self.left == 0:
                    return

    def nonzero(self, row: int, column: int, p: Probability) -> int:
        """Read whether an entry is not zero."""
        return self.number.decision(p)

    def read_value(self, row: int, column: int) -> int:
        """Read sign and magnitude (K7)."""
        minus = self.number.decision(self.model.sign[self.last_sign][self.signs[column]])
        self.last_sign = self.signs[column] = 1 + minus
        a = 1
        while a <= 4 and self.number.decision(self.model.more[a - 1]):
            a += 1
        if a == 5:
            a = 4 + self.golomb()
        if a > (1 << 31) - 1 + minus:
            raise Malformed("K7: a magnitude beyond 32 bits")
        return -a if minus else a

    def golomb(self) -> int:
        """Read what a magnitude is above four."""
        length = 0
        while length < 30 and self.number.decision(self.model.length[length]):
            length += 1
        x = 1
        for k in range(length):
            x = x << 1 | (self.number.decision(self.model.digit[length][x]) if k < 6 else self.number.raw())
        return x


def decode(stream: bytes, shapes: list[tuple[int, int, int]]) -> list[Section]:
    """Read the sections of a stream; shapes are rows, columns and count of each."""
    if sum(count for _, _, count in shapes) > 16_000 * (len(stream) + 4):
        raise Malformed("K3: the bytes end too early")
    number, model = Number(stream), Model()
    out = []
    for rows, columns, count in shapes:
        if count:
            out.append(Walk(number, model, rows, columns, count).run())
        else:
            out.append(Section(rows, columns, [], []))
    number.finish()
    return out
