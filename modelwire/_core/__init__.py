"""The one door to the kernels: the same functions from C, or from their numpy twin when MODELWIRE_KERNEL=reference.

MODELWIRE_KERNEL chooses once, at import: empty for the best of this processor, `generic` for portable C, `avx2` and `neon`
for a processor that has them, `reference` for the twin. Any other name, and a kernel that this processor lacks, raises ConfigError.
"""

from __future__ import annotations

import os

_WANTED = os.environ.get("MODELWIRE_KERNEL", "")

if _WANTED == "reference":
    from modelwire._reference import (
        Model,
        adopt,
        adopt_sent,
        apply_lattice,
        apply_stream,
        apply_verbatim,
        check_lattice,
        check_rounding,
        check_table,
        check_verbatim,
        collect,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        from_storage,
        join_planes,
        kernel_name,
        kth_magnitude,
        ordered_differences,
        q_from_weights,
        quantise,
        round_stored,
        snap,
        split_planes,
        to_storage,
        weights_from_q,
    )
else:
    from .kernel import (
        Model,
        adopt,
        adopt_sent,
        apply_lattice,
        apply_stream,
        apply_verbatim,
        check_lattice,
        check_rounding,
        check_table,
        check_verbatim,
        choose,
        collect,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        from_storage,
        join_planes,
        kernel_name,
        kth_magnitude,
        ordered_differences,
        q_from_weights,
        quantise,
        round_stored,
        snap,
        split_planes,
        to_storage,
        weights_from_q,
    )

    choose(_WANTED)

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
