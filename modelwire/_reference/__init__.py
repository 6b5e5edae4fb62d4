"""The kernels once more, in numpy and plain Python: slow, short, and the judge of the C in the tests.

The door `modelwire._core` hands these out when MODELWIRE_KERNEL=reference.
"""

from __future__ import annotations

from .coder import decode_sections, encode_sections
from .head import check_arithmetic, head_infer, head_train, permutation
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
from .model import Model, apply_stream, check_table
from .planes import check_lz4, from_storage, join_planes, ordered_differences, round_stored, split_planes, to_storage
from .round import Round, kth_magnitude

__all__ = [
    "Model",
    "Round",
    "apply_lattice",
    "apply_stream",
    "apply_verbatim",
    "check_arithmetic",
    "check_lattice",
    "check_lz4",
    "check_rounding",
    "check_table",
    "check_verbatim",
    "crc32c",
    "decode_sections",
    "differences",
    "encode_sections",
    "fingerprint",
    "fingerprint_sparse",
    "from_storage",
    "head_infer",
    "head_train",
    "join_planes",
    "kernel_name",
    "kth_magnitude",
    "ordered_differences",
    "permutation",
    "q_from_weights",
    "round_stored",
    "split_planes",
    "to_storage",
    "weights_from_q",
]
