"""What commands say of an int8 head that devices train in the file as it is."""

from __future__ import annotations

from modelwire.errors import NotTrainable
from modelwire.tflite import file as tflite_file
from modelwire.tflite.int8_head import MSE, Int8Head

from .answer import Document


def int8_head_of(data: bytes, model: str) -> tuple[Int8Head | None, str]:
    """Return the head, or why there is an int8 one that can't be trained as it is; neither where a file ends in something else."""
    try:
        return tflite_file.read_head(data, model=model), ""
    except NotTrainable as error:
        return None, str(error.facts["reason"])


def describe(head: Int8Head | None) -> Document | None:
    """Return what a document says of an int8 head that devices train in the file as it is."""
    if head is None:
        return None
    return {
        "features": head.features, "outputs": head.outputs, "probability": None if head.loss == MSE else head.loss,
        "scales": len(head.kernel_scales), "scales_kept": head.keeps_scales, "exposed": head.exposed,
        "loss": head.loss, "bits": 16 if head.wide else 8, "bias": _bias(head), "output": head.output, "rows": head.rows,
    }  # fmt: skip


def _bias(head: Int8Head) -> str:
    return "trained" if head.kept is None else "kept" if any(head.kept) else "none"


def say(head: Int8Head) -> str:
    """Return the same as one line."""
    scales = "one scale" if len(head.kernel_scales) == 1 else f"{len(head.kernel_scales)} scales"
    kept = ", which are shared and stay as they are" if head.keeps_scales else ""
    rows = f"output {head.exposed} gives its rows" if head.exposed is not None else "edgecloud int8-head expose shows its rows"
    more = {"trained": "", "kept": ", its biases are shared and stay", "none": ", without biases"}[_bias(head)]
    if head.rows > 1:
        more += f", {head.rows} rows at once"
    codes = f"{head.features} codes" if not head.wide else f"{head.features} codes of 16 bits"
    of = f" (output {head.output})" if head.output else ""
    return f"trains as it is: {codes} to {head.outputs}{of}, {head.loss}, {scales}{kept}{more}; {rows}"
