"""Sets from which score on a sample is an anomaly: by held-out samples, under the very model that the round would serve.

For models whose file has the weight `anomaly_threshold` (`edgecloud graft --score`). The threshold is part of the version.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeagent.settings.tree import AnomalySettings
from modelwire.errors import ModelError
from modelwire.lattice import exact
from modelwire.lattice.snap import Snapped
from modelwire.tensors import F32, Dtype
from modelwire.tflite.notes import THRESHOLD
from modelwire.update import sections as update
from modelwire.update.manifest import Manifest
from modelwire.update.sections import AnySection, Kind, verbatim_section

from .batches import Trainable

# What the threshold adds to a container at most: a row of the section table with its coded difference, 19 to 21 bytes as measured,
# and the figure in the extension, 19.
BYTES = 48


def tensor_of(manifest: Manifest) -> int | None:
    """Return which tensor is the threshold, None for a model that has none. Raises ModelError for one that no update can set."""
    named = [t for t, spec in enumerate(manifest.schema.tensors) if spec.name == THRESHOLD]
    if not named:
        return None
    spec = manifest.schema.tensors[named[0]]
    if spec.dtype is not Dtype.FLOAT32 or spec.shape != (1,) or manifest.lattice(named[0]):
        raise ModelError(model=f"tensor {THRESHOLD}", reason="it is not one float32 that travels as it is; graft the model again")
    return named[0]


def scores(output: F32, x: F32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean squared error of each sample's reconstruction: what the file's signature `score` gives, but for the last bits."""
    difference = output.astype(np.float64).reshape(len(x), -1) - x.reshape(len(x), -1)
    return np.asarray((difference * difference).mean(1))


def threshold(scored: np.ndarray[tuple[int], np.dtype[np.float64]], settings: AnomalySettings) -> float | None:
    """Return from which score on a sample is an anomaly, as a float32; None when the scores are no numbers."""
    value = float(settings.margin * np.quantile(scored, settings.quantile)) if len(scored) else float("nan")
    with np.errstate(over="ignore"):
        stored = np.float32(value)
    return float(stored) if np.isfinite(stored) else None


def settle(snapped: Snapped, model: Trainable, x: F32, settings: AnomalySettings) -> tuple[Snapped, float | None]:
    """Return the round with the threshold that its model has on the samples x, and the threshold; the state has moved with it.

    model: opened, with the snapped weights in it. A model without a threshold, and one whose scores are no numbers, is left as it is.
    """
    tensor = tensor_of(snapped.state.manifest)
    value = None if tensor is None else threshold(scores(model.evaluate(x), x), settings)
    if tensor is None or value is None:
        return snapped, None
    return with_threshold(snapped, tensor, value), value


def with_threshold(snapped: Snapped, tensor: int, value: float) -> Snapped:
    """Return the round with another threshold: in the state, in the update, and in what `undo` takes back."""
    state, after = snapped.state, np.array([value], np.float32)
    section: AnySection | None
    if state.manifest.exact(tensor):
        section = exact.section_of(tensor, state.manifest.schema.tensors[tensor], state.weights[tensor], after)
    else:
        section = verbatim_section(tensor, after.view(np.int32) - state.weights[tensor].view(np.int32))
    if section is None:
        return snapped
    state.apply(Kind.EXACT if snapped.kind is Kind.EXACT else Kind.DELTA, (section,))
    moved = update.add(snapped.moved, (section,), state.manifest)
    return replace(snapped, moved=moved, sections=state.snapshot() if snapped.kind is Kind.SNAPSHOT else moved)
