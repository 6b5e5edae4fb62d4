"""What a round in mode features trains and judges with: rows of kept features and the exact head, where other modes have an interpreter.

The interpreter is opened for samples whose features are not known yet, and once after a start, to see that head and model agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelwire import rows as wire_rows
from modelwire import tflite_file
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.head import outputs_of, start_of
from modelwire.head_recipe import HeadRecipe
from modelwire.notes import HeadNotes, Notes, notes_of
from modelwire.rows import Rows
from modelwire.state import ModelState
from modelwire.tensors import F32, Weights

from . import guard
from .course import Lesson
from .extraction import Extraction
from .features import Features, half
from .files import mapped
from .head_course import Place, place_of, rows_for
from .lineage import Lineage
from .spool import Samples, Spool

if TYPE_CHECKING:
    from .extractor import Extractor
    from .runtime import Runtime

AGREE = 1e-4  # of the largest answer, at least of 1: how far the head on features may be from the model itself
CHECKED_MAX = 16  # samples that are compared


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out about a model's head since the agent started."""

    place: Place
    notes: Notes
    runtime_key: str
    batch: int


@dataclass(frozen=True, slots=True)
class OnFeatures:
    """One round's samples as features. x of the samples is empty."""

    model: str
    known: Known
    training: Samples
    judging: Samples
    until: int  # the newest sample that counts
    rows: Rows  # to train on
    judged: Rows

    def measure(self, weights: Mapping[str, NDArray[Any]]) -> guard.Score:
        """Return the score of a model with these weights on the held-out samples."""
        place = self.known.place
        shape = place.recipe(rows=len(self.judged), batch=1, epochs=1, rate=0.0, optimiser="sgd", seed=0)
        return guard.score(place.answers(shape, weights, self.judged), self.judging)

    def recipe(self, rows: Rows, lesson: Lesson, optimiser: str) -> HeadRecipe:
        """Return how the lesson trains on these rows. optimiser: a name; "" for the model file's own."""
        return self.known.place.recipe(
            rows=len(rows), batch=self.known.batch, epochs=lesson.epochs, rate=lesson.learning_rate,
            optimiser=optimiser or self.known.notes.optimizer, seed=lesson.seed,
        )  # fmt: skip

    def quantised(self) -> Rows:
        """Return the rows to train on as a recipe carries them."""
        return wire_rows.quantised(self.rows.features, self.rows.labels, self.rows.targets)

    def check_front(self, state: ModelState) -> None:
        """Raise NotTrainable when something in front of the head was trained: the kept features are those of the base."""
        head = {name for pair in self.known.place.notes.layers for name in pair}
        front = {name for mode in self.known.notes.modes for name in mode.weights} - head
        for spec, base, now in zip(state.manifest.schema.tensors, state.base, state.weights, strict=True):
            if spec.name in front and base.tobytes() != now.tobytes():
                reason = f"mode features: {spec.name} in front of the head has moved from the base: train.mode = head trains on"
                raise NotTrainable(model=self.model, reason=reason)


