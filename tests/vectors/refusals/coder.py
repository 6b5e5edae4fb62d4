"""Write the negative vectors of docs/format/coder.md: each breaks one rule, and is right in all else.

    python -m tests.vectors.refusals.coder

Vectors are only added, never edited: it refuses to overwrite.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from modelwire._reference import coder
from modelwire.errors import Malformed
from tests.modelwire import golden

from .container_cases import Case, write

Shape = tuple[int, int, int]
Entries = dict[int, int]


class _Past(Exception):
    """The writer has written what no writer writes; what follows does not matter."""


class _Leftover(coder._Writer):
    """A writer that takes the number which halving an odd range leaves over, at one of its raw bits."""

    def __init__(self, skip: int) -> None:
        super().__init__()
        self.skip = skip  # odd ranges before

    def raw(self, bits: int, count: int) -> int:
        for place in reversed(range(count)):
            half = self.width // 2
            if self.width & 1:
                if not self.skip:
                    self._narrow(2 * half, 1)
                    raise _Past
                self.skip -= 1
            self._narrow(half if bits >> place & 1 else 0, half)
        return bits & ((1 << count) - 1)


def written(rows: int, columns: int, entries: Entries, writer: coder._Writer | None = None) -> bytes:
    """Return the stream of one section, whatever its values are: one that no reader takes has to be the last."""
    out = writer or coder._Writer()
    with contextlib.suppress(Malformed, _Past):
        coder._walk(out, coder._Model(), rows, columns, len(entries), entries)
    return out.finish()


def of(*shapes: Shape) -> dict[str, list[list[int]]]:
    return {"shapes": [list(shape) for shape in shapes]}


def case(rule: str, name: str, stream: bytes, *shapes: Shape) -> Case:
    return Case(rule, name, "Malformed", "stream", stream, of(*shapes))


FEW: Entries = {0: 1, 3: -2, 17: 300, 40: -1, 41: 5}
MANY: Entries = {i: (i * 37 % 11 - 5) or 9 for i in range(0, 960, 3)}
LARGE: Entries = {i: (i + 1) * 123_456_789 % (1 << 31) * (-1) ** i for i in range(8)}
SECTIONS: dict[str, tuple[int, int, Entries]] = {"few": (4, 16, FEW), "many": (30, 32, MANY), "large": (1, 8, LARGE)}


def changed(stream: bytes, more: int) -> bytes:
    """Return the stream whose number is more by so many units of one byte behind the last."""
    return (int.from_bytes(stream + b"\0", "big") + more).to_bytes(len(stream) + 1, "big")


def cases() -> Iterator[Case]:
    """Yield every negative vector of the page."""
    known = {row["what"]: row for row in json.loads((golden.WIRE_1 / "kernels" / "refused.json").read_text())}
    for name, (rows, columns, entries) in SECTIONS.items():
        shape, good = (rows, columns, len(entries)), written(rows, columns, entries)
        yield case("K1", f"and what {name} entries have behind", b"\xff" * 4 + good[4:], shape)
        yield case("K3", f"{name} cut by five bytes", good[: max(0, len(good) - 5)], shape)
        yield case("K3", f"{name} without bytes", b"", (rows * 100, columns * 100, 80_000))
        yield case("K4", f"{name} and a one behind", good + bytes(4) + b"\1", shape)
        yield case("K4", f"{name} and its own bytes again", good + good + bytes([1, 2, 3, 4, 5]), shape)
        yield case("K5", f"{name} and a zero byte", good + b"\0", shape)
        yield case("K6", f"{name} a byte longer", good + b"\1", shape)
        yield case("K6", f"{name} a number less round", changed(good, -1), shape)
    yield case("K1", "alone", b"\xff" * 4, (1, 1, 1))
    # The same first digits again and again, so that what is left for the raw bits is no round number.
    alike = {i: (1 << 20) + i * 997 for i in range(64)}
    for skip in (0, 1, 5):
        yield case("K2", f"after {skip} odd ranges", written(1, 64, alike, _Leftover(skip)), (1, 64, 64))
    row = known["the number that halving an odd range for a raw bit leaves over"]
    yield case("K2", "of the kernels", bytes.fromhex(row["stream"]), (row["rows"], row["columns"], row["count"]))
    yield case("K3", "more than its bytes can hold", b"\x80", (1 << 15, 1 << 15, 16_000 * 5 + 1))
    yield case("K3", "the second section", written(1, 8, LARGE), (1, 8, 8), (100, 100, 5000))
    yield case("K4", "no entries", b"\0\0\0\0\1", (1, 8, 0))
    yield case("K4", "no section", b"\0\0\0\0\1")
    yield case("K5", "no entries", b"\0", (1, 8, 0))
    yield case("K5", "no section", b"\0\0\0\0")
    yield case("K6", "no entries", b"\1", (1, 8, 0))
    yield case("K6", "no section", b"\0\0\1")
    for a in (1 << 31, (1 << 31) + 1, (1 << 31) + 3):
        yield case("K7", f"plus {a}", written(1, 1, {0: a}), (1, 1, 1))
    for a in (1 << 31, (1 << 31) + 2):
        yield case("K7", f"minus {a + 1}", written(1, 1, {0: -a - 1}), (1, 1, 1))
    yield case("K7", "the last of three", written(1, 3, {0: 1, 1: -1, 2: 1 << 31}), (1, 3, 3))


def main() -> None:
    """Write the vectors into a new folder."""
    write("coder", cases())


if __name__ == "__main__":
    main()
