"""The features of each sample, computed once and kept beside it: what the frozen part of a model made of it, as float16.

They lie in the spool, so that they go with their sample. Those of another base or another runtime are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Spool
from modelwire.errors import NotTrainable
from modelwire.tensors import F32

if TYPE_CHECKING:
    from .extractor import Extractor

TOGETHER = 16  # rows of one transaction: the application's own appends wait for no more than a few samples' inference


class Features:
    """The kept features of one model's samples."""

    def __init__(self, spool: Spool, model: str, *, base: bytes, runtime: str, width: int) -> None:
        """Those that another base or runtime computed are dropped here."""
        self._spool, self.model, self.width = spool, model, width
        spool.features.begin(model, base=base, runtime=runtime, width=width)

    def missing(self, ids: NDArray[np.int64]) -> list[int]:
        """Return which of these samples have none yet."""
        have = self._spool.features.samples(self.model)
        return [int(sample) for sample in ids if int(sample) not in have]

    def compute(self, extractor: Extractor, ids: Sequence[int]) -> Iterator[int]:
        """Compute and keep the features of these samples, yielding how many are done; what a kill leaves is whole.

        Raises NotTrainable for features that float16 can't hold.
        """
        for first in range(0, len(ids), TOGETHER):
            some = ids[first : first + TOGETHER]
            rows = []
            for sample, x in self._spool.inputs(self.model, some):
                rows.append((sample, half(extractor.features(x), model=self.model).tobytes()))
                yield first + len(rows)
            self._spool.features.keep(rows)

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return the features of these samples, [n, width]. Raises KeyError when one has none."""
        out = np.empty((len(ids), self.width), "<f2")
        for i, sample in enumerate(ids):
            out[i] = np.frombuffer(self._spool.features.row(int(sample)), "<f2", self.width)
        return out.astype(np.float16, copy=False)


def half(features: F32, *, model: str) -> NDArray[np.float16]:
    """Return features as they are kept. Raises NotTrainable where one is no number, or too large for float16."""
    with np.errstate(over="ignore"):
        out = features.astype("<f2")
    if not np.isfinite(out).all():
        raise NotTrainable(model=model, reason="mode features: a feature is no number that float16 has; another mode trains it")
    return out
