"""The kernels once more, in numpy and plain Python: slow, short, and the judge of the C in the tests.

The door `modelwire._core` hands these out when MODELWIRE_KERNEL=reference.
"""

from __future__ import annotations

from .coder import decode_sections, encode_sections
from .integrity import check_rounding, crc32c, fingerprint, fingerprint_sparse, kernel_name
from .lattice import (
    apply_lattice,
    apply_verbatim,
    check_lattice,
    check_verbatim,
    differences,
    q_from_weights,
    weights_from_q,
)
from .round import Round, kth_magnitude

__all__ = [
    "Round",
    "apply_lattice",
    "apply_verbatim",
    "check_lattice",
    "check_rounding",
    "check_verbatim",
    "crc32c",
    "decode_sections",
    "differences",
    "encode_sections",
    "fingerprint",
    "fingerprint_sparse",
    "kernel_name",
    "kth_magnitude",
    "q_from_weights",
    "weights_from_q",
]
