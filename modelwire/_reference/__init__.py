"""The kernels once more, in numpy and plain Python: slow, short, and the judge of the C in the tests.

The door `modelwire._core` hands these out when MODELWIRE_KERNEL=reference.
"""

from __future__ import annotations

from .coder import decode_sections, encode_sections
from .integrity import check_rounding, crc32c, fingerprint, fingerprint_sparse, kernel_name
from .lattice import (
    adopt,
    adopt_sent,
    apply_lattice,
    apply_verbatim,
    check_lattice,
    check_verbatim,
    collect,
    differences,
    kth_magnitude,
    q_from_weights,
    quantise,
    snap,
    weights_from_q,
)
from .model import Model, apply_stream, check_table
from .planes import from_storage, join_planes, ordered_differences, round_stored, split_planes, to_storage

__all__ = [
    "Model",
    "adopt",
    "adopt_sent",
    "apply_lattice",
    "apply_stream",
    "apply_verbatim",
    "check_lattice",
    "check_rounding",
    "check_table",
    "check_verbatim",
    "collect",
    "crc32c",
    "decode_sections",
    "differences",
    "encode_sections",
    "fingerprint",
    "fingerprint_sparse",
    "from_storage",
    "join_planes",
    "kernel_name",
    "kth_magnitude",
    "ordered_differences",
    "q_from_weights",
    "quantise",
    "round_stored",
    "snap",
    "split_planes",
    "to_storage",
    "weights_from_q",
]
