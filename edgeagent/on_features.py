"""What a round in mode features trains and judges with: rows of kept features and the exact head, where other modes have an interpreter.

The interpreter is opened for samples whose features are not known yet, and once after a start, to see that head and model agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelwire import rows as wire_rows
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.head import outputs_of, start_of
from modelwire.head_recipe import HeadRecipe
from modelwire.notes import Notes
from modelwire.rows import Rows
from modelwire.state import ModelState
from modelwire.tensors import F32, Weights
from modelwire.tflite_file import read_weights

from . import guard
from .course import Lesson
from .features import Features, half
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
    """Opens what computes features, and remembers what was found out, for one run of the agent."""

    find: Callable[[], Runtime]
    known: dict[str, Known] = field(default_factory=dict)  # by model

    def runtime_key(self, lineage: Lineage) -> str:
        """Return the key of the runtime that computes this model's features. Raises NotTrainable or RuntimeUnusable."""
        opened = self._open(lineage)
        try:
            return opened.runtime_key
        finally:
            opened.close()

    def gather(self, lineage: Lineage, spool: Spool, *, held_out: float, until: int) -> Generator[None, None, OnFeatures]:
        """Return the samples up to `until` as features, yielding for each one whose features had to be computed.

        Raises NotTrainable where this model or these samples can't be trained in mode features; NotEnoughSamples.
        """
        training, judging = spool.outline(lineage.name, held_out, until=until)
        if not len(training) or not len(judging):
            raise NotEnoughSamples(model=lineage.name, have=len(training) + len(judging), need=2)
        ids = np.concatenate([training.ids, judging.ids])
        opened = None
        try:
            if lineage.name not in self.known:
                opened = self._open(lineage)
                self.known[lineage.name] = self._looked_at(opened, lineage, spool, ids)
            known = self.known[lineage.name]
            width = known.place.widths[0]
            if len(ids) * width > wire_rows.ENTRIES_MAX:
                reason = f"mode features: {len(ids)} samples of {width} features are too many to hold; spool.max_samples = "
                raise NotTrainable(model=lineage.name, reason=f"{reason}{wire_rows.ENTRIES_MAX // width} and fewer do")
            kept = Features(spool, lineage.name, base=lineage.base_commit, runtime=known.runtime_key, width=width)
            missing = kept.missing(ids)
            if missing:
                opened = opened or self._open(lineage)
                for _ in kept.compute(opened, missing):
                    yield
        finally:
            if opened is not None:
                opened.close()
        loss = known.place.notes.loss

        def rows_of(samples: Samples) -> Rows:
            return rows_for(kept.rows(samples.ids), samples.y, labelled=samples.labelled, loss=loss, model=lineage.name)

        with spool.database.transaction():  # samples may have gone meanwhile, and more may go while these are read
            training, judging = spool.outline(lineage.name, held_out, until=until)
            if not len(training) or not len(judging):
                raise NotEnoughSamples(model=lineage.name, have=len(training) + len(judging), need=2)
            return OnFeatures(lineage.name, known, training, judging, until, rows_of(training), rows_of(judging))

    def _open(self, lineage: Lineage) -> Extractor:
        from .extractor import Extractor  # with the seam over the runtimes: only a device that computes features needs it

        return Extractor(self.find(), lineage.store.folder / "base.tflite", model=lineage.name)

    def _looked_at(self, opened: Extractor, lineage: Lineage, spool: Spool, ids: NDArray[np.int64]) -> Known:
        head = opened.notes.head
        assert head is not None  # an Extractor has one
        with opened.mapped() as file:
            base = read_weights(file)
        samples = [x for _, x in spool.inputs(lineage.name, ids[: min(opened.batch, CHECKED_MAX)].tolist())]
        place = agreeing(place_of(head, lineage.manifest), opened, base, samples)
        return Known(place, opened.notes, opened.runtime_key, opened.batch)


def agreeing(place: Place, opened: Extractor, base: Weights, samples: list[F32]) -> Place:
    """Return the place, `logits` as the model has it, having seen that the exact head and the runtime answer alike.

    Raises NotTrainable when they don't: the notes say of the head what it is not, or this runtime computes something else.
    """
    features, wanted = (np.stack([call(x) for x in samples]) for call in (opened.features, opened.answer))
    kept = half(features, model=opened.model)
    recipe = place.recipe(rows=len(kept), batch=1, epochs=1, rate=0.0, optimiser="sgd", seed=0)
    exact = outputs_of(recipe, start_of(recipe, place.layers(base)).weights, Rows(kept))
    apart = _apart(exact, _plain(place, base, kept.astype(np.float32)))  # rounding to float16 is in both
    outputs = _plain(place, base, features)
    for form in (place, replace(place, logits=True)):
        if max(apart, _apart(form.finished(outputs), wanted)) <= AGREE:
            return form
    apart = max(apart, _apart(place.finished(outputs), wanted))
    reason = f"mode features: the head on its features answers {apart:.2g} apart from the model on {len(samples)} samples, above {AGREE:g}"
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
