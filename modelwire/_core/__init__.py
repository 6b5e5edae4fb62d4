"""The one door to the kernels: the same functions from C, or from their numpy twin when MODELWIRE_KERNEL=reference.

MODELWIRE_KERNEL chooses once, at import: empty for the best of this processor, `generic` for portable C, `avx2` and `neon`
for a processor that has them, `reference` for the twin. Any other name, and a kernel that this processor lacks, raises ConfigError.
"""

from __future__ import annotations

import os

_WANTED = os.environ.get("MODELWIRE_KERNEL", "")

if _WANTED == "reference":
    from modelwire._reference import (
        Round,
        apply_lattice,
        apply_verbatim,
        check_lattice,
        check_rounding,
        check_verbatim,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        kernel_name,
        kth_magnitude,
        q_from_weights,
        weights_from_q,
    )
else:
    from .kernel import (
        Round,  # type: ignore[assignment]
        apply_lattice,
        apply_verbatim,
        check_lattice,
        check_rounding,
        check_verbatim,
        choose,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        kernel_name,
        kth_magnitude,
        q_from_weights,
        weights_from_q,
    )

    choose(_WANTED)

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
