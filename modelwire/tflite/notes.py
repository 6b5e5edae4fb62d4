"""Reads what a trainable .tflite says of itself, and believes nothing that the file does not bear out: ways to train it, head, optimizer.

The metadata entry `edgeagent.trainable` holds it as JSON; docs/trainable-models.md lists its keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

from modelwire import limits
from modelwire.errors import NotTrainable
from modelwire.output_head_settings import FEATURES_MAX, WIDTH_MAX
from modelwire.tensors import Dtype

from . import file as tflite_file
from . import int8_head
from .graph import FLOAT32, Buffer, TfliteModel, parse

ENTRY = "edgeagent.trainable"  # name of the metadata entry
CONTRACT = 2  # from which on an entry lists modes
THRESHOLD = "anomaly_threshold"  # the weight that holds from which score on a sample is an anomaly
SCORE = "score"  # the signature that compares a sample's score with it
HEAD_LAYERS_MAX = 3  # what the exact trainer takes
_LOSSES = {int8_head.SOFTMAX: "ce", int8_head.LOGISTIC: "binary", int8_head.MSE: "mse"}  # of an int8 head, as notes call them
LOSSES, ACTIVATIONS = ("softmax", "logistic", "mse"), ("relu", "tanh")
REHEARSED, LEARNING_RATE = "rehearsed", "learning_rate"  # keys
RATE_MIN, RATE_MAX = 1e-9, 100.0  # of a learning rate that notes may suggest
_WORD = 64  # characters of a loss's, an optimizer's or a runtime's name


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to train the file."""

    name: str  # as it was asked for: "head", "last:3", "all", or names of layers
    signature: str  # "train" for the deepest, "train_..." for others; the same inputs x, y, lr and the same output loss
    weights: tuple[str, ...]  # names in get_weights that it moves, sorted
    learning_rate: float = 0.0  # to begin with, as a rehearsal found it; 0 when unknown


@dataclass(frozen=True, slots=True)
class HeadNotes:
    """The trained head as the exact trainer knows it: dense layers on what the signature `features` gives, laid out flat.

    A matrix has the shape [neurons, ...]: of what it has behind the first axis (a kernel over a whole map), the flat order is the inputs'.
    """

    layers: tuple[tuple[str, str], ...]  # (matrix, biases) by names of weights, from the features on
    activation: str  # of the hidden layers, "relu" or "tanh"; "" when there is one layer
    loss: str  # "softmax", "logistic" or "mse"
    features: int  # entries of what `features` gives


@dataclass(frozen=True, slots=True)
class Notes:
    """What a trainable file says of itself."""

    modes: tuple[Mode, ...]  # cheapest first; the last is the deepest, whose signature is `train`
    head: HeadNotes | None  # of the cheapest mode; None when that trains no head of this kind
    optimizer: str  # "" when unknown
    loss: str  # "ce", "binary" or "mse"; "" when unknown
    score: bool  # the file has the signature `score` and the weight `anomaly_threshold`
    rehearsed: str | None = None  # the runtime that ran it when it was made, and its version; "" when none did; None when unknown

    def mode(self, name: str) -> Mode | None:
        """Return the mode of this name, None when there is none."""
        return next((mode for mode in self.modes if mode.name == name), None)


def notes_of(file: Buffer, *, model: str = "the model") -> Notes:
    """Return the notes of a file that keeps the contract (`tflite_file.check_trainable`).

    A file without notes, or with those of an older release, has one mode: "all", by `train`, of every weight. An int8 classifier as it
    is has the mode "head"; it needs no notes, and none are read.
    Raises NotTrainable for notes that are none, or that disagree with the file's signatures and weights.
    """
    m = parse(file)
    int8 = tflite_file.head_of(file, m, model=model)
    if int8 is not None:
        mode = Mode("head", "train", tuple(v.name for v in int8.variables))
        return Notes((mode,), None, "adam", _LOSSES[int8.loss], False)
    return _Reader(m, model).notes(_said(file, m, model))