@dataclass(slots=True)
class Extractors:
    """Has features computed, and remembers what was found out, for one run of the agent."""

    state: Path  # the agent's state folder
    known: dict[str, Known] = field(default_factory=dict)  # by model

    def runtime_key(self, lineage: Lineage) -> str:
        """Return the key of the runtime that computes this model's features. Raises NotTrainable or RuntimeUnusable."""
        finding = self._find_out(lineage, 0)
        while True:
            try:
                next(finding)
            except StopIteration as end:
                known: Known = end.value
                return known.runtime_key

    def gather(self, lineage: Lineage, spool: Spool, *, held_out: float, until: int) -> Generator[None, None, OnFeatures]:
        """Return the samples up to `until` as features, yielding while some are computed.

        Raises NotTrainable where this model or these samples can't be trained in mode features; NotEnoughSamples.
        """
        name, known = lineage.name, self.known.get(lineage.name)
        ids = spool.ids(name, until=until)
        if known is None or self._kept(spool, lineage, known).missing(ids):
            _check_size(lineage.name, head_of(lineage.store.folder / "base.tflite", name)[0].head, len(ids))
            known = yield from self._find_out(lineage, until)
        kept, loss = self._kept(spool, lineage, known), known.place.notes.loss

        def rows_of(samples: Samples) -> Rows:
            return rows_for(kept.rows(samples.ids), samples.y, labelled=samples.labelled, loss=loss, model=name)

        with spool.database.transaction():  # samples may have gone meanwhile, and more may go while these are read
            training, judging = spool.outline(name, held_out, until=until)
            if not len(training) or not len(judging):
                raise NotEnoughSamples(model=name, have=len(training) + len(judging), need=2)
            return OnFeatures(name, known, training, judging, until, rows_of(training), rows_of(judging))

    def _kept(self, spool: Spool, lineage: Lineage, known: Known) -> Features:
        return Features(spool, lineage.name, base=lineage.base_commit, runtime=known.runtime_key, width=known.place.widths[0])

    def _find_out(self, lineage: Lineage, until: int) -> Generator[None, None, Known]:
        notes, batch = head_of(lineage.store.folder / "base.tflite", lineage.name)
        assert notes.head is not None  # `head_of` has seen to it
        found = yield from Extraction(self.state, lineage.name, base=lineage.base_commit, until=until).result()
        place = replace(place_of(notes.head, lineage.manifest.schema), logits=found["logits"])
        known = Known(place, notes, found["runtime"], batch)
        if until:  # without samples nothing was compared
            self.known[lineage.name] = known
        return known


def head_of(file: Path, model: str) -> tuple[Notes, int]:
    """Return a base's notes, and the samples of one step. Raises NotTrainable when it can't be trained in mode features."""
    with mapped(file) as data:
        tflite_file.check_trainable(data, model=model)
        said, batch = notes_of(data, model=model), tflite_file.contract(data, model=model).batch
    if said.head is None:
        raise NotTrainable(model=model, reason="mode features: the file says of no head that it stands on features")
    if said.score:
        raise NotTrainable(model=model, reason="mode features: its threshold of anomalies is found with the whole model")
    return said, batch


def _check_size(model: str, head: HeadNotes | None, samples: int) -> None:
    if head is not None and samples * head.features > wire_rows.ENTRIES_MAX:
        reason = f"mode features: {samples} samples of {head.features} features are too many to hold; spool.max_samples = "
        raise NotTrainable(model=model, reason=f"{reason}{wire_rows.ENTRIES_MAX // head.features} and fewer do")


def looked_at(
    found: Runtime, spool: Spool, state: Path, model: str, *, base: bytes, until: int, say: Callable[[int], None]
) -> dict[str, Any]:
    """Compute the features that are missing and return what was found out. For the process that has the runtime.

    say: told how many are done. until: 0 for none at all.
    """
    from .extractor import Extractor

    file = state / "models" / model / "base.tflite"
    opened = Extractor(found, file, model=model)
    with mapped(file) as data:
        schema, flat = tflite_file.read_tensors(data, model=model)
    place = place_of(opened.head, schema)
    ids = spool.ids(model, until=until)
    some = [x for _, x in spool.inputs(model, ids[: min(opened.batch, CHECKED_MAX)].tolist())]
    if some:
        place = agreeing(place, opened, schema.shaped(flat), some)
    del some
    kept = Features(spool, model, base=base, runtime=opened.runtime_key, width=opened.head.features)
    for done in kept.compute(opened, kept.missing(ids)):
        say(done)
    return {"runtime": opened.runtime_key, "logits": place.logits}


def agreeing(place: Place, opened: Extractor, base: Weights, samples: Iterable[F32]) -> Place:
    """Return the place, `logits` as the model has it, having seen that the exact head and the runtime answer alike.

    Raises NotTrainable when they don't: the notes say of the head what it is not, or this runtime computes something else.
    """
    both = [(opened.features(x), opened.answer(x)) for x in samples]
    features, wanted = np.stack([f for f, _ in both]), np.stack([w for _, w in both])
    kept = half(features, model=opened.model)
    recipe = place.recipe(rows=len(kept), batch=1, epochs=1, rate=0.0, optimiser="sgd", seed=0)
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
