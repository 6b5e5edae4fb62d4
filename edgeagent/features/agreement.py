"""For the process that has the runtime: computes what features are missing, having seen that the exact head answers as the model does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeagent.samples.spool import Spool
from edgecommon.files import mapped
from edgecommon.runtime import Runtime
from modelwire.errors import NotTrainable
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import outputs_of, start_of
from modelwire.tensors import F32, Weights
from modelwire.tflite import file as tflite_file

from .exact_course import Place, place_of
from .extractor import Extractor
from .kept import Features, half

AGREE = 1e-4  # of the largest answer, at least of 1: how far the head on features may be from the model itself
CHECKED_MAX = 16  # samples that are compared


def looked_at(
    found: Runtime, spool: Spool, state: Path, model: str, *, base: bytes, until: int, say: Callable[[int], None]
) -> dict[str, Any]:
    """Compute the features that are missing and return what was found out. For the process that has the runtime.

    say: told how many are done. until: 0 for none at all.
    """
    file = state / "models" / model / "base.tflite"
    opened = Extractor(found, file, model=model)
    with mapped(file) as data:
        schema, flat = tflite_file.read_tensors(data, model=model)
    place = place_of(opened.head, schema)
    ids = spool.ids(model, until=until)
    some = (x for _, x in spool.inputs(model, ids[: min(opened.batch, CHECKED_MAX)].tolist()))
    place = agreeing(place, opened, schema.shaped(flat), some)
    kept = Features(spool, model, base=base, runtime=opened.runtime_key, width=opened.head.features)
    for done in kept.compute(opened, kept.missing(ids)):
        say(done)
    return {"runtime": opened.runtime_key, "logits": place.logits}


def agreeing(place: Place, opened: Extractor, base: Weights, samples: Iterable[F32]) -> Place:
    """Return the place, `logits` as the model has it, having seen that the exact head and the runtime answer alike on all samples.

    Raises NotTrainable when they don't: the notes say of the head what it is not, or this runtime computes something else.
    """
    both = [(opened.features(x), opened.answer(x)) for x in samples]
    if not both:
        return place
    features, wanted = np.stack([f for f, _ in both]), np.stack([w for _, w in both])
    kept = half(features, model=opened.model)
    recipe = place.recipe(rows=len(kept), batch=1, epochs=1, rate=0.0, optimizer="sgd", seed=0)
    exact = outputs_of(recipe, start_of(recipe, place.layers(base)).weights, Rows(kept))
    apart = _apart(exact, _plain(place, base, kept.astype(np.float32)))  # rounding to float16 is in both
    outputs = _plain(place, base, features)
    for form in (place, replace(place, logits=True)):
        if max(apart, _apart(form.finished(outputs), wanted)) <= AGREE:
            return form
    apart = max(apart, _apart(place.finished(outputs), wanted))
    reason = f"mode features: the head on its features answers {apart:.2g} apart from the model on {len(both)} samples, above {AGREE:g}"
    raise NotTrainable(model=opened.model, reason=reason)


def _plain(place: Place, weights: Weights, features: F32) -> F32:
    """Return the head's outputs by plain float32 arithmetic: the same as the exact trainer's but for the order of its sums."""
    z = features
    layers = place.layers(weights)
    for k, (matrix, biases) in enumerate(layers):
        z = z @ matrix.T + biases
        if k < len(layers) - 1:
            z = np.tanh(z) if place.notes.activation == "tanh" else np.maximum(z, 0)
    return z


def _apart(a: F32, b: F32) -> float:
    """Return the largest difference, in shares of the largest entry where that is above 1; NaN counts as infinitely far."""
    difference = float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))
    return difference if difference == difference else math.inf
