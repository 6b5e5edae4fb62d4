"""The one door to the kernels: the same functions from C, or from their numpy twin when MODELWIRE_KERNEL=reference.

MODELWIRE_KERNEL chooses once, at import: empty for the best of this processor, `generic` for portable C, `avx2` and `neon`
for a processor that has them, `reference` for the twin. Any other name, and a kernel that this processor lacks, raises ConfigError.
All of them refuse the same entries with the same error, and then leave the model as it was; csrc/mw.h has the rule for what is no number.
"""

from __future__ import annotations

import os

_WANTED = os.environ.get("MODELWIRE_KERNEL", "")

if _WANTED == "reference":
    from modelwire._reference import (
        Model,
        Round,
        apply_lattice,
        apply_stream,
        apply_verbatim,
        check_arithmetic,
        check_lattice,
        check_lz4,
        check_rounding,
        check_table,
        check_verbatim,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        from_storage,
        head_infer,
        head_train,
        join_planes,
        kernel_name,
        kth_magnitude,
        ordered_differences,
        permutation,
        q_from_weights,
        round_stored,
        split_planes,
        to_storage,
        weights_from_q,
    )
else:
    # The two classes have the same methods, which a checker of names can't see.
    from .kernel import (  # type: ignore[assignment]
        Model,
        Round,
        apply_lattice,
        apply_stream,
        apply_verbatim,
        check_arithmetic,
        check_lattice,
        check_lz4,
        check_rounding,
        check_table,
        check_verbatim,
        choose,
        crc32c,
        decode_sections,
        differences,
        encode_sections,
        fingerprint,
        fingerprint_sparse,
        from_storage,
        head_infer,
        head_train,
        join_planes,
        kernel_name,
        kth_magnitude,
        ordered_differences,
        permutation,
        q_from_weights,
        round_stored,
        split_planes,
        to_storage,
        weights_from_q,
    )

    choose(_WANTED)

# check_arithmetic, kth_magnitude and permutation are for the tests, which hold every kernel against the twin by them.
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
