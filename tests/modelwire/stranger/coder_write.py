"""The range coder: the writer of a stream, which walks as the reader does (coder page)."""

from __future__ import annotations

from .coder import Model, Number, Probability, Section, Walk, roundest


class _Pen(Number):
    """The number V of a stream, written: each decision takes its bit from what is queued."""

    def __init__(self) -> None:
        """Begin with the whole range."""
        super().__init__(b"")
        self.low = 0
        self.range = 0xFFFFFFFF
        self.moves = 0
        self.queue: list[int] = []

    def _settle(self) -> None:
        """Move on while the range is short."""
        while self.range < 1 << 24:
            self.low <<= 8
            self.range <<= 8
            self.moves += 1

    def decision(self, p: Probability) -> int:
        """Write a decision."""
        bit = self.queue.pop(0)
        bound = (self.range >> 16) * ((p.fast + p.slow) >> 1)
        if bit:
            self.low += bound
            self.range -= bound
        else:
            self.range = bound
        p.learn(bit)
        self._settle()
        return bit

    def raw(self) -> int:
        """Write a raw bit."""
        bit = self.queue.pop(0)
        self.range >>= 1
        if bit:
            self.low += self.range
        self._settle()
        return bit

    def end(self) -> bytes:
        """Give the stream."""
        last = self.low & 0xFFFFFFFF
        number = self.low - last + roundest(last, self.range)
        out = number.to_bytes(self.moves + 4, "big")
        while len(out) > self.moves and out[-1] == 0:
            out = out[:-1]
        return out


class _WriteWalk(Walk):
    """One section with entries, written."""

    def __init__(self, pen: _Pen, model: Model, section: Section) -> None:
        """Hold what is to be written."""
        super().__init__(pen, model, section.rows, section.columns, len(section.index))
        self.pen = pen
        self.wanted = dict(zip(section.index, section.value, strict=True))
        self.blocks = {(i // section.columns, i % section.columns // 32) for i in section.index}

    def any(self, row: int, block: int, left_any: int, behind: int) -> int:
        """Write whether a block has a value."""
        self.pen.queue = [int((row, block) in self.blocks)]
        return super().any(row, block, left_any, behind)

    def nonzero(self, row: int, column: int, p: Probability) -> int:
        """Write whether an entry is not zero."""
        self.pen.queue = [int(row * self.columns + column in self.wanted)]
        return super().nonzero(row, column, p)

    def read_value(self, row: int, column: int) -> int:
        """Write sign and magnitude."""
        value = self.wanted[row * self.columns + column]
        a = abs(value)
        bits = [int(value < 0)] + [int(a > c) for c in range(1, min(a, 4) + 1)]
        if a > 4:
            digits = [int(d) for d in bin(a - 4)[3:]]
            bits += [1] * len(digits) + [0] * (len(digits) < 30) + digits
        self.pen.queue = bits
        return super().read_value(row, column)


def encode(sections: list[Section]) -> bytes:
    """Write sections as one stream."""
    pen, model = _Pen(), Model()
    for section in sections:
        if section.index:
            _WriteWalk(pen, model, section).run()
    return pen.end()