def _said(file: Buffer, m: TfliteModel, model: str) -> Mapping[str, Any]:
    """Return the entry; empty when there is none."""
    entries = [buffer for name, buffer in m.metadata if name == ENTRY]
    if not entries:
        return {}
    offset, size = m.buffers[entries[0]]
    if len(entries) > 1 or size > limits.DEFAULT.notes:
        raise NotTrainable(model=model, reason=f"its notes stand in it {len(entries)} times, {size} bytes; {limits.DEFAULT.notes} are read")
    try:
        said = json.loads(bytes(file[offset : offset + size]).decode())
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise NotTrainable(model=model, reason="its notes are no JSON object")
    return said


class _Reader:
    """Checks what is said against the file that says it."""

    def __init__(self, m: TfliteModel, model: str) -> None:
        self.m, self.model = m, model
        self.contract = tflite_file.contract(m, model=model)
        self.variables = {v.name: v for v in tflite_file.read_variables(m, model=model)}
        self.moved = tflite_file.moved(m, model=model)

    def refuse(self, reason: str) -> NoReturn:
        raise NotTrainable(model=self.model, reason=f"its notes {reason}")

    def notes(self, said: Mapping[str, Any]) -> Notes:
        words = {key: said.get(key, "") for key in ("optimizer", "loss")}
        for key, word in words.items():
            if not isinstance(word, str) or len(word) > _WORD:
                self.refuse(f"give no name as {key}")
        contract = said.get("contract", 1)
        if type(contract) is not int or contract < CONTRACT:
            mode = Mode("all", "train", tuple(self.variables), self.rate(said))
            return Notes((mode,), None, words["optimizer"], words["loss"], False, self.rehearsed(said))
        modes = self.modes(said.get("modes"))
        head = said.get("head")
        head = None if head is None else self.head(head, modes[0])
        return Notes(modes, head, words["optimizer"], words["loss"], self.score(said), self.rehearsed(said))

    def rehearsed(self, said: Mapping[str, Any]) -> str | None:
        word = said.get(REHEARSED)
        if word is None or word is False:
            return None if word is None else ""
        if not isinstance(word, str) or not word or not word.isprintable() or len(word) > _WORD:
            self.refuse("do not say what they were rehearsed with")
        return word

    def rate(self, said: Mapping[str, Any]) -> float:
        rate = said.get(LEARNING_RATE, 0.0)
        if type(rate) not in (int, float) or not (rate == 0 or RATE_MIN <= rate <= RATE_MAX):
            self.refuse(f"suggest a learning rate that is no number from {RATE_MIN:g} to {RATE_MAX:g}")
        return float(rate)

    def modes(self, said: Any) -> tuple[Mode, ...]:
        if not isinstance(said, list) or not 1 <= len(said) <= limits.DEFAULT.modes:
            self.refuse(f"list no modes, or more than {limits.DEFAULT.modes}")
        modes = tuple(self.mode(one) for one in said)
        if len({m.name for m in modes}) < len(modes) or len({m.signature for m in modes}) < len(modes):
            self.refuse("list a mode twice")
        if modes[-1].signature != "train":
            self.refuse("list a last mode whose signature is not 'train'")
        for mode in modes:
            if not set(mode.weights) <= set(modes[-1].weights):
                self.refuse(f"list a mode {mode.name!r} that trains what the deepest does not")
        return modes

    def mode(self, said: Any) -> Mode:
        name, signature, weights = (said.get(key) if isinstance(said, dict) else None for key in ("name", "signature", "weights"))
        if not isinstance(name, str) or not isinstance(signature, str) or not isinstance(weights, list):
            self.refuse("list a mode without name, signature and weights")
        if not name or not name.isprintable() or len(name) > limits.DEFAULT.tensor_name:
            self.refuse(f"call a mode {name[:40]!r}")
        if signature not in self.moved:
            self.refuse(f"give the mode {name!r} the signature {signature[:40]!r}, which is none of the file's that train")
        if weights != sorted(self.moved[signature]) or not weights:
            self.refuse(f"list other weights for the mode {name!r} than its signature changes")
        return Mode(name, signature, tuple(weights), self.rate(said))

    def head(self, said: Any, mode: Mode) -> HeadNotes:
        if not isinstance(said, dict) or not isinstance(said.get("layers"), list):
            self.refuse("describe a head without layers")
        layers, activation, loss, features = said["layers"], said.get("activation"), said.get("loss"), said.get("features")
        if not 1 <= len(layers) <= HEAD_LAYERS_MAX or not all(isinstance(p, list) and len(p) == 2 for p in layers):
            self.refuse(f"describe a head of other than 1 to {HEAD_LAYERS_MAX} pairs of weights")
        if not isinstance(loss, str) or not isinstance(activation, str):
            self.refuse("describe a head without loss and activation")
        if loss not in LOSSES or activation not in (ACTIVATIONS if len(layers) > 1 else ("",)):
            self.refuse("describe a head with a loss or an activation that is not known")
        if type(features) is not int or not 1 <= features <= FEATURES_MAX or features != self.features():
            self.refuse("describe a head on other features than the signature 'features' gives")
        names = [name for pair in layers for name in pair]
        if not all(isinstance(name, str) for name in names) or sorted(names) != list(mode.weights):
            self.refuse(f"describe a head of other weights than the mode {mode.name!r} trains")
        inputs = features
        for matrix, biases in layers:
            inputs = self.layer(matrix, biases, inputs)
        if inputs != self.contract.classes:
            self.refuse(f"describe a head that gives {inputs} numbers where the model gives {self.contract.classes}")
        return HeadNotes(tuple((m, b) for m, b in layers), activation, loss, features)

    def layer(self, matrix: str, biases: str, inputs: int) -> int:
        """Return how many neurons a layer has. Its shapes must fit."""
        shape, bias = self.variables[matrix].shape, self.variables[biases].shape
        fits = len(shape) >= 2 and prod(shape[1:]) == inputs and 1 <= shape[0] <= WIDTH_MAX
        floats = {self.variables[name].dtype for name in (matrix, biases)} == {Dtype.FLOAT32}
        if not fits or not floats or bias != shape[:1]:
            self.refuse(f"describe a head whose {matrix!r} {list(shape)} and {biases!r} {list(bias)} are no layer on {inputs} inputs")
        return shape[0]

    def features(self) -> int:
        """Return the entries of what `features` gives; 0 when the file has no such signature for one sample."""
        signature = self.m.signatures.get("features")
        if signature is None or set(signature.inputs) != {"x"} or "features" not in signature.outputs:
            return 0
        tensors = self.m.graphs[signature.graph].tensors
        x, out = tensors[signature.inputs["x"]], tensors[signature.outputs["features"]]
        ok = x.shape == (1, *self.contract.x_shape) and {x.type, out.type} == {FLOAT32} and x.fixed and out.fixed
        return prod(out.shape) if ok else 0

    def score(self, said: Mapping[str, Any]) -> bool:
        wanted = said.get("score", False)
        if not isinstance(wanted, bool):
            self.refuse("do not say whether there is a score")
        if not wanted:
            return False
        signature, threshold = self.m.signatures.get(SCORE), self.variables.get(THRESHOLD)
        if signature is None or set(signature.inputs) != {"x"} or not {SCORE, "threshold", "alarm"} <= set(signature.outputs):
            self.refuse(f"speak of a score, but the file has no signature {SCORE}(x) -> score, threshold, alarm")
        tensors = self.m.graphs[signature.graph].tensors
        if tensors[signature.inputs["x"]].shape != (1, *self.contract.x_shape):
            self.refuse(f"speak of a score, but the signature {SCORE!r} takes another x than infer")
        if any(tensors[signature.outputs[name]].shape != (1,) for name in (SCORE, "threshold", "alarm")):
            self.refuse(f"speak of a score, but the signature {SCORE!r} gives more than one number each")
        if threshold is None or threshold.shape != (1,) or threshold.dtype is not Dtype.FLOAT32:
            self.refuse(f"speak of a score, but get_weights lists no {THRESHOLD!r} of one float32")
        if any(THRESHOLD in weights for weights in self.moved.values()):
            self.refuse(f"speak of a score, but training changes {THRESHOLD!r}")
        return True
