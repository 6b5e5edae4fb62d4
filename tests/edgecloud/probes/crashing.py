"""The process that runs models, with faults: a model whose first bias says so hangs, aborts, or takes all memory."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from edgecloud.probes import child

CRASH, HANG, EAT = 111.0, 222.0, 333.0


def main() -> int:
    real = child.Opened.set_weights

    def set_weights(self: child.Opened, weights: Any) -> None:
        mark = float(weights["output_bias"][0])
        if mark == CRASH:
            os.abort()
        if mark == HANG:
            time.sleep(600)
        if mark == EAT:
            np.ones(1 << 33, np.uint8)
        real(self, weights)

    child.Opened.set_weights = set_weights  # type: ignore[method-assign]
    return child.main()


if __name__ == "__main__":
    sys.exit(main())
