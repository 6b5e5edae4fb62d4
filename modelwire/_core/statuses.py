"""What each status of the C core becomes, in the order of csrc/mw.h."""

from __future__ import annotations

from modelwire.errors import (
    ConfigError,
    IndexOutOfRange,
    KernelError,
    Malformed,
    ModelWireError,
    NonFinite,
    RangeOverflow,
    RootMismatch,
    RoundingMode,
    SubnormalsFlushed,
    TrainingDiverged,
)

_STREAM = "coded sections"
_ERRORS: tuple[tuple[str, type[ModelWireError], dict[str, str]], ...] = (
    ("MW_ROUNDING", RoundingMode, {}),
    ("MW_UNKNOWN_KERNEL", ConfigError, {"reason": "this build or processor does not have that kernel"}),
    ("MW_EXPONENT", Malformed, {"what": "exponent", "reason": "it is not within -96..100"}),
    ("MW_STEP", Malformed, {"what": "step", "reason": "it is not m * 2^j with an odd m of 1..255 and j of 0..22"}),
    ("MW_THRESHOLD", Malformed, {"what": "threshold", "reason": "it is negative or not a number"}),
    ("MW_INDEX", IndexOutOfRange, {}),
    ("MW_VALUE", Malformed, {"what": "value", "reason": "a zero was sent"}),
    ("MW_RANGE", RangeOverflow, {}),
    ("MW_TRAINED_NOT_FINITE", NonFinite, {"what": "the trained weights"}),
    ("MW_DIFFERENCE_NOT_FINITE", NonFinite, {"what": "the difference to the trained weights"}),
    ("MW_WEIGHT_NOT_FINITE", NonFinite, {"what": "the weights"}),
    ("MW_RESIDUAL_NOT_FINITE", NonFinite, {"what": "the residual"}),
    ("MW_OFF_LATTICE", Malformed, {"what": "weights", "reason": "entry {index} is not on the lattice of this base"}),
    ("MW_SHAPE", Malformed, {"what": "section", "reason": "rows, columns and count do not fit together"}),
    ("MW_STREAM_SHORT", Malformed, {"what": _STREAM, "reason": "the bytes end too early"}),
    ("MW_STREAM_LONG", Malformed, {"what": _STREAM, "reason": "there are more bytes than needed"}),
    ("MW_STREAM_DAMAGED", Malformed, {"what": _STREAM, "reason": "no encoder writes these bytes"}),
    ("MW_NO_ROOM", KernelError, {"what": "kernel", "reason": "an output is too small"}),
    ("MW_NOT_STORED", Malformed, {"what": "weights", "reason": "entry {index} is no value of the tensor's storage type"}),
    ("MW_PLANES", Malformed, {"what": "planes", "reason": "the changed entries are not as many as they say"}),
    ("MW_LZ4", Malformed, {"what": "planes", "reason": "a plane is not what lz4 writes"}),
    ("MW_ROW", Malformed, {"what": "section table", "reason": "the row of tensor {tensor} is not one of this wire, or not for its class"}),
    ("MW_UNIT", Malformed, {"what": "section", "reason": "tensor {tensor} has another unit than its parent"}),
    ("MW_VERBATIM_STEP", Malformed, {"what": "section", "reason": "tensor {tensor} is verbatim and has a step or unit"}),
    ("MW_CROWDED", Malformed, {"what": "section table", "reason": "it counts more entries than its stream can hold"}),
    ("MW_FINGERPRINT", RootMismatch, {"what": "the update", "kind": "fingerprint", "device": "DEVICE"}),
    ("MW_CHANGED", KernelError, {"what": "stream", "reason": "it changed while it was applied; the model is of no use any more"}),
    ("MW_SUBNORMALS", SubnormalsFlushed, {}),
    ("MW_FUSED", KernelError, {"what": "kernel", "reason": "this build fuses multiplications with additions"}),
    ("MW_HEAD", Malformed, {"what": "head", "reason": "its settings are out of range"}),
    ("MW_FEATURE_NOT_FINITE", NonFinite, {"what": "the features"}),
    ("MW_LABEL", Malformed, {"what": "labels", "reason": "that of row {index} is no class, or its target is not a finite number"}),
    ("MW_DIVERGED", TrainingDiverged, {"model": "the head", "what": "a loss or weight that is not finite", "steps": "{index}"}),
)
NAMES = ("MW_OK", *(name for name, _, _ in _ERRORS), "MW_STATUS_END")


def error_of(status: int, *, tensor: int = 0, index: int = 0, size: int = 0) -> ModelWireError:
    """Return the error that stands for a status other than MW_OK, with the place of the fault where its class names one."""
    _, kind, facts = _ERRORS[status - 1]
    place = {"tensor": tensor, "index": index}
    if kind is IndexOutOfRange:
        return kind(**place, size=size)
    if kind in (RangeOverflow, NonFinite):
        return kind(**facts, **place)
    return kind(**{name: fact.format_map(place) for name, fact in facts.items()})
