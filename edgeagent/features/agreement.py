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
from edgecommon.memory import give_back
from edgecommon.runtime import Runtime
from modelwire.errors import NotTrainable
from modelwire.output_head.rows import Rows
from modelwire.output_head.trainer import outputs_of, start_of
from modelwire.tensors import F32, Weights
from modelwire.tflite import file as tflite_file

from .exact_course import OutputHead, output_head_of
from .extractor import Extractor
from .kept import Features, half

AGREE = 1e-4  # of the largest answer, at least of 1: how far the head on features may be from the model itself
CHECKED_MAX = 16  # samples that are compared


def looked_at(
    runtime: Runtime, spool: Spool, model: str, *, base: bytes, file: Path, until: int, say: Callable[[int], None]
) -> dict[str, Any]:
    """Compute the features that are missing and return what was found out. For the process that has the runtime.

    base: the commit of the base in `file`. say: told how many are done. until: 0 for none at all.
    """
    extractor = Extractor(runtime, file, model=model)
    give_back(code=True)
    with mapped(file) as data:
        schema, flat = tflite_file.read_tensors(data, model=model)
    output_head = output_head_of(extractor.head, schema)
    ids = spool.ids(model, until=until)
    some = (x for _, x in spool.inputs(model, ids[: min(extractor.batch, CHECKED_MAX)].tolist()))
    output_head = agreeing(output_head, extractor, schema.shaped(flat), some)
    kept = Features(spool, model, base=base, runtime=extractor.runtime_key, width=extractor.head.features)
    for done in kept.compute(extractor, kept.missing(ids)):
        say(done)
    return {"runtime": extractor.runtime_key, "logits": output_head.logits}


def agreeing(output_head: OutputHead, extractor: Extractor, base: Weights, samples: Iterable[F32]) -> OutputHead:
    """Return the output_head, `logits` as the model has it, having seen that the exact head and the runtime answer alike on all samples.

    Raises NotTrainable when they don't: the notes say of the head what it is not, or this runtime computes something else.
    """
    both = [(extractor.features(x), extractor.answer(x)) for x in samples]
    if not both:
        return output_head
    features, wanted = np.stack([f for f, _ in both]), np.stack([w for _, w in both])
    kept = half(features, model=extractor.model)
    recipe = output_head.recipe(rows=len(kept), batch=1, epochs=1, rate=0.0, optimizer="sgd", seed=0)
    exact = outputs_of(recipe, start_of(recipe, output_head.layers(base)).weights, Rows(kept))
    apart = _apart(exact, _plain(output_head, base, kept.astype(np.float32)))  # rounding to float16 is in both
    outputs = _plain(output_head, base, features)
    for form in (output_head, replace(output_head, logits=True)):
        if max(apart, _apart(form.finished(outputs), wanted)) <= AGREE:
            return form
    apart = max(apart, _apart(output_head.finished(outputs), wanted))
    reason = f"mode features: the head on its features answers {apart:.2g} apart from the model on {len(both)} samples, above {AGREE:g}"
    raise NotTrainable(model=extractor.model, reason=reason)


def _plain(output_head: OutputHead, weights: Weights, features: F32) -> F32:
    """Return the head's outputs by plain float32 arithmetic: the same as the exact trainer's but for the order of its sums."""
    z = features
    layers = output_head.layers(weights)
    for k, (matrix, biases) in enumerate(layers):
        z = z @ matrix.T + biases
        if k < len(layers) - 1:
            z = np.tanh(z) if output_head.notes.activation == "tanh" else np.maximum(z, 0)
    return z


def _apart(a: F32, b: F32) -> float:
    """Return the largest difference, in shares of the largest entry where that is above 1; NaN counts as infinitely far."""
    difference = float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))
    return difference if difference == difference else math.inf
