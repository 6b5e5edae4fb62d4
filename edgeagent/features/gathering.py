"""What a round in mode features trains and judges with: rows of kept features and the exact head, where other modes have an interpreter.

Another process has the runtime: for samples whose features are not known yet, and once after a start, to see that head and model agree.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeagent.samples.spool import Samples, Spool
from edgeagent.state.lineage import Lineage
from edgeagent.training import guard
from edgeagent.training.course import Lesson
from modelwire.errors import NotEnoughSamples, NotTrainable
from modelwire.lattice.state import ModelState
from modelwire.output_head import rows as wire_rows
from modelwire.output_head.rows import Rows
from modelwire.output_head_settings import HeadRecipe
from modelwire.tensors import F32
from modelwire.tflite.notes import HeadNotes, Notes

from .exact_course import Place, place_of, rows_for
from .extraction import Extraction
from .head_file import head_of
from .kept import Features


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out about a model's head since the agent started."""

    place: Place
    notes: Notes
    runtime_key: str
    batch: int

    def answers(self, weights: Mapping[str, NDArray[Any]], rows: Rows) -> F32:
        """Return what a model with these weights answers to the samples of these rows, [n, outputs]."""
        shape = self.place.recipe(rows=len(rows), batch=1, epochs=1, rate=0.0, optimizer="sgd", seed=0)
        return self.place.answers(shape, weights, rows)

    def check_front(self, state: ModelState, *, model: str) -> None:
        """Raise NotTrainable when something in front of the head was trained: the kept features are those of the base."""
        head = {name for pair in self.place.notes.layers for name in pair}
        front = {name for mode in self.notes.modes for name in mode.weights} - head
        for spec, base, now in zip(state.manifest.schema.tensors, state.base, state.weights, strict=True):
            if spec.name in front and base.tobytes() != now.tobytes():
                reason = f"mode features: {spec.name} in front of the head has moved from the base: train.mode = head trains on"
                raise NotTrainable(model=model, reason=reason)


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
        return guard.score(self.known.answers(weights, self.judged), self.judging)

    def recipe(self, rows: Rows, lesson: Lesson, optimizer: str) -> HeadRecipe:
        """Return how the lesson trains on these rows. optimizer: a name; "" for the model file's own."""
        return self.known.place.recipe(
            rows=len(rows), batch=self.known.batch, epochs=lesson.epochs, rate=lesson.learning_rate,
            optimizer=optimizer or self.known.notes.optimizer, seed=lesson.seed,
        )  # fmt: skip

    def quantised(self) -> Rows:
        """Return the rows to train on as a recipe carries them."""
        return wire_rows.quantised(self.rows.features, self.rows.labels, self.rows.targets)


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

    def gather(
        self, lineage: Lineage, spool: Spool, *, held_out: float, until: int, share: float = 1.0
    ) -> Generator[None, None, OnFeatures]:
        """Return the samples up to `until` as features, yielding while some are computed. share: of one core that this may take.

        Raises NotTrainable where this model or these samples can't be trained in mode features; NotEnoughSamples.
        """
        name = lineage.name
        known = yield from self._prepare(lineage, spool, until, share)
        kept, loss = self._kept(spool, lineage, known), known.place.notes.loss

        def rows_of(samples: Samples) -> Rows:
            return rows_for(kept.rows(samples.ids), samples.y, labelled=samples.labelled, loss=loss, model=name)

        with spool.database.transaction():  # samples may have gone meanwhile, and more may go while these are read
            training, judging = spool.outline(name, held_out, until=until)
            if not len(training) or not len(judging):
                raise NotEnoughSamples(model=name, have=len(training) + len(judging), need=2)
            return OnFeatures(name, known, training, judging, until, rows_of(training), rows_of(judging))

    def newest(
        self, lineage: Lineage, spool: Spool, *, after: int, most: int, share: float = 1.0
    ) -> Generator[None, None, tuple[Samples, F32]]:
        """Return the newest samples with ids above `after`, at most so many, and what the head answers to them, [n, outputs].

        Yields and raises as `gather` does.
        """
        name = lineage.name
        known = yield from self._prepare(lineage, spool, spool.last_id(name), share)
        held, kept = lineage.load(), self._kept(spool, lineage, known)
        known.check_front(held.state, model=name)
        with spool.database.transaction():  # as above; and what has come meanwhile has no features yet
            samples = spool.newest(name, after=after, most=most)
            have = ~np.isin(samples.ids, kept.missing(samples.ids))
            samples = replace(samples, x=samples.x[have], y=samples.y[have], ids=samples.ids[have])
            features = kept.rows(samples.ids)
        if not len(samples):
            return samples, np.zeros((0, known.place.widths[-1]), np.float32)
        return samples, known.answers(held.state.named(), Rows(features))

    def _prepare(self, lineage: Lineage, spool: Spool, until: int, share: float) -> Generator[None, None, Known]:
        """Have the features computed that the samples up to `until` lack."""
        known, ids = self.known.get(lineage.name), spool.ids(lineage.name, until=until)
        if known is None or self._kept(spool, lineage, known).missing(ids):
            _check_size(lineage.name, head_of(lineage.store.folder / "base.tflite", lineage.name)[0].head, len(ids))
            known = yield from self._find_out(lineage, until, share)
        return known

    def _kept(self, spool: Spool, lineage: Lineage, known: Known) -> Features:
        return Features(spool, lineage.name, base=lineage.base_commit, runtime=known.runtime_key, width=known.place.widths[0])

    def _find_out(self, lineage: Lineage, until: int, share: float = 1.0) -> Generator[None, None, Known]:
        notes, batch = head_of(lineage.store.folder / "base.tflite", lineage.name)
        assert notes.head is not None  # `head_of` has seen to it
        found = yield from Extraction(self.state, lineage.name, base=lineage.base_commit, until=until, share=share).result()
        place = replace(place_of(notes.head, lineage.manifest.schema), logits=found["logits"])
        known = Known(place, notes, found["runtime"], batch)
        if until:  # without samples nothing was compared
            self.known[lineage.name] = known
        return known


def _check_size(model: str, head: HeadNotes | None, samples: int) -> None:
    if head is not None and samples * head.features > wire_rows.ENTRIES_MAX:
        reason = f"mode features: {samples} samples of {head.features} features are too many to hold; spool.max_samples = "
        raise NotTrainable(model=model, reason=f"{reason}{wire_rows.ENTRIES_MAX // head.features} and fewer do")
