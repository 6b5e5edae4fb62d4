"""Trains the head of an int8 model with no runtime: in float by the exact head trainer, then as int8 under the file's scales.

A sample is a row of the int8 codes that the head sees. What is judged is the int8 head, computed as the runtimes' kernels do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelwire.errors import ModelError, NotTrainable, ShapeMismatch, TrainingDiverged
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import HeadState, advance, layers_of, outputs_of, start_of
from modelwire.output_head_settings import STEPS_MAX, Loss, Optimizer, OutputHeadSettings
from modelwire.tensors import F32, Weights
from modelwire.tflite import file as tflite_file
from modelwire.tflite.int8_head import BIAS_SCALE, CODE_MAX, KERNEL, KERNEL_SCALE, LOGISTIC, MSE, OUTPUT_SCALE, SOFTMAX
from modelwire.tflite.int8_numbers import F64, each, layer_of, logits_of, to_integers, wider

ISSUE = "exact-head 1 int8"  # the trainer and the rounding behind it: the same bits on every processor
# Codes of features for 1.0 as the trainer sees them: it wants numbers of about 1. float16 has those of int8 to the bit, and of int16 the
# first 11 bits: enough to learn by, and what is judged is computed from all of them.
UNIT, WIDE_UNIT = 128.0, 32768.0
# Weights learn inside +-127 of their scale. Where more than this share of them ended there, the next round has a coarser scale: an
# update that changes the scale changes every code (decision 0011 has the figures).
AT_END = 1 / 8
COARSER = ((1 / 4, 2.0), (1 / 2, 4.0), (1.0, 8.0))  # up to this share at the end: times so much; powers of 2, so that scales stay exact
ROOM = 1.5  # a new scale of logits leaves so much above the largest
_FROM = "from "  # before the names of the integers that a round began with
RECENT = 16  # batches that say how far the logits reach
_LOSSES = {SOFTMAX: Loss.SOFTMAX, LOGISTIC: Loss.LOGISTIC, MSE: Loss.MSE}


class Int8Model:
    """An opened int8 model whose head trains. Its weights start as the file's; not safe for use from two threads."""

    def __init__(self, file: bytes, *, model: str = "model") -> None:
        """Raises NotTrainable when the file is no int8 model that can be trained as it is."""
        output_head = tflite_file.read_head(file, model=model)
        if output_head is None:
            raise NotTrainable(model=model, reason="it has signatures that train it, and needs a runtime")
        self.name, self._head = model, output_head
        self._shapes = {v.name: (v.shape, v.dtype.held) for v in output_head.variables}
        self.contract, self._unit = output_head.contract, WIDE_UNIT if output_head.wide else UNIT
        self._recipe = OutputHeadSettings(
            features=output_head.features, outputs=output_head.outputs, steps=STEPS_MAX, batch=self.batch, optimizer=Optimizer.ADAM,
            loss=_LOSSES[output_head.loss],
        )  # fmt: skip
        self.set_weights(tflite_file.read_weights(file, model=model))

    @property
    def batch(self) -> int:
        """Samples of one `train` call."""
        return self.contract.batch

    @property
    def runtime_key(self) -> str:
        """What must be equal for the same weights and samples to give the same bits."""
        return ISSUE

    def set_weights(self, weights: Mapping[str, NDArray[np.generic]]) -> None:
        """Put `weights` in place, to the bit. Raises ShapeMismatch unless they are exactly the file's tensors."""
        odd = sorted(set(weights) ^ set(self._shapes))
        if odd:
            known = odd[0] in self._shapes
            raise ShapeMismatch(tensor=odd[0], expected="a tensor" if known else "no such tensor", got="nothing" if known else "a tensor")
        for name, (shape, dtype) in self._shapes.items():
            if weights[name].shape != shape or weights[name].dtype != dtype:
                got = f"{weights[name].dtype}{list(weights[name].shape)}"
                raise ShapeMismatch(tensor=name, expected=f"{np.dtype(dtype)}{list(shape)}", got=got)
        self._head = self._head.with_weights(weights, model=self.name)
        self._weights: Weights = {name: np.array(weights[name]) for name in self._shapes}
        # What training starts from: the same numbers in float, under scales that may have grown.
        self._scales = each(self._head.kernel_scales, self._head.outputs) * self._coarser()
        self._span = 1.0  # what counts as 1 of the outputs: numbers of about 1 learn well, whatever a regressor's stand for
        if self._head.loss == MSE:
            low, high = self._head.reach
            self._span = 2.0 ** math.frexp(max(-low, high))[1]
        self._floats: HeadState = start_of(self._recipe, [self._numbers()])
        self._reaches = np.zeros((RECENT, 2))

    @property
    def state_is_whole(self) -> bool:
        """Whether `get_state` gives all that training goes by beside the weights."""
        return True

    def use(self, signature: str) -> None:
        """Train as by this signature: there is no other way than "train"; "" for a model that is only evaluated."""
        if signature not in ("", "train"):
            raise NotTrainable(model=self.name, reason=f"an int8 head has no signature {signature[:40]!r}")

    def close(self) -> None:
        """Nothing is held that would have to be given back."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Return what training goes by beside the weights, copies: the head in float, the optimizer's slots, the integers it began with."""
        floats, scales, reaches = self._floats, self._scales, self._reaches
        out: dict[str, NDArray[Any]] = {
            "float": floats.weights, "slots": floats.slots, "step": np.array([floats.step], np.int64), "scales": scales, "reaches": reaches,
        }  # fmt: skip
        return {name: value.copy() for name, value in {**out, **{_FROM + n: w for n, w in self._weights.items()}}.items()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `get_state` gave, to the bit. Raises ShapeMismatch for anything of another kind."""
        known = self.get_state()
        for name in sorted(set(known) | set(state)):
            here, there = (None if name not in of else (of[name].dtype, of[name].shape) for of in (known, state))
            if here != there:
                raise ShapeMismatch(tensor=name, expected=here or "no such state", got=there or "nothing")
        self.set_weights({name.removeprefix(_FROM): value for name, value in state.items() if name.startswith(_FROM)})
        self._scales, self._reaches = state["scales"].copy(), state["reaches"].copy()
        self._floats = HeadState(state["float"].copy(), state["slots"].copy(), int(state["step"][0]))

    def train(self, x: ArrayLike, y: ArrayLike, lr: float) -> float:
        """Return the loss of one step on exactly `batch` samples; y: one-hot, [batch, classes]; or targets where the loss takes them.

        Raises ModelError for what can't be samples of this model, TrainingDiverged when loss or weights are no numbers.
        """
        codes = self._codes(x, self.batch)
        wanted = np.asarray(y, np.float32)
        if wanted.shape != (self.batch, *self.contract.y_shape):
            raise ShapeMismatch(tensor=f"{self.name}: y", expected=f"[{self.batch}, {self.contract.classes}]", got=str(list(wanted.shape)))
        if self._recipe.rate != float(np.float32(lr)):
            self._recipe = replace(self._recipe, rate=float(lr))
        features = ((codes - self._head.feature_zero) / self._unit).astype(np.float16)
        rows = self._rows(features, wanted)
        try:
            start = layers_of(self._recipe, self._floats.weights)[0][1].copy()
            (loss,) = advance(self._recipe, self._floats, rows, 1)
        except TrainingDiverged as e:
            raise TrainingDiverged(model=self.name, what=e.facts["what"], steps=self._floats.step) from None
        ((matrix, biases),) = layers_of(self._recipe, self._floats.weights)
        ends = (CODE_MAX * self._scales * (self._head.feature_scale * self._unit / self._span)).astype(np.float32)[:, None]
        np.clip(matrix, -ends, ends, out=matrix)
        if self._head.kept is not None:
            biases[:] = start
        if not self._head.logistic:  # its logits have to fit their scale
            z = outputs_of(self._recipe, self._floats.weights, rows)
            self._reaches[self._floats.step % RECENT] = self._span * z.min(), self._span * z.max()
        return float(loss) * self._span**2

    def get_weights(self) -> Weights:
        """Return the present weights as the file would hold them; copies. Raises TrainingDiverged when no int8 holds them."""
        if not self._floats.step:
            return {name: value.copy() for name, value in self._weights.items()}
        ((matrix, biases),) = layers_of(self._recipe, self._floats.weights)
        kernel = matrix.astype(np.float64) / (self._unit * self._head.feature_scale) * self._span
        weights = self._as_integers(kernel, biases.astype(np.float64) * self._span)
        try:
            self._head.with_weights(weights, model=self.name)
        except NotTrainable as e:
            what = f"a head that no int8 holds: {e.facts['reason']}"
            raise TrainingDiverged(model=self.name, what=what, steps=self._floats.step) from None
        return weights

    def evaluate(self, x: ArrayLike) -> F32:
        """Return what the int8 head says of any number of samples, [n, outputs]: probabilities, or numbers. x: codes, [n, features]."""
        weights = self.get_weights()
        head = self._head.with_weights(weights, model=self.name)
        z = (logits_of(head, weights, self._codes(x)) - head.output_zero) * head.output_scale
        if head.loss == MSE:
            return np.asarray(z, np.float32)
        if head.logistic:
            p = 0.5 * (1 + np.tanh(0.5 * z))
            return np.asarray(np.concatenate([1 - p, p], 1) if head.outputs == 1 else p, np.float32)
        e = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(e / e.sum(1, keepdims=True), np.float32)

    def _coarser(self) -> F64:
        """Return by how much the scale of each output grows in this round."""
        if KERNEL_SCALE not in self._weights:
            return np.ones(self._head.outputs)
        ended = np.abs(self._weights[KERNEL]) >= CODE_MAX
        share = ended.mean(1) if len(self._head.kernel_scales) > 1 else np.full(self._head.outputs, ended.mean())
        return np.array([next(by for most, by in COARSER if s <= most) if s > AT_END else 1.0 for s in share])

    def _numbers(self) -> tuple[F32, F32]:
        """Return the layer that the integers stand for, as the trainer has it: from codes / unit to outputs / span."""
        kernel, biases = layer_of(self._head, self._weights)
        return (kernel * (self._head.feature_scale * self._unit / self._span)).astype(np.float32), (biases / self._span).astype(np.float32)

    def _codes(self, x: ArrayLike, rows: int | None = None) -> NDArray[np.int64]:
        value = np.asarray(x)
        count = rows if rows is not None else len(value) if value.ndim else 0
        if value.shape != (count, self._head.features) or value.dtype.kind not in "fiub":
            expected = f"codes of shape {[count, self._head.features]}"
            raise ShapeMismatch(tensor=f"{self.name}: x", expected=expected, got=f"{value.dtype}{list(value.shape)}")
        if not self.contract.codes.hold(value):
            raise ModelError(model=self.name, reason=f"a sample is no row of {self.contract.codes.said}")
        return value.astype(np.int64)

    def _rows(self, features: NDArray[np.float16], y: F32) -> Rows:
        if self._recipe.loss is Loss.MSE:
            return Rows(features, targets=np.ascontiguousarray((y / self._span).astype(np.float32)))
        if self._recipe.loss is Loss.LOGISTIC:
            if not bool(((y >= 0) & (y <= 1)).all()):
                raise ModelError(model=self.name, reason="a logistic head learns targets from 0 to 1")
            return Rows(features, targets=np.ascontiguousarray(y[:, 1:] if self._head.outputs == 1 else y))
        if not np.array_equal(np.sort(y, 1)[:, -2:], np.broadcast_to(np.array([0, 1], np.float32), (len(y), 2))):
            raise ModelError(model=self.name, reason="a softmax head learns one class a sample, not a target")
        return Rows(features, labels=y.argmax(1).astype(np.uint32))

    # From float to int8.

    def _as_integers(self, kernel: F64, biases: F64) -> Weights:
        head, out = self._head, {name: value.copy() for name, value in self._weights.items()}
        bias_scales = each(head.bias_scales, head.outputs)
        new = self._scales != each(head.kernel_scales, head.outputs)
        if new.any():
            bias_scales[new] = (self._scales * head.feature_scale).astype(np.float32)[new]
            out[KERNEL_SCALE] = self._scales[: len(head.kernel_scales)].astype(np.float32)
            if BIAS_SCALE in out:
                out[BIAS_SCALE] = bias_scales[: len(head.bias_scales)].astype(np.float32)
        if OUTPUT_SCALE in out:
            least, most = self._reach()
            if not head.holds(least, most):
                out |= wider(least, most, room=ROOM, centred=True, wide=head.wide)
        elif head.loss == SOFTMAX:
            kernel, biases = self._within(kernel, biases)
        return out | to_integers(head, kernel, biases, self._scales, bias_scales)

    def _reach(self) -> tuple[float, float]:
        """Return the least and the largest logit of the last batches, and 0."""
        return min(0.0, float(self._reaches[:, 0].min())), max(0.0, float(self._reaches[:, 1].max()))

    def _within(self, kernel: F64, biases: F64) -> tuple[F64, F64]:
        """Return a softmax head made smaller until its logits fit the scale that they have: less sure, and of the same mind."""
        (low, high), (least, most) = self._head.reach, self._reach()
        by = max(1.0, most / high if high > 0 else 1.0, least / low if low < 0 else 1.0)
        return kernel / by, biases / by


def trains(file: bytes, *, model: str = "model") -> bool:
    """Return whether the file is an int8 model that is trained here, and not by a runtime. Raises as `tflite_file.read_head`."""
    return tflite_file.read_head(file, model=model) is not None
