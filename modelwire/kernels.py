"""Says which kernels compute in this process, and that the processor rounds as exact weights need it; for `doctor` and logs."""

from __future__ import annotations

from . import _core


def describe() -> str:
    """Return the name of the kernels in use: generic, avx2, neon, or reference for the numpy twin.

    Raises RoundingMode when the processor does not round to nearest even.
    """
    _core.check_rounding()
    return _core.kernel_name()
