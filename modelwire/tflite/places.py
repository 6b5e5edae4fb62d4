"""Lists where every table and vector of a .tflite lies, so that what is to be overwritten is known to be nothing else as well.

Only what hangs inside an operator's options is not looked into: their tables are listed, vectors of theirs are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .flatbuffer import U32, Table
from .graph import Buffer, root_table

# Fields that are offsets, by number in the schema: to a vector of so many bytes an entry, to a table, or (a tuple) to a vector of tables.
Layout: TypeAlias = Mapping[int, "int | Layout | tuple[Layout]"]

_QUANTIZATION: Layout = {0: 4, 1: 4, 2: 4, 3: 8, 5: {}}
_TENSOR: Layout = {0: 4, 3: 1, 4: _QUANTIZATION, 6: {}, 7: 4}
_OPERATOR: Layout = {1: 4, 2: 4, 4: {}, 5: 1, 7: 1, 8: 4, 12: {}}
_GRAPH: Layout = {0: (_TENSOR,), 1: 4, 2: 4, 3: (_OPERATOR,), 4: 1}
_NAMED: Layout = {0: 1}
_SIGNATURE: Layout = {0: (_NAMED,), 1: (_NAMED,), 2: 1}
_MODEL: Layout = {1: ({1: 1},), 2: (_GRAPH,), 3: 1, 4: ({0: 1},), 5: 4, 6: (_NAMED,), 7: (_SIGNATURE,)}


class Parts:
    """The places of a file that something is read from, each as often as something refers to it."""

    def __init__(self, file: Buffer) -> None:
        """Raises Malformed for a damaged file."""
        places = [(0, 8)]  # the root's offset, and the mark
        _walk(root_table(file), _MODEL, places)
        self._places: NDArray[np.int64] = np.array(places, np.int64)

    def users(self, start: int, nbytes: int) -> int:
        """Return how many parts have a byte of these."""
        return int(((self._places[:, 0] < start + nbytes) & (self._places[:, 1] > start)).sum())


def _walk(table: Table, layout: Layout, places: list[tuple[int, int]]) -> None:
    places += [(table.at, table.end), (table.vtable, table.vtable + 4 + 2 * table.fields)]
    for number, what in layout.items():
        if table.field(number, U32.size) is None:
            continue
        if isinstance(what, Mapping):
            inner = table.table(number)
            assert inner is not None
            _walk(inner, what, places)
            continue
        width = U32.size if isinstance(what, tuple) else what
        v = table.vector(number, width)
        places.append((v.start - U32.size, v.start + v.count * width))
        if isinstance(what, tuple):
            for inner in table.tables(number):
                _walk(inner, what[0], places)
