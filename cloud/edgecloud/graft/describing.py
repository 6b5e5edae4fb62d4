"""Describes a grafted file in its own notes: its modes, and its head where that is one that the exact trainer knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod

from modelwire.output_head_settings import FEATURES_MAX, WIDTH_MAX
from modelwire.tflite.notes import CONTRACT, HEAD_LAYERS_MAX, HeadNotes, Mode

from .layers import Layer
from .loss import LossPlace
from .stock import Op, Stock
from .windows import of_conv
from .writing import ops

_LOSSES = {"ce": "softmax", "binary": "logistic", "mse": "mse"}
_FUSED = {ops.FUSED_RELU: "relu", ops.FUSED_TANH: "tanh"}
_ALONE = {ops.RELU: "relu", ops.TANH: "tanh"}


def notes(said: Mapping[str, object], modes: Sequence[Mode], output_head: HeadNotes | None) -> bytes:
    """Return the JSON of the metadata entry. said: what else it holds."""
    listed = [{"name": m.name, "signature": m.signature, "weights": list(m.weights)} for m in modes]
    described = None
    if output_head is not None:
        described = {
            "layers": [list(pair) for pair in output_head.layers], "activation": output_head.activation,
            "loss": output_head.loss, "features": output_head.features,
        }  # fmt: skip
    return json.dumps({"contract": CONTRACT, **said, "modes": listed, "head": described}, separators=(",", ":")).encode()


def output_head(stock: Stock, layers: Sequence[Layer], features: int, place: LossPlace) -> HeadNotes | None:
    """Return what the layers are as a head, None when they are none: something but dense layers between the features and the loss.

    features: the stock tensor that they see. place: where the loss enters.
    """
    names = {t: name for layer in layers for name, t in layer.weights.items()}
    walked: list[tuple[str, str]] = []
    activations: list[str] = []  # behind each layer, from the loss down
    tensor, behind = place.tensor, ""
    while features >= 0 and tensor != features and len(walked) <= HEAD_LAYERS_MAX:
        op = stock.source.get(tensor)
        if op is None or len(stock.users.get(tensor, ())) > 1 or op.outputs != (tensor,):
            return None
        if op.code in _ALONE and not behind:
            behind = _ALONE[op.code]
        elif op.code not in (ops.RESHAPE, ops.SQUEEZE, ops.EXPAND_DIMS):
            pair = _layer(stock, op, names)
            if pair is None or (op.fused and (behind or op.fused not in _FUSED)):
                return None
            walked.append(pair)
            activations.append(_FUSED[op.fused] if op.fused else behind)
            behind = ""
        tensor = op.inputs[0]
    hidden = set(activations[1:])
    whole = tensor == features and not behind and sorted(n for pair in walked for n in pair) == sorted(names.values())
    fits = 1 <= len(walked) <= HEAD_LAYERS_MAX and len(hidden) <= 1 and hidden != {""} and activations[0] == ""
    width = stock.tensors[features].size if features >= 0 else 0
    if not whole or not fits or width > FEATURES_MAX:
        return None
    return HeadNotes(tuple(reversed(walked)), hidden.pop() if hidden else "", _LOSSES[place.kind], width)


def _layer(stock: Stock, op: Op, names: Mapping[int, str]) -> tuple[str, str] | None:
    """Return the names of a dense layer's matrix and biases; None for an operator that is not one on a single row."""
    if op.code not in (ops.FULLY_CONNECTED, ops.CONV_2D) or len(op.inputs) < 3 or not {op.inputs[1], op.inputs[2]} <= names.keys():
        return None
    x, kernel, bias = (stock.tensors[t].shape for t in op.inputs[:3])
    if op.code == ops.CONV_2D:
        sliding = of_conv(op, x, (kernel[1], kernel[2]))
        # One window that sees the whole map, as it is laid out.
        if sliding.count != (1, 1) or sliding.before != (0, 0) or sliding.after != (0, 0) or sliding.size != x[1:3] or x[3] != kernel[3]:
            return None
    elif op.option(1, small=True):
        return None  # weights in another order
    if prod(x) != prod(kernel[1:]) or bias != kernel[:1] or kernel[0] > WIDTH_MAX or len(stock.users[op.inputs[1]]) > 1:
        return None
    return names[op.inputs[1]], names[op.inputs[2]]
